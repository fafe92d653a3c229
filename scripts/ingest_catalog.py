"""Load a catalog into an index: the command `compressae ingest`, for those who start from a script.

python scripts/ingest_catalog.py catalog.parquet --model model --index index
"""

from __future__ import annotations

import sys

from compressae_qdrant.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "ingest")
    main()
