"""Train on the shipped catalog, encode and load it, search, and compare with exact dense search."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compressae_qdrant import EdgeIndex, Retriever, TrainConfig, ingest, load_sample, open_source, train
from compressae_qdrant.cli.output import progress_bar
from compressae_qdrant.codes import BYTES_PER_NONZERO
from compressae_qdrant.datasets import sample_path
from compressae_qdrant.evaluation import evaluate_search
from compressae_qdrant.vectors import exact_neighbours

QUERIES = 500
FULL_CATALOG_BYTES = 100
EXAMPLES = ("vlc", "gimp", "python3-numpy", "0ad", "emacs-nox", "nmap")

console = Console(highlight=False)


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
        assert info.total_bytes is not None
        sizes = Table("bytes per item", "", "ratio", box=None, padding=(0, 2))
        dense = 4 * dim
        for name, size in (
            ("dense float32", dense),
            (f"codes, by the paper's count ({BYTES_PER_NONZERO} per non-zero)", BYTES_PER_NONZERO * model.k),
            ("index in memory, measured", info.index_bytes / items),
            ("everything on disk with payloads, measured", info.total_bytes / items),
        ):
            sizes.add_row(name, f"{size:,.1f}", f"{dense / size:.1f}x")
        console.print(sizes)
        if info.index_bytes / items > 2 * FULL_CATALOG_BYTES:
            console.print(
                f"   This catalog is small: a latent has about {items * model.k // model.latents} items, and "
                "the engine compresses blocks of 128.\n   The full catalog of 63,666 packages takes "
                f"{FULL_CATALOG_BYTES} bytes per item (BENCHMARKS.md)."
            )

        console.print(f"[bold]4. Searching[/] for {QUERIES} items, against exact dense search")
        retriever = Retriever(model, index)
        own_rows = np.random.default_rng(1).choice(items, QUERIES, replace=False)
        truth = exact_neighbours(catalog.embeddings[own_rows], catalog.embeddings, 100, own_rows)
        result = evaluate_search(
            lambda vector, limit: [hit.id for hit in retriever.search(vector, limit, with_payload=False)],
            catalog.embeddings[own_rows],
            [[catalog.ids[row] for row in rows] for rows in truth.tolist()],
            own=[catalog.ids[row] for row in own_rows],
        )
        for depth, mean in result.recall.items():
            low, high = result.interval[depth]
            console.print(f"   recall@{depth:<3} {mean:.3f} (95% interval {low:.3f} to {high:.3f})")
        console.print(f"   latency p50 {result.p50_ms:.1f} ms, p95 {result.p95_ms:.1f} ms for {depth} hits")

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
