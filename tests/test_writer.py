"""Parallel upserts: order of repeated items, confirmation in order, error messages and sizes of requests."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from compressae_qdrant import CompresSAE, IndexSettings, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import CodeIndexError, IndexUnavailableError, IngestError
from compressae_qdrant.index.retry import RetryPolicy
from compressae_qdrant.ingestion.prepared import PreparedBatch
from compressae_qdrant.ingestion.sync import sync
from compressae_qdrant.ingestion.writer import Writer
from compressae_qdrant.sources import Batch


class SlowFirst:
    """An index with four parallel upserts, in which earlier upserts finish later."""

    parallel_upserts = 4
    settings = IndexSettings()

    def __init__(self) -> None:
        self.stored: dict[Any, bytes] = {}
        self.calls: list[int] = []
        self.broken: set[Any] = set()
        self.failure: CodeIndexError = IndexUnavailableError("away")
        self._wait = 0.2
        self._lock = threading.Lock()

    def upsert(self, ids: Any, codes: SparseCodes, *_: Any) -> None:
        with self._lock:
            self._wait /= 2
            wait = self._wait
            self.calls.append(len(ids))
        time.sleep(wait)
        if self.broken & set(ids):
            raise self.failure
        with self._lock:
            self.stored.update({id: codes.values[row].tobytes() for row, id in enumerate(ids)})


def _batch(ids: list[int | str], x: FloatArray, start: int, payload: dict[str, Any] | None = None) -> Batch:
    return Batch(ids, x[start : start + len(ids)], [payload or {} for _ in ids], start, start + len(ids), 0)


def _writer(model: CompresSAE, index: Any, confirmed: list[int]) -> Writer:
    return Writer(model, index, "pursuit", 4, RetryPolicy(attempts=1), lambda batch: confirmed.append(batch.start))


def test_the_last_value_of_a_repeated_item_is_stored(model: CompresSAE, embeddings: FloatArray) -> None:
    index, confirmed = SlowFirst(), list[int]()
    with _writer(model, index, confirmed) as writer:
        writer.write(_batch([1, 2], embeddings, 0))
        writer.write(_batch([3, 4], embeddings, 2))
        writer.write(_batch([5, 1], embeddings, 4))
        writer.drain()
    assert confirmed == [0, 2, 4]
    expected = model.encode(embeddings[:6])
    assert [index.stored[n] for n in (1, 2, 3, 4, 5)] == [expected.values[row].tobytes() for row in (5, 1, 2, 3, 4)]


def test_an_error_names_the_first_unconfirmed_rows(model: CompresSAE, embeddings: FloatArray) -> None:
    index, confirmed = SlowFirst(), list[int]()
    index.broken = {12}
    with _writer(model, index, confirmed) as writer:
        for start in (0, 10, 20):
            writer.write(_batch(list(range(start, start + 10)), embeddings, start))
        with pytest.raises(IngestError, match=r"rows 10-19.*Rows before 10 are in the index"):
            writer.drain()
    assert confirmed == [0]
    assert set(range(10)) <= set(index.stored)


def test_a_permanent_error_also_names_them(model: CompresSAE, embeddings: FloatArray) -> None:
    index, confirmed = SlowFirst(), list[int]()
    index.broken, index.failure = {12}, CodeIndexError("403 Forbidden")
    with _writer(model, index, confirmed) as writer:
        for start in (0, 10):
            writer.write(_batch(list(range(start, start + 10)), embeddings, start))
        with pytest.raises(
            IngestError, match=r"failed at rows 10-19 \(403 Forbidden\)\. Rows before 10 .*same command"
        ):
            writer.drain()
    assert index.calls == [10, 10]


def test_large_payloads_are_split_into_several_requests(model: CompresSAE, embeddings: FloatArray) -> None:
    index, confirmed = SlowFirst(), list[int]()
    with _writer(model, index, confirmed) as writer:
        writer.write(_batch(list(range(10)), embeddings, 0, {"text": "x" * (3 << 20)}))
        writer.drain()
        assert index.calls == [2] * 5
        with pytest.raises(IngestError, match="in the batch twice"):
            writer.write(_batch([1, 2, 3, 1], embeddings, 0, {"text": "x" * (5 << 20)}))
    np.testing.assert_array_equal(sorted(index.stored), range(10))


def test_a_sync_stores_the_last_value_of_a_repeated_item(model: CompresSAE, embeddings: FloatArray) -> None:
    """An item occurs twice: changed, then as in the index. The second row is compared with the first, not the index."""
    index = _HashedIndex()
    before, after = _batch([1], embeddings, 0), _batch([1], embeddings, 1)
    index.fingerprint = model.fingerprint
    index.content = {1: (PreparedBatch.of(after).with_hashes("pursuit/4").hashes or [""])[0]}
    sync(_BatchSource([before, after]), model, index, delete=False)  # type: ignore[arg-type]
    assert index.stored[1] == model.encode(embeddings[1:2]).values[0].tobytes()


class _HashedIndex(SlowFirst):
    """A SlowFirst that stores content hashes."""

    fingerprint: str
    content: dict[Any, str]

    def upsert(self, ids: Any, codes: SparseCodes, *rest: Any) -> None:
        super().upsert(ids, codes)
        self.content |= dict(zip(ids, rest[-1], strict=True))

    def hashes(self, ids: Any) -> list[str | None]:
        return [self.content.get(id) for id in ids]

    def verify(self) -> None:
        """It is never replaced."""

    def optimize(self) -> None:
        pass

    def flush(self) -> None:
        pass


class _BatchSource:
    def __init__(self, parts: list[Batch]) -> None:
        self._parts = parts

    def batches(self, _: int) -> list[Batch]:
        return self._parts


def test_an_error_says_if_nothing_was_written(model: CompresSAE, embeddings: FloatArray) -> None:
    batch, large = _batch(list(range(10)), embeddings, 0), {"text": "x" * (5 << 20)}
    for failure, payload, message in (
        (CodeIndexError("403 Forbidden"), {}, r"failed at rows 0-9 \(403 Forbidden\)\. No rows were written; "),
        (CodeIndexError("400"), large, r"failed at rows 0-9 \(400\)\. Some of these rows may be in the index; "),
        (IndexUnavailableError("away"), {}, r"after 1 attempts \(away\)\. Some of these rows may be in the index; "),
    ):
        index = SlowFirst()
        index.broken, index.failure = {7}, failure
        with _writer(model, index, []) as writer:
            writer.write(_batch(list(batch.ids), embeddings, 0, payload))
            with pytest.raises(IngestError, match=message):
                writer.drain()
            writer.drain()  # nothing is left to confirm
    with _writer(model, SlowFirst(), []) as writer, pytest.raises(IngestError, match="use strings as field names"):
        writer.write(_batch([1], embeddings, 0, {1: "a", "b": 2}))  # type: ignore[dict-item]  # what is refused


def test_a_rejected_batch_leaves_earlier_ones_written(model: CompresSAE, embeddings: FloatArray) -> None:
    index, confirmed = SlowFirst(), list[int]()
    with _writer(model, index, confirmed) as writer:
        writer.write(_batch([1, 2], embeddings, 0))
        with pytest.raises(IngestError, match=r"rows 2-3 cannot be ingested: .* twice.*Rows before 2 are in the index"):
            writer.write(_batch([3, 3], embeddings, 2))
    assert (confirmed, sorted(index.stored)) == ([0], [1, 2])
