"""The package without extras: every module can be imported, and the built wheel trains, loads and searches."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import compressae_qdrant

ROOT = Path(__file__).parents[1]

OPTIONAL = ("faiss", "jinja2", "matplotlib", "opentelemetry", "ray", "sentence_transformers", "sklearn")
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


def test_every_module_can_be_imported_without_extras() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["compressae_qdrant.evaluation.plots"]  # only this module is all about an extra


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_works_in_a_clean_environment(tmp_path: Path) -> None:
    """Build the source distribution, the wheel from it, and install the wheel without extras."""
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (sdist,), (wheel,) = (tmp_path / "dist").glob("*.tar.gz"), (tmp_path / "dist").glob("*.whl")
    assert wheel.name.startswith(f"compressae_qdrant-{compressae_qdrant.__version__}-")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "CHANGELOG.md", "docs/index.md", "examples/load_and_search.py", "tests/conftest.py"} <= names

    _run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    constraints = ROOT / "constraints.txt"
    (torch,) = [line for line in constraints.read_text().splitlines() if line.startswith("torch==")]
    downloaded = subprocess.run([*pip, torch], capture_output=True, text=True, check=False)
    if downloaded.returncode and not os.environ.get("CI"):
        pytest.skip(f"no package index to install torch from: {downloaded.stderr.strip().splitlines()[-1]}")
    assert downloaded.returncode == 0, downloaded.stderr
    _run(*pip, "--constraint", constraints, wheel, cwd=tmp_path)
    assert _run(python, "-c", FIRST_STEPS, *OPTIONAL, cwd=tmp_path).strip() == compressae_qdrant.__version__
    assert "Commands" in _run(tmp_path / "venv" / "bin" / "compressae", "--help", cwd=tmp_path)
