"""Load a catalog into an index: `compressae ingest` as a script, or a Ray Data job with --ray.

    python scripts/ingest_catalog.py catalog.parquet --model model --index index
    python scripts/ingest_catalog.py --ray folder/ --model model --index http://host:6333/items --journal ray.journal

With --ray, a Ray Data job encodes and loads the files of a folder (or several paths), on this machine or on the cluster
at RAY_ADDRESS. A server's API key is read from QDRANT_API_KEY on each machine of the cluster.
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
    parser.add_argument("--ray", action="store_true", required=True, help="run as a Ray Data job")
    parser.add_argument("sources", nargs="+", type=Path, help="catalog files, or folders of .parquet files")
    parser.add_argument("--model", "-m", required=True, type=Path, help="directory of the model")
    parser.add_argument(
        "--index", "-i", required=True, help="a directory, or http(s):// or grpc(s)://host:port/collection"
    )
    parser.add_argument(
        "--journal", type=Path, help="file that records the finished files, to resume an interrupted job"
    )
    parser.add_argument("--id", default="id", help="column of ids (default: id)")
    parser.add_argument("--embedding", default="embedding", help="column of embeddings (default: embedding)")
    parser.add_argument("--method", default="pursuit", choices=["pursuit", "refit", "encoder"],
                        help="encoding method (default: pursuit)")  # fmt: skip
    parser.add_argument("--atoms-per-step", type=int, default=4,
                        help="atoms that pursuit selects in each step (default: 4)")  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=2048, help="items per batch (default: 2048)")
    parser.add_argument(
        "--encoders", type=int, help="number of encoding actors (default: one for each GPU, or core without GPUs)"
    )
    parser.add_argument("--skip-bad-rows", action="store_true", help="skip unusable rows instead of stopping")
    parser.add_argument(
        "--cpus", type=int, help="start a local Ray with this many cores, instead of joining RAY_ADDRESS"
    )
    parser.add_argument(
        "--object-store-mb", type=int, help="memory of the local Ray's object store in MiB; only with --cpus"
    )
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
