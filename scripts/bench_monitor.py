"""Measure the false alarms and the sensitivity of drift monitoring on a catalog with two sections left out.

    python scripts/bench_monitor.py                                 # the shipped sample
    python scripts/bench_monitor.py embeddings.npy --metadata items.parquet --without haskell,games

A model is trained on all items except those of the two sections and a random reserve. Then batches of items arrive, 20
seeds of each kind: from the reserve only (every alarm is false), and with a growing share of items of one section.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from bench_data import load_catalog, load_labels

from compressae_qdrant import CompresSAE, TrainConfig, train
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.monitoring import (
    append_report,
    check,
    make_baseline,
    observe,
    plot_history,
    read_history,
)
from compressae_qdrant.monitoring.checks import Report

RESERVE = 8000
SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
Rows = npt.NDArray[np.int64]


def main() -> None:
    """Train or load the model, and print a table for each kind of batches."""
    options = _options()
    torch.set_num_threads(options.threads)
    name, vectors = load_catalog(options.vectors)
    print(f"Catalog: {name}")
    embeddings = np.asarray(vectors, np.float32)
    sections = np.array(load_labels(options.metadata)["section"])
    without = options.without.split(",")
    inside = np.flatnonzero(~np.isin(sections, without))
    reserve = np.sort(np.random.default_rng(0).permutation(inside)[: min(RESERVE, len(inside) // 4)])
    model = _model(options, embeddings[np.setdiff1d(inside, reserve)])
    print(
        f"{len(inside) - len(reserve):,} items for training, without {options.without}; "
        f"h={model.latents}, k={model.k}; batches of {options.batch:,} items, {options.seeds} seeds\n"
    )
    trained_on = observe(model, embeddings[_draw(0, np.setdiff1d(inside, reserve), options.batch)])
    rows = np.concatenate([reserve, np.flatnonzero(np.isin(sections, without))])
    seen = observe(model, embeddings[rows], sections[rows].tolist())
    assert seen.losses is not None
    assert trained_on.losses is not None
    means = trained_on.losses.mean(), seen.losses[: len(reserve)].mean()
    print(f"mean loss: {means[0]:.4f} of training items, {means[1]:.4f} of other items")
    known, other = np.arange(0, len(reserve), 2), np.arange(1, len(reserve), 2)
    labelled = make_baseline(
        model, embeddings[rows[other]], source="others", segments=sections[rows[other]].tolist(), field="section"
    )

    def watch(picked: Rows, seed: int, by_section: bool = False) -> Report:
        """Check a batch against the training's baseline, or each section against a baseline of known sections."""
        assert model.baseline is not None
        part = seen[picked]
        if by_section:
            return check(model, part, labelled, seed=seed)
        return check(model, dataclasses.replace(part, segments=None), model.baseline, seed=seed)

    print("\n| batch | items | alarms | by measure | with --segment |\n|---|---|---|---|---|")
    for size in sorted({200, options.batch, min(4 * options.batch, len(known))}):
        batches = [_draw(seed, known, size) for seed in range(options.seeds)]
        reports = [watch(batch, seed) for seed, batch in enumerate(batches)]
        by_section = [watch(batch, seed, True).drifted for seed, batch in enumerate(batches[: options.section_seeds])]
        print(
            f"{_row('random items of known sections', size, reports)} {sum(by_section)} of {len(by_section)} |",
            flush=True,
        )
    for section in without:
        new = np.flatnonzero(sections[rows] == section)
        print(f"\n{section}: {len(new):,} items\n\n| share | items | alarms | by measure | with --segment |")
        print("|---|---|---|---|---|")
        for share in SHARES:
            count = round(share * options.batch)
            if count > len(new):
                break
            batches = [
                np.concatenate([_draw(seed, new, count), _draw(seed, known, options.batch - count)])
                for seed in range(options.seeds)
            ]
            reports = [watch(batch, seed) for seed, batch in enumerate(batches)]
            by_section = [
                any(reason.startswith(f"{section}: ") for reason in watch(batch, seed, True).reasons)
                for seed, batch in enumerate(batches[: options.section_seeds])
            ]
            print(
                f"{_row(f'{share:.0%}', options.batch, reports)} {sum(by_section)} of {len(by_section)} |", flush=True
            )
    if options.plot is not None:
        history = options.plot.with_suffix(".jsonl")
        history.unlink(missing_ok=True)
        first = datetime(2026, 1, 1, tzinfo=UTC)
        for day, picked in enumerate(_arrival(sections[rows], known, without, options.batch)):
            append_report(
                history,
                watch(picked, day),
                model=model.fingerprint,
                source="catalog",
                time=first + timedelta(days=day),
            )
        plot_history(read_history(history)[0], options.plot)
        history.unlink()


def _arrival(sections: npt.NDArray[np.str_], known: Rows, without: list[str], size: int) -> Iterator[Rows]:
    """Yield the batches of thirty days: the first section arrives on days 10 to 14, the second on days 20 to 24."""
    for day in range(30):
        section = None if day % 10 > 4 or day < 10 else without[day // 10 - 1]
        new = np.flatnonzero(sections == section)
        count = 0 if section is None else min(size // 2, len(new))
        yield np.concatenate([_draw(day, new, count), _draw(1000 + day, known, size - count)])


def _draw(seed: int, rows: Rows, size: int) -> Rows:
    return np.random.default_rng(seed).permutation(rows)[:size]


def _row(name: str, size: int, reports: list[Report]) -> str:
    alarms = sum(any(found.drifted for found in report.checks.values()) for report in reports)
    measures = {name: sum(report.checks[name].drifted for report in reports) for name in reports[0].checks}
    by = ", ".join(f"{name} {count}" for name, count in measures.items() if count)
    return f"| {name} | {size:,} | {alarms} of {len(reports)} | {by or 'none'} |"


def _model(options: argparse.Namespace, embeddings: FloatArray) -> CompresSAE:
    if options.model is not None and (options.model / "config.json").exists():
        return CompresSAE.load(options.model)
    config = TrainConfig(
        latents=options.latents, k=options.k, steps=options.steps, rounds=options.rounds, encoder_steps=1
    )
    model = train(embeddings, config, progress=True)
    if options.model is not None:
        model.save(options.model)
    return model


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", nargs="*", help="(n, d) .npy of embeddings; default: the shipped sample")
    parser.add_argument("--metadata", type=Path, help="parquet with section and tags, row by row as the embeddings")
    parser.add_argument(
        "--without", default="haskell,games", help="two sections to leave out of the training (default: haskell,games)"
    )
    parser.add_argument("--model", type=Path, help="directory to load the model from, or to save it in")
    parser.add_argument("--latents", type=int, default=4096, help="number of latents (default: 4096)")
    parser.add_argument("--k", type=int, default=32, help="non-zeros of a code (default: 32)")
    parser.add_argument("--steps", type=int, default=TrainConfig.steps, help="training steps")
    parser.add_argument("--rounds", type=int, default=TrainConfig.rounds, help="rounds of refinement")
    parser.add_argument("--batch", type=int, default=1000, help="items per batch (default: 1000)")
    parser.add_argument("--seeds", type=int, default=20, help="batches of each kind (default: 20)")
    parser.add_argument(
        "--section-seeds",
        type=int,
        default=5,
        help="of them, batches that are also checked section by section, which is slow (default: 5)",
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument(
        "--plot", type=Path, help="PNG to plot: thirty days in which the sections arrive one after the other"
    )
    options = parser.parse_args()
    if options.vectors and options.metadata is None:
        parser.error("--metadata is needed with embeddings: it has the section of each item")
    return options


if __name__ == "__main__":
    main()
