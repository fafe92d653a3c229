"""Compare ways to order the items of a concept by the purity of the first 20.

    python scripts/bench_concept_ordering.py                          # the shipped sample and a quickly trained model
    python scripts/bench_concept_ordering.py embeddings.npy --metadata items.parquet --model model

Each ordering ranks the items that use a latent. Purity and its three variants are those of `bench_concept_purity.py`.
An ordering is chosen on the latents of usage rank 201 to 1,200, and reported for the first 200 too. Controls rank all
items by the same score along random directions, and along random directions with the atoms' mean and covariance. An
ordering that makes the controls purer by as much as the concepts tells nothing about concepts.

Orderings: the cosine with the atom; the same after removing the catalog's mean and first principal components from
items and atoms (Mu & Viswanath, "All-but-the-top", arXiv 1702.01417); the same minus the item's closeness to atoms in
general (CSLS: Conneau et al., arXiv 1710.04087; the mean over all atoms; a z-score over all atoms); the same among the
items with the largest values; the cosine with the encoder's row; the same over all items.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from bench_concept_purity import Labels, Latents, Rows, like_the_atoms
from bench_data import load_catalog, load_labels, load_or_train

from compressae_qdrant.codes import FloatArray
from compressae_qdrant.vectors import unit_rows

Score = Callable[[Rows, FloatArray], FloatArray]
"""Scores the items of the given rows along a (d,) direction, for example a signed atom."""
CHOSEN_ON, SHOWN = slice(200, 1200), slice(0, 200)
CONTROLS = 400
COMPONENTS = 8
_RANKED = 4000
"""Items kept of a ranking; enough to contain 20 tagged ones."""
_NEAR = 10


def main() -> None:
    arguments = _arguments()
    name, vectors = load_catalog([] if arguments.embeddings is None else [arguments.embeddings])
    print(f"Catalog: {name}")
    embeddings = unit_rows(vectors)
    model = load_or_train(arguments.model, vectors)
    atoms, encoder = model.atoms.detach().numpy(), model.encoder_weight.detach().numpy()
    latents = Latents(model.encode(embeddings), embeddings, atoms)
    labels = Labels(load_labels(arguments.metadata))
    most = np.argsort(-latents.use, kind="stable")
    random = np.random.default_rng(0)
    like_atoms = like_the_atoms(atoms, random, CONTROLS)
    anywhere = unit_rows(random.normal(size=(CONTROLS, model.dim)).astype(np.float32))
    everything = np.arange(len(embeddings))

    def row(name: str, score: Score, directions: FloatArray, share: float = 1.0, users: bool = True) -> None:
        """Print the row of an ordering, over the `share` of the latent's items with the largest values."""

        def ranked(latent: int) -> Rows:
            rows, values = latents.users(latent)
            if share < 1:
                rows = rows[values >= np.quantile(values, 1 - share)]
            if not users:
                rows = everything
            return _order(rows, score(rows, latents.sign[latent] * directions[latent]))

        def along(vectors: FloatArray) -> list[Rows]:
            return [_order(everything, score(everything, vector)) for vector in vectors]

        groups = [[ranked(latent) for latent in most[part].tolist()] for part in (CHOSEN_ON, SHOWN)]
        found = [*groups, along(like_atoms), along(anywhere)]
        print(f"| {name} | {' | '.join(_readings(labels, rankings) for rankings in found)} |", flush=True)

    print(
        "\n| ordering | ranks 201 to 1,200: all, known, tagged | first 200 | atom-like directions | random directions |"
    )
    print("|---|---|---|---|---|")

    def plain(rows: Rows, vector: FloatArray) -> FloatArray:
        return embeddings[rows] @ vector

    row("cosine with the atom", plain, atoms)
    row("the same over all items", plain, atoms, users=False)
    for share in (0.75, 0.5, 0.25):
        row(f"the same over the {share:.0%} of largest value", plain, atoms, share=share)
    row("cosine with the encoder's row", plain, encoder)
    for removed in range(COMPONENTS + 1):
        without = _all_but_the_top(embeddings, removed)
        items = without(embeddings)
        row(
            f"cosine without the mean and {removed} components",
            lambda rows, vector, items=items, without=without: items[rows] @ without(vector[None])[0],  # type: ignore[misc]
            atoms,
        )
    near, mean, deviation = _nearness(embeddings, atoms)
    row("CSLS", lambda rows, vector: 2 * plain(rows, vector) - near[rows], atoms)
    row("cosine minus the item's mean over atoms", lambda rows, vector: plain(rows, vector) - mean[rows], atoms)
    row("z-score over atoms", lambda rows, vector: (plain(rows, vector) - mean[rows]) / deviation[rows], atoms)


def _order(rows: Rows, scores: FloatArray) -> Rows:
    return rows[np.argsort(-scores, kind="stable")[:_RANKED]]


def _readings(labels: Labels, rankings: Sequence[Rows]) -> str:
    return ", ".join(f"{share:.3f}" for share in labels.shares(rankings)[:3])


def _all_but_the_top(embeddings: FloatArray, removed: int) -> Callable[[FloatArray], FloatArray]:
    """Return a function that removes the catalog's mean and first components from rows and scales them to unit norm."""
    mean = embeddings.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((embeddings - mean).T))
    top = vectors[:, ::-1][:, :removed].astype(np.float32)

    def without(rows: FloatArray) -> FloatArray:
        centred = rows - mean
        return unit_rows(centred - centred @ top @ top.T)

    return without


def _nearness(embeddings: FloatArray, atoms: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return each item's mean cosine with its `_NEAR` nearest atoms, with all atoms, and the standard deviation."""
    found = []
    for start in range(0, len(embeddings), 4096):
        cosines = embeddings[start : start + 4096] @ atoms.T
        nearest = np.partition(cosines, -_NEAR, axis=1)[:, -_NEAR:]
        found.append((nearest.mean(axis=1), cosines.mean(axis=1), cosines.std(axis=1)))
    near, mean, deviation = map(np.concatenate, zip(*found, strict=True))
    return near, mean, deviation


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "embeddings", nargs="?", type=Path, help="(n, d) .npy of embeddings; default: the shipped sample"
    )
    parser.add_argument("--model", type=Path, help="directory of a trained model; default: train a quick one")
    parser.add_argument("--metadata", type=Path, help="parquet with section and tags, row by row as the embeddings")
    arguments = parser.parse_args()
    if arguments.embeddings is not None and arguments.metadata is None:
        parser.error("--metadata is needed with embeddings: it has the section and tags of each item")
    return arguments


if __name__ == "__main__":
    main()
