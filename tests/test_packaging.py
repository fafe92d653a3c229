"""The package without extras: every module can be imported, and the built wheel trains, loads and searches."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from email import message_from_bytes
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import compressae_qdrant

ROOT = Path(__file__).parents[1]

OPTIONAL = (
    "datasets",
    "duckdb",
    "faiss",
    "haystack",
    "jinja2",
    "langchain_core",
    "matplotlib",
    "mteb",
    "opentelemetry",
    "pandas",
    "polars",
    "ray",
    "sentence_transformers",
    "sklearn",
)
"""Top-level modules that only extras bring."""

IMPORT_ALL = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({OPTIONAL!r}))  # importing a module that is None fails
import compressae_qdrant
from compressae_qdrant.errors import MissingExtraError
for module in pkgutil.walk_packages(compressae_qdrant.__path__, "compressae_qdrant."):
    # Triton's kernels are imported only where Triton runs, and __main__ starts the command line.
    if ".triton_" not in module.name and not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except MissingExtraError as exc:
            assert "pip install 'compressae-qdrant[" in str(exc), exc
            print(module.name)
"""

FIRST_STEPS = """
import importlib.util, sys, tempfile
from pathlib import Path
import compressae_qdrant
from compressae_qdrant import CompresSAE, EdgeIndex, Retriever, TrainConfig, load_sample, train

assert "site-packages" in compressae_qdrant.__file__, compressae_qdrant.__file__
extras = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
assert set(extras) <= {"jinja2"}, extras  # torch brings Jinja2
catalog = load_sample()
model = train(catalog.embeddings[:500], TrainConfig(latents=256, k=16, steps=5, rounds=2, encoder_steps=1))
with tempfile.TemporaryDirectory() as folder:
    model.save(Path(folder) / "model")
    model = CompresSAE.load(Path(folder) / "model")
    with EdgeIndex.create(Path(folder) / "index", model) as index:
        index.upsert(catalog.ids[:500], model.encode(catalog.embeddings[:500]), catalog.payloads[:500])
        assert Retriever(model, index).search(catalog.embeddings[0], limit=3)[0].id == catalog.ids[0]
print(compressae_qdrant.__version__)
"""


def _run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def _link(requirements: Iterable[Requirement], site_packages: Path) -> None:
    """Link installed distributions, and what they require in turn, into another environment."""
    waiting, linked = list(requirements), set[tuple[str, ...]]()
    while waiting:
        required = waiting.pop()
        name = canonicalize_name(required.name)
        if (name, *sorted(required.extras)) in linked:
            continue
        linked.add((name, *sorted(required.extras)))
        try:
            found = distribution(name)
        except PackageNotFoundError:  # a requirement of another platform
            continue
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (site_packages / top).exists():
                (site_packages / top).symlink_to(Path(str(found.locate_file(top))))
        waiting += _applying(found.requires, required.extras)


def _applying(texts: Iterable[str] | None, extras: Iterable[str] = ()) -> list[Requirement]:
    """The requirements that apply on this platform, without extras and with those that are given."""
    return [
        required
        for required in map(Requirement, texts or ())
        if required.marker is None or any(required.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def test_every_module_can_be_imported_without_extras() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [  # only these modules are all about an extra
        "compressae_qdrant.evaluation.plots",
        "compressae_qdrant.integrations.haystack",
        "compressae_qdrant.integrations.haystack_filters",
        "compressae_qdrant.integrations.langchain",
        "compressae_qdrant.integrations.mteb",
        "compressae_qdrant.integrations.sentence_transformers",
        "compressae_qdrant.integrations.sklearn",
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_works_in_a_clean_environment(tmp_path: Path) -> None:
    """Build the source distribution, the wheel from it, and install the wheel without extras.

    What the wheel requires is linked from this environment, and pip checks that it is all there. Nothing is downloaded.
    """
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (sdist,), (wheel,) = (tmp_path / "dist").glob("*.tar.gz"), (tmp_path / "dist").glob("*.whl")
    assert wheel.name.startswith(f"compressae_qdrant-{compressae_qdrant.__version__}-")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "CHANGELOG.md", "docs/index.md", "examples/load_and_search.py", "tests/conftest.py"} <= names

    _run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    with zipfile.ZipFile(wheel) as built:
        (metadata,) = (name for name in built.namelist() if name.endswith(".dist-info/METADATA"))
        described = message_from_bytes(built.read(metadata))
    site_packages = tmp_path / "venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    _link(_applying(described.get_all("Requires-Dist")), site_packages)
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", wheel, cwd=tmp_path)
    assert _run(python, "-c", FIRST_STEPS, *OPTIONAL, cwd=tmp_path).strip() == compressae_qdrant.__version__
    assert "Usage: compressae" in _run(tmp_path / "venv" / "bin" / "compressae", "--help", cwd=tmp_path)
