"""Load a catalog into an index: the command `compressae ingest`, for those who start from a script.

    python scripts/ingest_catalog.py catalog.parquet --model model --index index
    python scripts/ingest_catalog.py --ray folder/ --model model --index http://host:6333/items --journal ray.journal

With --ray, the files of a folder (or several paths) are encoded and loaded as a Ray Data job: on this machine, or on
the cluster that RAY_ADDRESS names. The key of a server comes from QDRANT_API_KEY, on each machine of the cluster.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import NoReturn

from compressae_qdrant import CompresSAE, IndexSettings
from compressae_qdrant.cli import main
from compressae_qdrant.errors import CompresSAEError, IndexNotFoundError
from compressae_qdrant.index import create_index, open_index
from compressae_qdrant.ingestion.ray import ingest_with_ray
from compressae_qdrant.sources import Columns


def main_ray() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ray", action="store_true", required=True)
    parser.add_argument("sources", nargs="+", type=Path, help="files, or folders of .parquet files")
    parser.add_argument("--model", "-m", required=True, type=Path)
    parser.add_argument("--index", "-i", required=True, help="a directory, or http(s):// or grpc(s)://host:port/name")
    parser.add_argument("--journal", type=Path, help="notes which files are done, so that a later run goes on")
    parser.add_argument("--id", default="id")
    parser.add_argument("--embedding", default="embedding")
    parser.add_argument("--method", default="pursuit", choices=["pursuit", "refit", "encoder"])
    parser.add_argument("--atoms-per-step", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--encoders", type=int, help="actors that encode; one a GPU, or a core, if left out")
    parser.add_argument("--skip-bad-rows", action="store_true")
    parser.add_argument("--cpus", type=int, help="start Ray here with so many cores, instead of joining RAY_ADDRESS")
    parser.add_argument("--object-store-mb", type=int, help="memory of Ray's object store, with --cpus")
    args = parser.parse_args()

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        _stop("--ray needs the extra 'ray'; pip install 'compressae-qdrant[ray]'")

    memory = None if args.object_store_mb is None else args.object_store_mb << 20
    local = {} if args.cpus is None else {"num_cpus": args.cpus, "object_store_memory": memory, "address": "local"}
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", **local)
    ray.data.DataContext.get_current().enable_progress_bars = False
    files = [file for path in args.sources for file in (sorted(path.glob("*.parquet")) if path.is_dir() else [path])]
    try:
        try:
            open_index(args.index).close()
        except IndexNotFoundError:
            create_index(args.index, CompresSAE.load(args.model), IndexSettings()).close()
        report = ingest_with_ray(
            files, args.model.resolve(), args.index, columns=Columns(id=args.id, embedding=args.embedding),
            method=args.method, atoms_per_step=args.atoms_per_step, batch_size=args.batch_size,
            encoders=args.encoders, on_error="skip" if args.skip_bad_rows else "raise", journal=args.journal,
        )  # fmt: skip
    except CompresSAEError as exc:
        _stop(str(exc))
    finally:
        ray.shutdown()
    print(json.dumps(dataclasses.asdict(report), indent=2))


def _stop(complaint: str) -> NoReturn:
    print(f"error: {complaint}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    if "--ray" in sys.argv:
        main_ray()
    else:
        sys.argv.insert(1, "ingest")
        main()
