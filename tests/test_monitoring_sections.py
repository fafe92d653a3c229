"""Drift monitoring on the shipped catalog, with two sections left out of the training; see scripts/bench_monitor.py."""

from __future__ import annotations

import numpy as np
import pytest

from compressae_qdrant import CompresSAE, TrainConfig, load_sample, train
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.monitoring import check, observe
from compressae_qdrant.monitoring.checks import Report

pytestmark = pytest.mark.slow

SEEDS = 20
WITHOUT = ("haskell", "games")
BATCH = 200


class Catalog:
    """A model, random items that it was not trained on, and the items of each section left out."""

    def __init__(self) -> None:
        sample = load_sample()
        sections = np.array([payload["section"] for payload in sample.payloads])
        inside = np.flatnonzero(~np.isin(sections, WITHOUT))
        reserve = np.random.default_rng(0).permutation(inside)[:2000]
        self.reserve = sample.embeddings[reserve]
        self.new = {name: sample.embeddings[sections == name] for name in WITHOUT}
        config = TrainConfig(
            latents=256, k=12, steps=40, batch_size=512, rounds=3, round_items=2000, encoder_steps=0, held_out=800
        )
        self.model: CompresSAE = train(sample.embeddings[np.setdiff1d(inside, reserve)], config)

    def report(self, seed: int, share: float, section: str) -> Report:
        random = np.random.default_rng(seed)
        new = round(share * BATCH)
        parts: list[FloatArray] = [
            random.permutation(self.new[section])[:new], random.permutation(self.reserve)[: BATCH - new],
        ]  # fmt: skip
        assert self.model.baseline is not None
        return check(self.model, observe(self.model, np.concatenate(parts)), self.model.baseline, seed=seed)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog()


def test_random_items_raise_no_alarm(catalog: Catalog) -> None:
    alarms = {seed: report.reasons for seed in range(SEEDS) if (report := catalog.report(seed, 0.0, "games")).drifted}
    assert alarms == {}


@pytest.mark.parametrize("section", WITHOUT)
def test_a_new_section_raises_an_alarm(catalog: Catalog, section: str) -> None:
    assert all(catalog.report(seed, 0.5, section).drifted for seed in range(SEEDS))
