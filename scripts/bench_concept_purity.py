"""Measure how often the strongest items of a concept share a label that people assigned.

    python scripts/bench_concept_purity.py                            # the shipped sample and a quickly trained model
    python scripts/bench_concept_purity.py embeddings.npy --metadata items.parquet --model model

A concept is pure if one label covers the majority of its 20 strongest items: those closest to the atom, as in
`compressae concepts`, or those with the largest values. Labels are sections and tags.

Many items may have no tags, so purity is measured three times: among the strongest items; among those of them whose
labels are known (all have a section; tags count if at least ten of the items are tagged); and among the strongest
tagged items. Each is measured with all labels, and without labels of more than a tenth of all items, which are often
about form rather than content.

Controls are measured in the same way: random items; the items closest to random directions, without and with the
atoms' mean and covariance; the opposite side of the same latents; and the leading latents of codes by an untrained
dictionary of such directions. The concepts measured are those that are the main concept of most items (the one with the
largest share, value times cosine), and those that most items use. Prints Markdown; --names also lists concepts with
their names from the model's concepts.json.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from bench_data import load_catalog, load_labels, load_or_train

from compressae_qdrant import CompresSAE, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.vectors import unit_rows

Rows = npt.NDArray[np.int64]
STRONGEST = 20
_BATCH = 4096
_SECTION = "section:"


class Labels:
    """Sections and tags of the catalog's items."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        rows = zip(columns["section"], columns["tags"], strict=True)
        self.of = [{f"{_SECTION}{section}", *(tags or [])} for section, tags in rows]
        self.tagged = np.array([bool(tags) for tags in columns["tags"]])
        counts = Counter(label for own in self.of for label in own)
        self.common = {label for label, count in counts.items() if count > len(self.of) / 10}

    def pure(self, rows: Rows, left_out: set[str]) -> bool:
        """Whether one label covers the majority of `STRONGEST` items."""
        counts = Counter(label for row in rows[:STRONGEST].tolist() for label in self.of[row] - left_out)
        return max(counts.values(), default=0) > STRONGEST / 2

    def pure_if_known(self, rows: Rows, left_out: set[str]) -> bool:
        """Whether one label covers the majority of the items whose labels are known."""
        strongest = rows[:STRONGEST]
        sections = Counter(label for row in strongest.tolist() for label in self.of[row] if label.startswith(_SECTION))
        tagged = strongest[self.tagged[strongest]].tolist()
        tags = Counter(label for row in tagged for label in self.of[row] if not label.startswith(_SECTION))
        known = len(tagged) if len(tagged) >= STRONGEST / 2 else np.inf
        return any(
            count > whole / 2
            for counts, whole in ((sections, STRONGEST), (tags, known))
            for label, count in counts.items()
            if label not in left_out
        )

    def shares(self, rankings: Sequence[Rows]) -> list[float]:
        """Return the share of pure rankings: all, known, tagged items; then the same without common labels."""
        found = []
        for left_out in (set(), self.common):
            found += [
                float(np.mean([self.pure(rows, left_out) for rows in rankings])),
                float(np.mean([self.pure_if_known(rows, left_out) for rows in rankings])),
                float(np.mean([self.pure(rows[self.tagged[rows]], left_out) for rows in rankings])),
            ]
        return found


class Latents:
    """The items that use each latent, and their values."""

    def __init__(self, codes: SparseCodes, embeddings: FloatArray, atoms: FloatArray) -> None:
        self._columns = codes.to_csr().tocsc()
        self._embeddings, self.atoms = embeddings, atoms
        squares = self._columns.multiply(abs(self._columns)).sum(axis=0)
        self.sign = np.where(np.asarray(squares).ravel() >= 0, 1, -1)
        self.use = np.array([len(self.users(latent)[0]) for latent in range(codes.latents)])
        self.main = np.bincount(self._largest(codes), minlength=codes.latents)

    def leading(self, count: int) -> list[int]:
        """Return the latents that are the main concept of most items; ties go to those that more items use."""
        found: list[int] = np.lexsort((-self.use, -self.main))[:count].tolist()
        return found

    def _largest(self, codes: SparseCodes) -> Rows:
        """Return the latent with the largest share in each code."""
        shares = np.empty_like(codes.values)
        for start in range(0, len(codes), _BATCH):
            part = slice(start, start + _BATCH)
            cosines = np.einsum("nd,nkd->nk", self._embeddings[part], self.atoms[codes.indices[part]])
            shares[part] = codes.values[part] * cosines
        return np.take_along_axis(codes.indices, shares.argmax(axis=1)[:, None], axis=1)[:, 0].astype(np.int64)

    def users(self, latent: int, side: int = 1) -> tuple[Rows, FloatArray]:
        """Return the items that use a latent with the concept's sign (1) or the opposite (-1), and their magnitudes."""
        part = slice(self._columns.indptr[latent], self._columns.indptr[latent + 1])
        values = self._columns.data[part] * self.sign[latent] * side
        kept = values > 0
        return self._columns.indices[part][kept].astype(np.int64), values[kept]

    def by_value(self, latent: int) -> Rows:
        rows, values = self.users(latent)
        return rows[np.argsort(-values, kind="stable")]

    def by_cosine(self, latent: int, side: int = 1) -> Rows:
        rows, _ = self.users(latent, side)
        cosines = self.sign[latent] * side * (self._embeddings[rows] @ self.atoms[latent])
        return rows[np.argsort(-cosines, kind="stable")]


def like_the_atoms(atoms: FloatArray, random: np.random.Generator, count: int) -> FloatArray:
    """Return (count, d) random directions with the mean and the covariance of the atoms."""
    drawn = random.multivariate_normal(atoms.mean(axis=0), np.cov(atoms.T), size=count)
    return unit_rows(drawn.astype(np.float32))


def _untrained(model: CompresSAE, embeddings: FloatArray, random: np.random.Generator) -> Latents:
    """Return codes by pursuit on random directions: same latents, k, mean and covariance as the model."""
    directions = like_the_atoms(model.atoms.detach().numpy(), random, model.latents)
    other = CompresSAE(model.config)
    with torch.no_grad():
        other.atoms.copy_(torch.from_numpy(directions))
    return Latents(other.encode(embeddings), embeddings, directions)


def main() -> None:
    arguments = _arguments()
    name, vectors = load_catalog([] if arguments.embeddings is None else [arguments.embeddings])
    print(f"Catalog: {name}")
    embeddings = unit_rows(vectors)
    model = load_or_train(arguments.model, vectors)
    codes = model.encode(embeddings)
    labels = Labels(load_labels(arguments.metadata))
    latents = Latents(codes, embeddings, model.atoms.detach().numpy())
    most = latents.leading(arguments.latents)
    common = np.argsort(-latents.use, kind="stable")[: arguments.latents].tolist()
    random = np.random.default_rng(arguments.seed)
    items, tagged = np.arange(len(codes)), np.flatnonzero(labels.tagged)

    def drawn(_: int) -> Rows:
        return np.concatenate([random.choice(items, STRONGEST, False), random.choice(tagged, STRONGEST, False)])

    def along_a_direction(_: int) -> Rows:
        return np.argsort(-(embeddings @ random.normal(size=model.dim).astype(np.float32)), kind="stable")

    def like_an_atom(_: int) -> Rows:
        direction = like_the_atoms(latents.atoms, random, 1)[0]
        return np.argsort(-(embeddings @ direction), kind="stable")

    rankings: dict[str, Callable[[int], Rows]] = {
        "closest to the atom": latents.by_cosine,
        "largest value": latents.by_value,
        "control: the latents' opposite sign": lambda latent: latents.by_cosine(latent, -1),
        "control: random directions": along_a_direction,
        "control: random items": drawn,
        "control: directions like the atoms": like_an_atom,
    }
    untrained = _untrained(model, embeddings, random)
    print(
        f"{len(codes):,} items, {labels.tagged.mean():.0%} with tags; model {model.fingerprint}, "
        f"h={model.latents}, k={model.k}; the {len(most)} latents that are the main concept of most items "
        f"({latents.main[most[-1]]:,} to {latents.main[most[0]]:,} items), and those that most items use "
        f"({latents.use[common[-1]]:,} to {latents.use[common[0]]:,})"
    )
    print()
    print(
        "| 20 strongest items | all items | known labels | tagged items | all, no common | known, no common "
        "| tagged, no common |"
    )
    print("|---|---|---|---|---|---|---|")
    for label, ranking in rankings.items():
        print(f"| {label} | {' | '.join(f'{share:.1%}' for share in labels.shares(list(map(ranking, most))))} |")
    shares = labels.shares([untrained.by_cosine(latent) for latent in untrained.leading(len(most))])
    print(f"| control: an untrained dictionary's latents | {' | '.join(f'{share:.1%}' for share in shares)} |")
    for label, ranking in (("closest to the atom", latents.by_cosine), ("largest value", latents.by_value)):
        shares = labels.shares(list(map(ranking, common)))
        print(f"| {label}, of those that most items use | {' | '.join(f'{share:.1%}' for share in shares)} |")
    everything = labels.shares([latents.by_cosine(latent) for latent in np.flatnonzero(latents.use).tolist()])
    print(f"| closest to the atom, all latents | {' | '.join(f'{share:.1%}' for share in everything)} |")
    print(f"\nCommon labels: {', '.join(sorted(labels.common))}.")
    values = codes.values
    print(f"Of the non-zeros {float((values < 0).mean()):.1%} are negative, with "
          f"{float(np.square(values[values < 0]).sum() / np.square(values).sum()):.1%} of the squares; "
          f"{int((latents.sign < 0).sum())} latents have their concept on the negative side.")  # fmt: skip
    if arguments.names:
        _show_names(model, arguments.names)


def _show_names(model: CompresSAE, count: int) -> None:
    """Print the most used concepts, and the same number drawn evenly from the rest."""
    if model.concepts is None:
        raise SystemExit("the model has no concepts.json; run `compressae concepts` first")
    ranked = model.concepts.most_used()
    for title, some in (
        ("Most used", ranked[:count]),
        ("Drawn evenly from the rest", ranked[count :: len(ranked) // count]),
    ):
        print(f"\n**{title}**\n\n| latent | name | main of | items | closest items |\n|---|---|---|---|---|")
        for concept in some[:count]:
            titles = "; ".join(item.title for item in concept.strongest[:3]).replace("|", "/")
            print(f"| {concept.key} | {concept.name} | {concept.main:,} | {concept.items:,} | {titles} |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "embeddings", nargs="?", type=Path, help="(n, d) .npy of embeddings; default: the shipped sample"
    )
    parser.add_argument("--model", type=Path, help="directory of a trained model; default: train a quick one")
    parser.add_argument("--metadata", type=Path, help="parquet with section and tags, row by row as the embeddings")
    parser.add_argument("--latents", type=int, default=200, help="number of concepts to measure (default: 200)")
    parser.add_argument(
        "--names", type=int, default=0, help="number of concepts to list, of the most used and of the rest (default: 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the controls (default: 0)")
    arguments = parser.parse_args()
    if arguments.embeddings is not None and arguments.metadata is None:
        parser.error("--metadata is needed with embeddings: it has the section and tags of each item")
    return arguments


if __name__ == "__main__":
    main()
