from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressae_qdrant import SparseCodes
from compressae_qdrant.errors import InvalidCodeError, InvalidInputError, ModelFileError


@st.composite
def any_codes(draw: st.DrawFn) -> SparseCodes:
    latents = draw(st.integers(1, 30))
    k = draw(st.integers(1, latents))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 6))
    indices = np.stack([random.choice(latents, k, replace=False) for _ in range(n)])
    scale: Any = draw(st.sampled_from([None, "raw", "code", "reconstruction"]))
    return SparseCodes(indices, random.normal(size=(n, k)), latents, scale)


@given(any_codes())
def test_to_csr_returns_the_matrix_of_the_codes(codes: SparseCodes) -> None:
    dense = np.zeros((len(codes), codes.latents), np.float32)
    np.put_along_axis(dense, codes.indices.astype(np.int64), codes.values, axis=1)
    matrix = codes.to_csr()
    np.testing.assert_array_equal(matrix.toarray(), dense)
    assert np.shares_memory(matrix.data, codes.values)


@given(any_codes())
def test_concatenated_slices_equal_the_original(codes: SparseCodes) -> None:
    assert SparseCodes.concatenate([codes[:1], codes[1:]]) == codes
    assert codes[np.arange(len(codes))] == codes
    assert codes[[len(codes) - 1]].row(0)[0].tolist() == codes.row(len(codes) - 1)[0].tolist()


@given(codes=any_codes())
def test_save_and_load_round_trip(tmp_path_factory: pytest.TempPathFactory, codes: SparseCodes) -> None:
    path = tmp_path_factory.mktemp("codes") / "codes.safetensors"
    codes.save(path)
    assert SparseCodes.load(path) == codes


def test_rows_are_sorted_by_latent_and_nbytes_is_8_n_k() -> None:
    codes = SparseCodes([[5, 2, 9]], [[1.0, 2.0, 3.0]], 10)
    assert codes.indices.tolist() == [[2, 5, 9]]
    assert codes.values.tolist() == [[2.0, 1.0, 3.0]]
    assert (str(codes.indices.dtype), str(codes.values.dtype)) == ("int32", "float32")
    assert codes.nbytes == 24 == 8 * len(codes) * codes.k
    assert codes.row(0)[1].tolist() == [2.0, 1.0, 3.0]
    assert SparseCodes([[1, 2]], [[0.0, 3.0]], 4).row(0)[0].tolist() == [2]
    assert "1 items, k=3, latents=10" in repr(codes)


@pytest.mark.parametrize(
    ("indices", "values", "latents", "complaint"),
    [
        ([[1, 2]], [[1.0]], 5, "both must have the shape"),
        ([1, 2], [1.0, 2.0], 5, "both must have the shape"),
        ([[1.5, 2]], [[1.0, 1.0]], 5, "must be integers"),
        ([[0, 1], [1, 5]], [[1.0, 1.0]] * 2, 5, r"row 1 names a latent outside 0\.\.4"),
        ([[0, -1]], [[1.0, 1.0]], 5, "row 0 names a latent outside"),
        ([[3, 3]], [[1.0, 1.0]], 5, "row 0 names the same latent twice"),
        ([[3, 4]], [[1.0, np.nan]], 5, "row 0 holds NaN"),
        ([[3, 4]], [[np.inf, 1.0]], 5, "row 0 holds NaN or an infinite"),
        ([[3, 4]], [[0.0, 0.0]], 5, "row 0 has no non-zero value"),
        ([[0, 1]], [[1.0, 1.0]], 1, "1 <= k <= latents is required"),
    ],
)
def test_invalid_codes_are_refused(indices: Any, values: Any, latents: int, complaint: str) -> None:
    with pytest.raises(InvalidCodeError, match=complaint):
        SparseCodes(indices, values, latents)


def test_different_codes_cannot_be_concatenated() -> None:
    a, b = SparseCodes([[1]], [[1.0]], 3), SparseCodes([[1]], [[1.0]], 4)
    for parts in ([a, b], []):
        with pytest.raises(InvalidInputError, match="can't concatenate"):
            SparseCodes.concatenate(parts)
    assert a != b
    assert a != "codes"


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    with pytest.raises(ModelFileError, match="not a readable code file"):
        SparseCodes.load(path)
    SparseCodes([[1]], [[1.0]], 3).save(path)
    content = path.read_bytes()
    for damaged in (content[:20], content[:-2], content.replace(b'"format":"1"', b'"format":"9"')):
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match=r"codes\.safetensors"):
            SparseCodes.load(path)


def test_an_empty_selection_is_valid() -> None:
    codes = SparseCodes([[1, 3], [0, 2]], [[0.5, 0.1], [0.2, -3.0]], 5)
    selections: list[Any] = [[], np.array([]), slice(0, 0)]
    for rows in selections:
        assert (len(codes[rows]), codes[rows].k) == (0, 2)


@pytest.mark.parametrize("rows", [2, np.int64(2), None, [[0, 1]], np.zeros((2, 2), bool)])
def test_a_selection_of_another_shape_is_refused(rows: Any) -> None:
    codes = SparseCodes([[0, 1], [1, 2], [0, 2]], np.ones((3, 2), np.float32), 3)
    with pytest.raises(InvalidInputError, match=r"(?s)codes are selected by .*codes\[i : i \+ 1\] is one code"):
        codes[rows]
