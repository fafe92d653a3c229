"""Train on the shipped catalog, encode and load it, search, and compare with exact dense search."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compressae_qdrant import EdgeIndex, Retriever, TrainConfig, ingest, load_sample, open_source, train
from compressae_qdrant.cli.output import progress_bar
from compressae_qdrant.codes import BYTES_PER_NONZERO, FloatArray
from compressae_qdrant.datasets import sample_path
from compressae_qdrant.evaluation import evaluate_search
from compressae_qdrant.search.settings import FirstStage
from compressae_qdrant.vectors import exact_neighbours

QUERIES = 500
STAGES: dict[str, FirstStage] = {"the codes' inverted index": "codes", "the graph": "graph", "both": "both"}
EXAMPLES = ("vlc", "gimp", "python3-numpy", "0ad", "emacs-nox", "nmap")

console = Console(highlight=False)


def search(retriever: Retriever, stage: FirstStage, vector: FloatArray, limit: int) -> list[int | str]:
    """Return the ids of the hits of one first stage."""
    return [hit.id for hit in retriever.search(vector, limit, first_stage=stage, with_payload=False)]


def main() -> None:
    catalog = load_sample()
    items, dim = catalog.embeddings.shape
    console.print(f"[bold]1. The catalog[/]: {items:,} Debian packages, embeddings of {dim} floats")

    console.print("[bold]2. Training[/] (three phases)")
    model = train(
        catalog.embeddings, TrainConfig(steps=400, rounds=8, round_items=8192, encoder_steps=100), progress=True
    )
    assert model.history is not None
    for note in model.history.notes:
        console.print(f"   {note}", markup=False)

    with tempfile.TemporaryDirectory() as folder, EdgeIndex.create(Path(folder) / "index", model) as index:
        console.print("[bold]3. Encoding and loading[/] into the embedded engine")
        source = open_source(sample_path())
        with progress_bar("ingest", items, quiet=False) as bar:
            report = ingest(source, model, index, batch_size=512, on_batch=bar)
        console.print(f"   {report.items:,} items in {report.seconds:.1f} s")
        info = index.info()
        assert info.index_bytes is not None
        assert info.navigation_bytes is not None
        assert info.total_bytes is not None
        sizes = Table("bytes per item, measured", "", "ratio", box=None, padding=(0, 2))
        dense = 4 * dim
        for name, size in (
            ("dense float32", dense),
            (f"codes, by the paper's count ({BYTES_PER_NONZERO} per non-zero)", BYTES_PER_NONZERO * model.k),
            ("graph and navigation vectors, kept in memory", info.navigation_bytes / items),
            ("inverted index, kept on disk", info.index_bytes / items),
            ("everything on disk with payloads", info.total_bytes / items),
        ):
            sizes.add_row(name, f"{size:,.1f}", f"{dense / size:.1f}x")
        console.print(sizes)
        console.print(f"[bold]4. Searching[/] for {QUERIES} items, against exact dense search")
        retriever = Retriever(model, index)
        own_rows = np.random.default_rng(1).choice(items, QUERIES, replace=False)
        truth = exact_neighbours(catalog.embeddings[own_rows], catalog.embeddings, 100, own_rows)
        table = Table("candidates by", "recall@10", "recall@100", "p50 for 100 hits", box=None, padding=(0, 2))
        for name, stage in STAGES.items():
            result = evaluate_search(
                partial(search, retriever, stage),
                catalog.embeddings[own_rows],
                [[catalog.ids[row] for row in rows] for rows in truth.tolist()],
                own=[catalog.ids[row] for row in own_rows],
            )
            figures = [f"{result.recall[depth]:.3f}" for depth in (10, 100)]
            table.add_row(name, *figures, f"{result.p50_ms:.1f} ms")
        console.print(table)
        console.print("   The codes' index is walked for the whole catalog, the graph is not (docs/how-to/search.md).")

        console.print("[bold]5. Three items and their nearest neighbours[/]")
        names = [name for name in EXAMPLES if name in catalog.ids] + catalog.ids
        for name in names[:3]:
            row = catalog.ids.index(name)
            console.print(Text(f"   {name}: {catalog.payloads[row]['title']}", style="bold"))
            started = time.perf_counter()
            hits = [hit for hit in retriever.search(catalog.embeddings[row], 5) if hit.id != name][:4]
            took = (time.perf_counter() - started) * 1e3
            for hit in hits:
                line = Text(f"      {hit.score:.3f}  {hit.id}: {hit.payload['title']}")
                console.print(line, no_wrap=True, overflow="ellipsis")
            console.print(f"      ({took:.1f} ms)", style="dim")


if __name__ == "__main__":
    main()
