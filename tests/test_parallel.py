"""Batches on several threads: results, failures, and settings of PyTorch that stay as they were."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from compressae_qdrant import CompresSAE
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.model.parallel import map_batches

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_are_in_order_and_the_settings_unchanged(threads: int) -> None:
    torch.set_num_threads(threads)
    used: set[int] = set()

    def work(number: int) -> tuple[int, int, bool]:
        used.add(threading.get_ident())
        time.sleep(0.002 * (number % 3))
        return number, torch.get_num_threads(), torch.is_grad_enabled()

    with torch.no_grad():
        results = map_batches(work, range(20), CPU)
    assert results == [(number, 1, False) for number in range(20)]
    assert len(used) == threads
    assert torch.get_num_threads() == threads
    inherited: list[int] = []
    later = threading.Thread(target=lambda: inherited.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert inherited == [threads]


def test_a_gpu_gets_one_batch_at_a_time() -> None:
    torch.set_num_threads(2)
    assert set(map_batches(lambda _: threading.get_ident(), range(9), torch.device("cuda"))) == {threading.get_ident()}
    assert map_batches(lambda _: threading.get_ident(), [], CPU) == []


def test_the_first_failure_is_raised_and_no_batch_is_begun_after_it() -> None:
    torch.set_num_threads(2)
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.05 if number == 4 else 0.01)
        if number >= 4:
            raise ValueError(f"batch {number}")

    with pytest.raises(ValueError, match="batch 4"):
        map_batches(work, range(1000), CPU)
    assert sorted(begun) == list(range(len(begun)))
    assert len(begun) <= 6
    assert torch.get_num_threads() == 2


def test_an_interruption_ends_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    plain, interrupted = threading.Thread.join, list[threading.Thread]()

    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        if not interrupted:
            interrupted.append(thread)
            raise KeyboardInterrupt
        plain(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", join)
    before, begun = threading.active_count(), list[int]()

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.02)

    with pytest.raises(KeyboardInterrupt):
        map_batches(work, range(1000), CPU)
    assert len(begun) < 10
    assert threading.active_count() == before


def test_codes_do_not_depend_on_the_number_of_threads(model: CompresSAE, embeddings: FloatArray) -> None:
    coded = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        coded.append(model.encode(embeddings, batch_size=100))
    for other in coded[1:]:
        np.testing.assert_array_equal(other.indices, coded[0].indices)
        np.testing.assert_array_equal(other.values, coded[0].values)
