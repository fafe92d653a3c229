from __future__ import annotations

import subprocess
import sys

import pytest

import compressae_qdrant
import compressae_qdrant.model
import compressae_qdrant.search
from compressae_qdrant import errors


def test_public_names() -> None:
    assert sorted(set(compressae_qdrant.__all__) - set(errors.__all__)) == [
        "AliasRetriever", "AsyncQdrantIndex", "AsyncRetriever", "CompresSAE", "EdgeIndex", "Hit", "IndexSettings",
        "QdrantIndex", "QueryPlan", "Retriever", "RetryPolicy", "SparseCodes", "TrainConfig", "__version__", "ingest",
        "load_embedder", "load_sample", "open_source", "sync", "train",
    ]  # fmt: skip
    assert set(errors.__all__) <= set(compressae_qdrant.__all__)
    for name in compressae_qdrant.__all__:
        assert getattr(compressae_qdrant, name).__doc__, name


def test_importing_the_package_loads_no_large_dependency() -> None:
    code = (
        "import sys, compressae_qdrant; "
        "print([m for m in ('torch', 'qdrant_client', 'numpy', 'matplotlib', 'typer') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("module", ["index", "search", "search.settings", "model.config"])
def test_modules_that_load_no_torch(module: str) -> None:
    code = f"import sys, compressae_qdrant.{module}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_lazy_packages_list_their_names_and_refuse_others() -> None:
    for package in (compressae_qdrant, compressae_qdrant.model, compressae_qdrant.search):
        assert set(package.__all__) <= set(dir(package))
        for name in package.__all__:
            assert getattr(package, name) is not None
        with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
            package.nothing  # noqa: B018 (the access is the test)


def test_the_error_classes_match_the_tree_in_the_docstring() -> None:
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
