"""Measure how much two ingestions on one machine slow each other down.

    python scripts/bench_loaders.py                                  # the shipped sample and a quickly trained model
    python scripts/bench_loaders.py text.npy --model model --items 20000 [--ray]

Runs `compressae ingest` into an embedded index: one process alone, then two at once. Prints the items per second of
each process, and the sum of two relative to one alone. With --ray, each process is a Ray job that believes it has all
cores (`scripts/ingest_catalog.py --ray`); Ray's own start, of several seconds, counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from bench_data import catalog_arguments, load_catalog, load_or_train

FILES = 8


def load(catalog: Path, model: Path, index: Path) -> subprocess.Popen[bytes]:
    """Start an ingestion: of a file, or by Ray of a folder."""
    where = [str(catalog), "--model", str(model), "--index", str(index)]
    if catalog.is_dir():
        script = str(Path(__file__).with_name("ingest_catalog.py"))
        command = [sys.executable, script, "--ray", *where, "--cpus", str(os.cpu_count()), "--object-store-mb", "512"]
    else:
        command = [sys.executable, "-m", "compressae_qdrant", "ingest", *where]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def rates(processes: int, catalog: Path, model: Path, items: int, folder: Path) -> list[float]:
    """Items per second of each of some ingestions that start together."""
    started = time.perf_counter()
    running = [load(catalog, model, folder / f"{processes}-{number}") for number in range(processes)]
    seconds: dict[int, float] = {}
    while len(seconds) < len(running):
        for number, process in enumerate(running):
            if number not in seconds and process.poll() is not None:
                seconds[number] = time.perf_counter() - started
                if process.returncode:
                    assert process.stderr is not None
                    raise SystemExit(process.stderr.read().decode())
        time.sleep(0.02)
    return [items / seconds[number] for number in range(processes)]


def save_files(folder: Path, rows: npt.NDArray[Any]) -> Path:
    """Write the rows as parquet files, which Ray's tasks read in parallel; returns the folder."""
    folder.mkdir()
    for number, ids in enumerate(np.array_split(np.arange(len(rows)), FILES)):
        embeddings = pa.FixedSizeListArray.from_arrays(rows[ids].astype(np.float32).ravel(), rows.shape[1])
        pq.write_table(pa.table({"id": ids, "embedding": embeddings}), folder / f"part-{number}.parquet")
    return folder


def main() -> None:
    parser = catalog_arguments(__doc__)
    parser.add_argument("--items", type=int, default=20_000, help="items of an ingestion (default: 20000)")
    parser.add_argument("--ray", action="store_true", help="load by Ray jobs")
    args = parser.parse_args()
    name, vectors = load_catalog(args.vectors)
    print(f"Catalog: {name}; {os.cpu_count()} cores")
    model = load_or_train(args.model, vectors)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = np.resize(np.asarray(vectors), (args.items, vectors.shape[1]))
        catalog = save_files(folder / "catalog", rows) if args.ray else folder / "catalog.npy"
        if not args.ray:
            np.save(catalog, rows)
        model.save(folder / "model")
        (alone,) = rates(1, catalog, folder / "model", args.items, folder)
        two = rates(2, catalog, folder / "model", args.items, folder)
        print("\n| alone, items/s | two at once, items/s | two : one |\n|---|---|---|")
        print(f"| {alone:,.0f} | {' + '.join(f'{rate:,.0f}' for rate in two)} | {sum(two) / alone:.2f} |")


if __name__ == "__main__":
    main()
