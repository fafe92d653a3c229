"""Make the sample catalog that the package ships from the full catalog.

    python scripts/make_sample.py DIRECTORY

Reads debian_packages.parquet and debian_packages_384.npy in DIRECTORY; row i of both is item i. Writes 8,000 random
items, in their original order, to compressae_qdrant/datasets/debian_packages_8k.parquet. The same input gives the
same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ITEMS = 8_000
SEED = 20_260
TARGET = Path(__file__).parents[1] / "compressae_qdrant" / "datasets" / "debian_packages_8k.parquet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="directory of the full catalog's two files")
    source = parser.parse_args().source
    catalog = pq.read_table(source / "debian_packages.parquet", columns=["id", "title", "section", "tags"])
    embeddings = np.load(source / "debian_packages_384.npy", mmap_mode="r")
    picked = np.sort(np.random.default_rng(SEED).choice(len(catalog), ITEMS, replace=False))
    vectors = embeddings[picked].astype(np.float16)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    sample = catalog.take(pa.array(picked)).append_column("embedding", column)
    # Half floats barely compress and load faster uncompressed; texts compress well.
    pq.write_table(sample, TARGET, compression={"embedding.list.element": "none"} | dict.fromkeys(
        ["id", "title", "section", "tags.list.element"], "zstd"), use_dictionary=["section", "tags.list.element"],
        row_group_size=2_000)  # fmt: skip
    print(f"{TARGET}: {len(sample):,} items, {TARGET.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
