from __future__ import annotations

import subprocess
import sys

import compressae_qdrant
from compressae_qdrant import errors


def test_the_public_names() -> None:
    assert sorted(set(compressae_qdrant.__all__) - set(errors.__all__)) == [
        "AliasRetriever", "AsyncQdrantIndex", "AsyncRetriever", "CompresSAE", "EdgeIndex", "Hit", "IndexSettings",
        "QdrantIndex", "QueryPlan", "Retriever", "RetryPolicy", "SparseCodes", "TrainConfig", "__version__", "ingest",
        "load_embedder", "load_sample", "open_source", "sync", "train",
    ]  # fmt: skip
    assert set(errors.__all__) <= set(compressae_qdrant.__all__)
    for name in compressae_qdrant.__all__:
        assert getattr(compressae_qdrant, name).__doc__, name


def test_importing_brings_nothing_that_only_some_need() -> None:
    code = (
        "import sys, compressae_qdrant; "
        "print([m for m in ('torch', 'qdrant_client', 'numpy', 'matplotlib', 'typer') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_tree_of_errors_is_as_drawn() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        names = [word for word in line.replace("(", " ").split() if word.endswith("Error")]
        if "── " not in line and line.strip() != "CompresSAEError":
            continue
        depth = (line.index("── ") - 5) // 4 + 1 if "── " in line else 0
        path = [*path[:depth], names[0]]
        if depth:
            drawn[names[0]] = path[depth - 1]
    real = {
        name: next(base.__name__ for base in getattr(errors, name).__bases__ if base.__name__ in errors.__all__)
        for name in errors.__all__
        if name != "CompresSAEError"
    }
    assert drawn == real
