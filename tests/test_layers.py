"""Imports go down only. A new module has to be given its place here."""

from __future__ import annotations

import ast
from pathlib import Path

import compressae_qdrant

ROOT = Path(compressae_qdrant.__file__).parent

LAYERS = [
    ["errors", "files", "telemetry"],
    ["codes", "default_plan", "retrying", "abtest.assignment", "concepts.concept", "concepts.naming"],
    ["abtest.statistics"],
    ["abtest.events"],
    ["abtest"],
    ["query_vector", "history", "embedders", "concepts.strongest", "baseline",
     "calibration"],
    ["kernels.reference", "kernels.twins", "kernels.triton_select", "kernels.triton_update"],
    ["kernels.triton_objective", "kernels.triton_pursuit", "kernels.dispatch"],
    ["kernels", "explanation", "concepts.steering"],
    ["fused_pursuit", "embeddings", "streaming"],
    ["similarity", "pursuit", "index.base", "training.checkpoint", "training.config",
     "training.progress"],
    ["training.ranks", "coding"],
    ["training.dictionary"],
    ["model", "index.ids", "index.manifest", "index.calls"],
    ["capacity.constants"],
    ["capacity.planner"],
    ["capacity", "capacity.chart", "capacity.fitting"],
    ["model_files", "training.autoencoder", "training.data", "evaluation.measures", "evaluation.neighbours",
     "query_planning", "datasets", "index.points", "index.filters", "index.qdrant_errors", "index.shard_files",
     "sources.base"],
    ["evaluation.searching", "evaluation.bench", "training.feed"],
    ["evaluation"],
    ["monitoring.measures", "monitoring.observing"],
    ["monitoring.making"],
    ["monitoring.checking"],
    ["monitoring.history"],
    ["monitoring"],
    ["training.run", "concepts.finding", "index.edge_requests", "index.wire", "sources.files", "sources.qdrant"],
    ["index.requests", "index.collection_requests"],
    ["index.steps"],
    ["training.refinement"],
    ["training.fused_step"],
    ["training.steps"],
    ["training.loop", "concepts", "index.edge", "index.qdrant", "sources"],
    ["training", "index.location", "index.blocking"],
    ["settings_file"],
    ["training.__main__"],
    ["index"],
    ["retriever", "writing"],
    ["ingest", "syncing", "evaluation.contenders"],
    ["async_ingest", "migrating", "ray_ingest"],
    ["evaluation.rivals", "evaluation.running"],
    ["evaluation.plotting"],
    ["evaluation.report"],
    ["tuning.points"],
    ["tuning.measuring", "tuning.chart"],
    ["tuning.study"],
    ["tuning"],
    ["deployment", "following", "calibrating", "report.sampling", "report.page"],
    ["report.measuring"],
    ["report.parts", "report.front"],
    ["report.building"],
    ["report"],
    [""],
    ["cli.options", "cli.output"],
    ["cli.hits"],
    ["cli.commands"],
    ["cli.operations"],
    ["cli.ab", "cli.evaluate", "cli.concepts", "cli.monitor", "cli.capacity", "cli.report", "cli.tune",
     "cli.calibrate"],
    ["cli.program"],
    ["cli"],
]  # fmt: skip

LAZY = {("model", "model_files")}
"""`CompresSAE.save` and `load` are where users look for them, and the files' format has a module of its own."""


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> set[str]:
    """Modules of this package that a file imports, wherever in it."""
    package = list(path.relative_to(ROOT).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            for alias in node.names:
                target = ".".join([*base, *([node.module] if node.module else [])])
                deeper = f"{target}.{alias.name}".lstrip(".")
                found.add(deeper if deeper in MODULES else target)
        assert not (isinstance(node, ast.ImportFrom) and not node.level and node.module == "compressae_qdrant"), path
    return found


MODULES = {_name(path): path for path in ROOT.rglob("*.py")}


def test_every_module_has_its_place() -> None:
    assert sorted(MODULES) == sorted(name for layer in LAYERS for name in layer)


def test_imports_go_down() -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    upward = [
        f"{name} imports {target}"
        for name, path in MODULES.items()
        for target in _imports(path)
        if level[target] >= level[name] and (name, target) not in LAZY
    ]
    assert upward == []


def test_files_stay_small() -> None:
    assert {name: n for name, path in MODULES.items() if (n := len(path.read_text().splitlines())) > 400} == {}
