"""An ingestion that is killed (SIGKILL) at a random moment and run again gives the same index as without the kill.

COMPRESSAE_KILLS sets the number of kills (3 by default); 30 is a thorough run.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from compressae_qdrant import CompresSAE, EdgeIndex, ingest, open_source
from compressae_qdrant.codes import FloatArray

ITEMS, BATCH = 3_000, 100
KILLS = int(os.environ.get("COMPRESSAE_KILLS", "3"))

_RUN = """
import importlib, sys
from compressae_qdrant import CompresSAE, ingest, open_source
from compressae_qdrant.index import IndexSettings, create_index, open_index
from compressae_qdrant.errors import IndexNotFoundError
importlib.import_module("compressae_qdrant.ingestion.ingest")._FLUSH_SECONDS = 0.05
model = CompresSAE.load(sys.argv[1])
print("ready", flush=True)
try:
    index = open_index(sys.argv[2], model)
except IndexNotFoundError:
    index = create_index(sys.argv[2], model)
ingest(open_source(sys.argv[3]), model, index, batch_size=int(sys.argv[4]))
index.close()
"""


def _content(path: Path, model: CompresSAE) -> tuple[list[int | str], list[bytes]]:
    """Return the ids that a scan finds, and the stored bytes of every item."""
    with EdgeIndex.open(path, model) as index:
        scanned = [item for page in index.scan() for item in page]
        records = index.retrieve(range(ITEMS))
        return scanned, [record.indices.tobytes() + record.values.tobytes() for record in records]


@pytest.fixture(scope="module")
def clean(
    tmp_path_factory: pytest.TempPathFactory, model: CompresSAE, embeddings: FloatArray
) -> tuple[Path, float, list[bytes]]:
    """A folder with the catalog and the model; the seconds and the content of an ingestion that was not killed."""
    folder = tmp_path_factory.mktemp("clean")
    noise = np.random.default_rng(0).normal(size=(ITEMS, embeddings.shape[1]))
    np.save(folder / "catalog.npy", (np.resize(embeddings, noise.shape) + 0.2 * noise).astype(np.float32))
    model.save(folder / "model")
    started = time.monotonic()
    _run(folder, folder / "index").wait()
    seconds = time.monotonic() - started
    return folder, seconds, _content(folder / "index", model)[1]


def _run(folder: Path, index: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _RUN, str(folder / "model"), str(index), str(folder / "catalog.npy"), str(BATCH)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdout.close()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_any_moment(
    seed: int, clean: tuple[Path, float, list[bytes]], model: CompresSAE, tmp_path: Path
) -> None:
    folder, seconds, expected = clean
    with _run(folder, tmp_path / "index") as process:
        time.sleep(random.Random(seed).uniform(0, 0.6 * seconds))
        process.kill()
    if not (tmp_path / "index").exists():
        EdgeIndex.create(tmp_path / "index", model).close()
    with EdgeIndex.open(tmp_path / "index", model) as index:
        ingest(open_source(folder / "catalog.npy"), model, index, batch_size=BATCH)
    scanned, content = _content(tmp_path / "index", model)
    assert sorted(map(int, scanned)) == list(range(ITEMS))
    assert content == expected
