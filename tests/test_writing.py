"""Several upserts under way: order of items that come twice, confirmation in order, sizes of requests."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from compressae_qdrant import CompresSAE, IndexSettings, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import CodeIndexError, IndexUnavailableError, IngestError
from compressae_qdrant.ingestion.sync import sync
from compressae_qdrant.ingestion.writer import Writer, content_hash
from compressae_qdrant.retry import RetryPolicy
from compressae_qdrant.sources import Batch


class SlowFirst:
    """Takes four upserts at once; those that begin earlier end later."""

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


def test_an_item_that_comes_twice_ends_as_it_came_last(model: CompresSAE, embeddings: FloatArray) -> None:
    index, confirmed = SlowFirst(), list[int]()
    with _writer(model, index, confirmed) as writer:
        writer.write(_batch([1, 2], embeddings, 0))
        writer.write(_batch([3, 4], embeddings, 2))
        writer.write(_batch([5, 1], embeddings, 4))
        writer.drain()
    assert confirmed == [0, 2, 4]
    wanted = model.encode(embeddings[:6])
    assert [index.stored[n] for n in (1, 2, 3, 4, 5)] == [wanted.values[row].tobytes() for row in (5, 1, 2, 3, 4)]


def test_an_error_names_the_first_rows_that_are_not_confirmed(model: CompresSAE, embeddings: FloatArray) -> None:
    index, confirmed = SlowFirst(), list[int]()
    index.broken = {12}
    with _writer(model, index, confirmed) as writer:
        for start in (0, 10, 20):
            writer.write(_batch(list(range(start, start + 10)), embeddings, start))
        with pytest.raises(IngestError, match=r"rows 10\.\.19.*Rows before 10 are in"):
            writer.drain()
    assert confirmed == [0]
    assert set(range(10)) <= set(index.stored)


def test_an_error_that_no_waiting_mends_names_them_too(model: CompresSAE, embeddings: FloatArray) -> None:
    index, confirmed = SlowFirst(), list[int]()
    index.broken, index.failure = {12}, CodeIndexError("403 Forbidden")
    with _writer(model, index, confirmed) as writer:
        for start in (0, 10):
            writer.write(_batch(list(range(start, start + 10)), embeddings, start))
        with pytest.raises(IngestError, match=r"rows 10\.\.19.*403 Forbidden.*Rows before 10 are in.*same command"):
            writer.drain()
    assert index.calls == [10, 10]


def test_large_payloads_go_in_several_requests(model: CompresSAE, embeddings: FloatArray) -> None:
    index, confirmed = SlowFirst(), list[int]()
    with _writer(model, index, confirmed) as writer:
        writer.write(_batch(list(range(10)), embeddings, 0, {"text": "x" * (3 << 20)}))
        writer.drain()
        assert index.calls == [2] * 5
        with pytest.raises(IngestError, match="in the batch twice"):
            writer.write(_batch([1, 2, 3, 1], embeddings, 0, {"text": "x" * (5 << 20)}))
    np.testing.assert_array_equal(sorted(index.stored), range(10))


def test_a_sync_too_ends_with_what_came_last(model: CompresSAE, embeddings: FloatArray) -> None:
    """An item comes twice: as it isn't in the index yet, and then as it is. The second is compared with the first."""
    index = _Hashed()
    before, after = _batch([1], embeddings, 0), _batch([1], embeddings, 1)
    index.fingerprint = model.fingerprint
    index.content = {1: content_hash(after, 0, "pursuit/4")}
    sync(_Two([before, after]), model, index, delete=False)  # type: ignore[arg-type]
    assert index.stored[1] == model.encode(embeddings[1:2]).values[0].tobytes()


class _Hashed(SlowFirst):
    """As slow, with the hashes that are kept."""

    fingerprint: str
    content: dict[Any, str]

    def upsert(self, ids: Any, codes: SparseCodes, *rest: Any) -> None:
        super().upsert(ids, codes)
        self.content |= dict(zip(ids, rest[-1], strict=True))

    def hashes(self, ids: Any) -> list[str | None]:
        return [self.content.get(id) for id in ids]

    def optimize(self) -> None:
        pass

    def flush(self) -> None:
        pass


class _Two:
    def __init__(self, parts: list[Batch]) -> None:
        self._parts = parts

    def batches(self, _: int) -> list[Batch]:
        return self._parts
