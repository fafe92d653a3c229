"""In which order should the items of a concept come? Orders that were tried, against the one that is kept.

    python scripts/concept_orders.py ../shared/data/debian_packages_384.npy --model model

Each order ranks the users of a latent; a latent is pure as in `concept_purity.py`, and the three figures are its three
readings. An order is chosen on the latents of use rank 201 to 1,200 and shown for the first 200. Controls go through
the same order as the atoms do: directions that have the atoms' mean and covariance, and random ones, over all items.
An order that lifts them as much as the concepts says nothing about concepts.

Orders: the cosine with the atom; with the catalog's mean and its first principal components taken off items and atoms
(Mu & Viswanath, "All-but-the-top", arXiv 1702.01417); less the nearness of an item to atoms in general (CSLS: Conneau
et al., arXiv 1710.04087; the mean over all atoms; a z-score over all atoms); among the users with the larger values;
with the encoder's row; over all items instead of the users.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from concept_purity import Labels, Latents, Rows, like_the_atoms

from compressae_qdrant import CompresSAE
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.vectors import unit_rows

Score = Callable[[Rows, FloatArray], FloatArray]
"""Of the items of these rows along a direction, which is an atom with its sign."""
CHOSEN_ON, SHOWN = slice(200, 1200), slice(0, 200)
CONTROLS = 400
COMPONENTS = 8
_RANKED = 4000
"""Of all items: more than enough for 20 tagged ones."""
_NEAR = 10


def main() -> None:
    arguments = _arguments()
    table = arguments.table or Path(str(arguments.embeddings).replace("_384.npy", ".parquet"))
    embeddings = unit_rows(np.load(arguments.embeddings))
    model = CompresSAE.load(arguments.model)
    atoms, encoder = model.atoms.detach().numpy(), model.encoder_weight.detach().numpy()
    latents = Latents(model.encode(embeddings), embeddings, atoms)
    labels = Labels(table)
    most = np.argsort(-latents.use, kind="stable")
    random = np.random.default_rng(0)
    like_atoms = like_the_atoms(atoms, random, CONTROLS)
    anywhere = unit_rows(random.normal(size=(CONTROLS, model.dim)).astype(np.float32))
    everything = np.arange(len(embeddings))

    def row(name: str, score: Score, directions: FloatArray, share: float = 1.0, users: bool = True) -> None:
        """`share` of the users, those with the largest values."""

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

    print("| order | ranks 201 to 1,200: all, known, tagged | first 200 | directions like the atoms | any directions |")
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
            f"item and atom less the mean and {removed} components",
            lambda rows, vector, items=items, without=without: items[rows] @ without(vector[None])[0],  # type: ignore[misc]
            atoms,
        )
    near, mean, deviation = _nearness(embeddings, atoms)
    row("CSLS", lambda rows, vector: 2 * plain(rows, vector) - near[rows], atoms)
    row("less the item's mean over atoms", lambda rows, vector: plain(rows, vector) - mean[rows], atoms)
    row("z-score over atoms", lambda rows, vector: (plain(rows, vector) - mean[rows]) / deviation[rows], atoms)


def _order(rows: Rows, scores: FloatArray) -> Rows:
    return rows[np.argsort(-scores, kind="stable")[:_RANKED]]


def _readings(labels: Labels, rankings: Sequence[Rows]) -> str:
    return ", ".join(f"{share:.3f}" for share in labels.shares(rankings)[:3])


def _all_but_the_top(embeddings: FloatArray, removed: int) -> Callable[[FloatArray], FloatArray]:
    """Rows less the catalog's mean and its first principal components, of unit norm."""
    mean = embeddings.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((embeddings - mean).T))
    top = vectors[:, ::-1][:, :removed].astype(np.float32)

    def without(rows: FloatArray) -> FloatArray:
        centred = rows - mean
        return unit_rows(centred - centred @ top @ top.T)

    return without


def _nearness(embeddings: FloatArray, atoms: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """For each item its mean cosine with the `_NEAR` nearest atoms, that with all, and the standard deviation."""
    found = []
    for start in range(0, len(embeddings), 4096):
        cosines = embeddings[start : start + 4096] @ atoms.T
        nearest = np.partition(cosines, -_NEAR, axis=1)[:, -_NEAR:]
        found.append((nearest.mean(axis=1), cosines.mean(axis=1), cosines.std(axis=1)))
    near, mean, deviation = map(np.concatenate, zip(*found, strict=True))
    return near, mean, deviation


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--table", type=Path, help="parquet with section and tags, row by row as the embeddings")
    return parser.parse_args()


if __name__ == "__main__":
    main()
