"""Arguments of wrong types: every public call answers, or raises an error of this package that says what it got."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from qdrant_client import AsyncQdrantClient, QdrantClient

from compressae_qdrant import (
    AsyncQdrantIndex,
    AsyncRetriever,
    CompresSAE,
    EdgeIndex,
    IndexSettings,
    QdrantIndex,
    Retriever,
    SparseCodes,
    TrainConfig,
)
from compressae_qdrant.checks import check_number, check_whole, shown
from compressae_qdrant.errors import CompresSAEError, ConfigError, InvalidInputError
from compressae_qdrant.index.retry import RetryPolicy
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.search.settings import DEFAULTS

D = 8
ROWS = np.random.default_rng(0).normal(size=(20, D)).astype(np.float32)
ROW = ROWS[0]


class _Rude:
    """Its index raises an error of its own."""

    def __index__(self) -> int:
        raise ZeroDivisionError


class _Ruder(_Rude):
    def __repr__(self) -> str:
        raise ZeroDivisionError


ODD: list[Any] = [
    1.5, "ten", None, True, -1, 2**31, 2**70, float("nan"), float("inf"), [], {}, object(), b"3", Decimal(3),
    Fraction(1, 3), np.float32(3), np.array(3), np.array([3]), np.bool_(True), 1 + 2j, torch.tensor(1.5), _Rude(), "",
    "\ud800", object, len,
]  # fmt: skip
VECTORS: dict[str, Any] = {
    "bfloat16": torch.tensor(ROW, dtype=torch.bfloat16), "a gradient": torch.tensor(ROW, requires_grad=True),
    "meta": torch.tensor(ROW).to("meta"), "ragged": [[1, 2], [3]], "a set": set(ROW.tolist()), "a mapping": {"a": 1},
    "a short row": ROW[:7], "three dimensions": ROW[None, None], "complex": ROW.astype(complex),
    "objects": np.array([object()] * D, object), "texts in an array": np.array(["a"] * D), "bytes": b"abcdefgh",
    "too large": [10**400] * D, "dates": np.array(["2020-01-01"] * D, "datetime64[D]"), "text": "hello",
    "masked": np.ma.masked_array(ROW, ROW > 0), "mixed": [1.0, "a", *range(6)], "an empty list": [],
    "a structure": np.zeros(D, dtype=[("a", float)]), "a sparse matrix": scipy.sparse.csr_matrix(ROW[None]),
    "a sparse tensor": torch.tensor(ROW).to_sparse(), "too large for float32": [1e39] * D, "not a number": ROW * np.nan,
    "zero": ROW * 0, "a list of tensors": [torch.tensor(ROW, requires_grad=True)],
}  # fmt: skip

Run = Callable[[Any], Any]


@contextlib.contextmanager
def _answers_or_refuses() -> Iterator[None]:
    with contextlib.suppress(CompresSAEError):
        yield


@pytest.fixture(scope="module")
def coder() -> CompresSAE:
    torch.manual_seed(0)
    return CompresSAE(ModelConfig(dim=D, latents=32, k=4))


@pytest.fixture(scope="module", params=["edge", "local", "async"])
def searched(request: pytest.FixtureRequest, coder: CompresSAE, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A retriever on 20 items, and a function that gives the result of its calls."""
    loop = asyncio.new_event_loop()
    codes, payloads = coder.encode(ROWS), [{"n": n} for n in range(20)]

    def run(result: Any) -> Any:
        return loop.run_until_complete(result) if asyncio.iscoroutine(result) else result

    if request.param == "async":
        client = AsyncQdrantClient(":memory:")
        index = run(AsyncQdrantIndex.create(client, "items", coder))
        run(index.upsert(range(20), codes, payloads))
        yield AsyncRetriever(coder, index), run
        run(client.close())
    else:
        path: Path = tmp_path_factory.mktemp("arguments") / "index"
        one = (
            EdgeIndex.create(path, coder) if request.param == "edge"
            else QdrantIndex.create(QdrantClient(":memory:"), "items", coder, owns_client=True)
        )  # fmt: skip
        one.upsert(range(20), codes, payloads)
        yield Retriever(coder, one), run
        one.close()
    loop.close()


@pytest.mark.parametrize("name", VECTORS)
def test_queries(searched: tuple[Any, Run], name: str) -> None:
    retriever, run = searched
    query = VECTORS[name]
    for call in (retriever.search, retriever.search_batch):
        if name == "an empty list":
            with _answers_or_refuses():
                run(call(query))
            continue
        with pytest.raises(CompresSAEError) as caught:
            run(call(query))
        assert "; " in str(caught.value) or ": " in str(caught.value)  # what was wrong, and what to do
    with _answers_or_refuses():
        run(retriever.similar_to(query))


def test_generators_are_refused(searched: tuple[Any, Run], coder: CompresSAE) -> None:
    retriever, run = searched
    with pytest.raises(InvalidInputError, match="generator, which can be read once"):
        run(retriever.search_batch(x for x in ROWS))
    with pytest.raises(InvalidInputError, match="generator, which can be read once"):
        coder.encode(x for x in ROWS)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["limit", *DEFAULTS])
def test_options_of_a_search(searched: tuple[Any, Run], option: str) -> None:
    retriever, run = searched
    for value in ODD:
        with _answers_or_refuses():
            run(retriever.search(ROW, **{option: value}))
    for value in (1.5, "ten", _Rude()):
        if (option, value) not in {
            ("target_recall", 1.5),
            ("within_strength", 1.5),
            ("within", "ten"),
            ("score_threshold", 1.5),
        }:
            with pytest.raises(InvalidInputError, match=option):
                run(retriever.search(ROW, **{option: value}))


def _case(value: object) -> str:
    """The value in the name of a test, without addresses: parallel workers must agree on names."""
    return re.sub(r" at 0x[0-9a-f]+", "", shown(value))


@pytest.mark.parametrize("value", ODD, ids=_case)
def test_other_calls_of_a_retriever(searched: tuple[Any, Run], value: Any) -> None:
    retriever, run = searched
    calls: list[Callable[[], Any]] = [
        lambda: retriever.search_batch(ROWS[:2], value), lambda: retriever.similar_to(3, value),
        lambda: retriever.similar_to(value), lambda: retriever.explain(value), lambda: retriever.explain([value]),
    ]  # fmt: skip
    for call in calls:
        with _answers_or_refuses():
            run(call())


@pytest.mark.parametrize("value", [*ODD, *VECTORS.values()], ids=_case)
def test_calls_of_an_index(searched: tuple[Any, Run], coder: CompresSAE, value: Any) -> None:
    retriever, run = searched
    index, codes = retriever.index, coder.encode(ROWS[:2])
    before = run(index.count())
    calls: list[Callable[[], Any]] = [
        lambda: index.upsert(value, codes), lambda: index.upsert([value, 2], codes), lambda: index.upsert([1], value),
        lambda: index.upsert([1], codes[:1], value), lambda: index.upsert([1], codes[:1], [value]),
        lambda: index.upsert([1], codes[:1], [{"a": value}]), lambda: index.upsert([1], codes[:1], None, value),
        lambda: index.upsert([1], codes[:1], None, None, value), lambda: index.retrieve(value),
        lambda: index.upsert([1], codes[:1], None, None, [value]), lambda: index.hashes(value),
        lambda: index.count(value), lambda: index.search(value), lambda: index.search_batch(value),
        lambda: index.search_batch([value]), lambda: index.page(value), lambda: index.page(3, value),
    ]  # fmt: skip
    for call in calls:
        with _answers_or_refuses():
            run(call())
    if value not in ([], {}) if isinstance(value, (list, dict)) else not isinstance(value, (str, int)):
        assert run(index.count()) == before
    with _answers_or_refuses():
        run(index.delete(["nothing", value]))


def test_no_items(searched: tuple[Any, Run], coder: CompresSAE) -> None:
    index, run = searched[0].index, searched[1]
    none = coder.encode(ROWS[:1])[:0]
    assert run(index.upsert([], none)) is run(index.delete([])) is None
    assert run(index.retrieve([])) == run(index.hashes([])) == run(index.search_batch([])) == []


@pytest.mark.parametrize("value", [*ODD, *VECTORS.values()], ids=_case)
def test_coding(coder: CompresSAE, value: Any) -> None:
    codes = coder.encode(ROWS[:2])
    calls: list[Callable[[], Any]] = [
        lambda: coder.encode(value), lambda: coder.encode(ROWS, value), lambda: coder.encode(ROWS, scale=value),
        lambda: coder.encode(ROWS, atoms_per_step=value), lambda: coder.encode(ROWS, batch_size=value),
        lambda: coder.decode(value), lambda: coder.decode(codes, batch_size=value),
        lambda: SparseCodes(value, value, 32), lambda: SparseCodes([[1]], [[1.0]], value),
    ]  # fmt: skip
    for call in calls:
        with _answers_or_refuses():
            call()


@pytest.mark.parametrize("kind", [IndexSettings, NavigationSettings, TrainConfig, ModelConfig, RetryPolicy])
def test_settings(kind: Any) -> None:
    required = {"dim": 4, "latents": 8, "k": 2} if kind is ModelConfig else {}
    for name in kind.__dataclass_fields__:
        for value in ODD:
            made = None
            with contextlib.suppress(ConfigError):
                made = kind(**{**required, name: value})
            plain = (int, float, bool, str, dict, tuple, NavigationSettings)
            assert value is None or made is None or type(getattr(made, name)) in plain


def test_codes_do_not_depend_on_the_layout_of_an_array(coder: CompresSAE) -> None:
    wide = np.repeat(ROWS, 2, axis=1)
    for same in (np.asfortranarray(ROWS), wide[:, ::2], ROWS[::-1][::-1], ROWS.astype(">f4"), ROWS.tolist()):
        assert coder.encode(same) == coder.encode(ROWS)


def test_numbers_of_numpy_become_pythons() -> None:
    settings = IndexSettings(segments=np.int64(2), keep_dense=np.bool_(True), shard_keys=[np.uint8(3), "a"])  # type: ignore[arg-type,list-item]
    assert (type(settings.segments), settings.keep_dense, settings.shard_keys) == (int, True, (3, "a"))
    assert type(check_whole("n", np.int8(3))) is type(check_whole("n", torch.tensor(3))) is int
    assert type(check_number("x", np.float16(0.5))) is float
    with pytest.raises(InvalidInputError, match="n is a _Ruder; it must be a whole number"):
        check_whole("n", _Ruder())
    with pytest.raises(ConfigError, match="n is 0; it must be at least 1"):
        check_whole("n", 0, 1, error=ConfigError)
