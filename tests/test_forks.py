"""Indexes in forked processes: a call answers or refuses at once, and a child never keeps its parent's lock."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from qdrant_client import QdrantClient

from compressae_qdrant import CompresSAE, EdgeIndex, QdrantIndex, Retriever
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import CodeIndexError

from .support.sink import Sink, serving


def _in_child(work: Callable[[], object], seconds: float = 20.0) -> int:
    """Run `work` in a forked process; its exit code, or -9 if it did not end in time."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            if code:
                traceback.print_exc(file=sys.__stderr__)
            os._exit(code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -9


def test_an_embedded_index_refuses_every_call_in_a_child(
    index: EdgeIndex, model: CompresSAE, embeddings: FloatArray
) -> None:
    retriever = Retriever(model, index)
    assert retriever.search(embeddings[0], limit=1)

    def work() -> None:
        with pytest.raises(CodeIndexError, match=f"process {os.getppid()} opened it and then forked"):
            retriever.search(embeddings[0], limit=1)
        for call in (index.count, index.info, index.flush, index.optimize, lambda: index.delete([1])):
            with pytest.raises(CodeIndexError, match="Open an embedded index after the fork"):
                call()
        index.close()  # does nothing: the files belong to the parent

    assert _in_child(work) == 0
    assert retriever.search(embeddings[0], limit=1)


def test_a_child_does_not_keep_its_parents_lock(index: EdgeIndex, model: CompresSAE) -> None:
    path, (held, release) = Path(index.journal).parent, os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        os.read(held, 1)  # until the parent closes its end
        os._exit(0)
    os.close(held)
    index.close()
    with EdgeIndex.open(path, model) as opened:  # while the child is alive
        assert opened.count() == 600
    os.close(release)
    os.waitpid(child, 0)


def test_a_child_can_open_what_its_parent_had_closed(index: EdgeIndex, model: CompresSAE) -> None:
    path = Path(index.journal).parent
    index.close()

    def work() -> None:
        with EdgeIndex.open(path, model) as opened:
            assert opened.count() == 600

    assert _in_child(work) == 0


def test_coding_works_in_a_child(model: CompresSAE, embeddings: FloatArray) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model.encode(embeddings)
        assert _in_child(lambda: model.encode(embeddings)) == 0
    finally:
        torch.set_num_threads(threads)


def test_a_child_connects_to_a_server_anew(model: CompresSAE) -> None:
    with serving(Sink()) as port:
        client = QdrantClient(host="127.0.0.1", port=port, check_compatibility=False)
        with QdrantIndex.create(client, "items", model, owns_client=True) as index:
            before = index._connection.client

            def work() -> None:
                assert index.count() == 0
                assert index._connection.client is not before

            assert _in_child(work) == 0
            assert index._connection.client is before


def test_the_clients_local_mode_refuses_a_child(model: CompresSAE) -> None:
    client = QdrantClient(":memory:")
    index = QdrantIndex.create(client, "items", model)

    def work() -> None:
        with pytest.raises(CodeIndexError, match="local mode does not survive a fork"):
            index.count()

    assert _in_child(work) == 0
    client.close()


def test_grpc_refuses_a_child(model: CompresSAE) -> None:
    with serving(Sink()) as port:
        made = QdrantIndex.create(QdrantClient(port=port, check_compatibility=False), "items", model, owns_client=True)
        client = QdrantClient(host="127.0.0.1", port=port, prefer_grpc=True, check_compatibility=False)
        index = QdrantIndex(client, "items", made._manifest, owns_client=True)

        def work() -> None:
            with pytest.raises(CodeIndexError, match="gRPC connection does not survive a fork"):
                index.count()

        assert _in_child(work) == 0
        made.close()
        index.close()
