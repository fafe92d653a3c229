"""train(): embeddings in, a model out. Three phases, each a loop that reads from top to bottom:

1. autoencoder: encoder and atoms by Adam on the paper's objective, starting from items of the catalog;
2. dictionary: codes by pursuit, atoms by least squares, over and over;
3. encoder: the encoder alone, fitted to the refined atoms.

Every random choice is a function of the seed and a position, so a checkpoint holds no generator, and a resumed
training gives the bits of an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy.typing as npt
import torch
from torch import Tensor

from ..model.compressae import CompresSAE
from ..model.history import Phase, Record
from ..model.observation import LEAST_ITEMS, make_baseline
from .config import TrainConfig, choose_latents
from .data import TrainingData
from .dictionary import NormalEquations
from .progress import Progress, ProgressBars
from .refinement import refine
from .state import WARM_UP, Run
from .steps import Step, make_step

__all__ = ["TrainConfig", "learning_rate", "train"]

_LOG = logging.getLogger(__name__)
_STATISTICS_ITEMS: Final = 20_000
"""Training items whose codes give the model's statistics of its latents."""


def train(
    embeddings: npt.ArrayLike,
    config: TrainConfig = TrainConfig(),  # noqa: B008 (frozen)
    *,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    on_record: Callable[[Record], None] | None = None,
    device: str | torch.device = "cpu",
) -> CompresSAE:
    """Train a model on the embeddings of a catalog.

    Args:
        embeddings: (n, d) array or memory map of any float type; rows are L2-normalised here. Never copied as a whole.
        config: settings.
        checkpoint: a file to save progress in. If it is there already, training goes on from it, to the same bits as
            without the interruption. It is deleted at the end.
        progress: draw progress bars on standard error.
        on_record: called with each validation.
        device: where to train.

    Returns:
        The model, with `history`.

    Raises:
        InvalidInputError: embeddings are unusable; the first bad row is named.
        ConfigError: settings contradict the data or the checkpoint.
        ModelFileError: the checkpoint is damaged.
    """
    where = torch.device(device)
    data = TrainingData(embeddings, config.held_out, config.seed, where)
    config, note = _with_latents(config, data)
    run = Run(config, data, where, None if checkpoint is None else Path(checkpoint), on_record)
    if note:
        _LOG.info(note)
        run.history.notes.append(note)
    run.resume()
    with ProgressBars(progress) as bars:
        _train_autoencoder(run, bars)
        _refine_dictionary(run, bars)
        _refit_encoder(run, bars)
    _measure_latents(run)
    _measure_baseline(run)
    if run.checkpoint is not None and run.group.is_first:
        run.checkpoint.unlink(missing_ok=True)
    return run.model.eval()


def _train_autoencoder(run: Run, bars: ProgressBars) -> None:
    config, model = run.config, run.model
    if run.done["autoencoder"] >= config.steps:
        return
    adam = run.optimiser(list(model.parameters()))
    step = make_step(model, adam, run.feed, config, run.group, train_atoms=True, last_use=run.last_use)
    with bars.phase("autoencoder", config.steps, run.done["autoencoder"], config.batch_size) as bar:
        for done in _count(run, "autoencoder", config.steps):
            loss = step(done * config.batch_size, learning_rate(config, done, config.steps), done + 1)
            run.done["autoencoder"] = done + 1
            if config.revive_after and (done + 1) % config.revive_after == 0 and done + 1 < config.steps:
                _revive(run, adam, step)
            _after(run, "autoencoder", loss, config.steps, adam, bar)


def _refine_dictionary(run: Run, bars: ProgressBars) -> None:
    config, model = run.config, run.model
    if run.done["dictionary"] >= config.rounds:
        return
    if run.equations is None:
        run.equations = NormalEquations.zero(model.latents, model.dim, run.device)
    size = min(config.round_items, len(run.data))
    start = config.steps * config.batch_size
    with bars.phase("dictionary", config.rounds, run.done["dictionary"], size) as bar:
        for done in _count(run, "dictionary", config.rounds):
            loss = refine(run, run.equations, start + done * size, size, revive=done + 1 < config.rounds)
            run.done["dictionary"] = done + 1
            _after(run, "dictionary", loss, config.rounds, None, bar)


def _refit_encoder(run: Run, bars: ProgressBars) -> None:
    config, model = run.config, run.model
    if run.done["encoder"] >= config.encoder_steps:
        return
    adam = run.optimiser([model.encoder_weight, model.encoder_bias])
    step = make_step(model, adam, run.feed, config, run.group, train_atoms=False, last_use=run.last_use)
    start = config.steps * config.batch_size + config.rounds * config.round_items
    with bars.phase("encoder", config.encoder_steps, run.done["encoder"], config.batch_size) as bar:
        for done in _count(run, "encoder", config.encoder_steps):
            loss = step(start + done * config.batch_size, learning_rate(config, done, config.encoder_steps), done + 1)
            run.done["encoder"] = done + 1
            _after(run, "encoder", loss, config.encoder_steps, adam, bar)


def _count(run: Run, phase: Phase, total: int) -> Iterator[int]:
    """What is left of a phase's steps."""
    return iter(range(run.done[phase], total))


def _after(run: Run, phase: Phase, loss: Tensor, total: int, optimiser: torch.optim.Adam | None, bar: Progress) -> None:
    """What follows every step: bookkeeping, and from time to time a validation and a checkpoint."""
    run.add_loss(loss)
    bar.advance(loss)
    done = run.done[phase]
    validate, save = (2, 2) if phase == "dictionary" else (run.config.validate_every, run.config.checkpoint_every)
    if done % validate == 0 or done == total:
        run.validate(phase)
    if done == total:
        run.save()
    elif done % save == 0:
        run.save(optimiser)


@torch.no_grad()
def _revive(run: Run, adam: torch.optim.Adam, step: Step) -> None:
    """Start latents that nothing used for long anew, as what the worst-served items of a batch lack."""
    model = run.model
    x = step.x.float()
    idle = run.done["autoencoder"] - run.last_use >= run.config.revive_after
    dead = idle.nonzero().squeeze(1)[: run.config.batch_size]
    if not len(dead):
        return
    directions = run.group.largest_residuals(x - model(x), len(dead))
    model.atoms[dead] = directions
    model.encoder_weight[dead] = directions
    model.encoder_bias[dead] = 0
    for moments in adam.state.values():
        moments["exp_avg"][dead] = 0
        moments["exp_avg_sq"][dead] = 0
    run.last_use[dead] = run.done["autoencoder"]
    run.group.broadcast_(*(weight.detach() for weight in model.parameters()))
    step.refresh()


@torch.no_grad()
def _measure_latents(run: Run) -> None:
    """Give the model the statistics of its latents over training items: how often each is used, and how strongly."""
    model = run.model
    x = run.data.sample(_STATISTICS_ITEMS, salt=3)
    model.measure_latents(model.encode(x.cpu().numpy(), atoms_per_step=run.config.atoms_per_step))


def _measure_baseline(run: Run) -> None:
    """Keep with the model how it does on the held-out items, if any; the monitor compares later batches with that."""
    if not run.config.held_out or len(run.held_out) < LEAST_ITEMS:
        return
    source = "items held out of the training"
    run.model.baseline = make_baseline(run.model, run.held_out.cpu().numpy(), source=source)


def _with_latents(config: TrainConfig, data: TrainingData) -> tuple[TrainConfig, str]:
    if config.latents is not None:
        return config, ""
    latents, note = choose_latents(len(data), config.k)
    return dataclasses.replace(config, latents=latents), note


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """The learning rate of a step: up in a line, then down in half a cosine."""
    warm = min(1.0, (step + 1) / min(WARM_UP, total))
    return config.learning_rate * warm * (1 + math.cos(math.pi * step / total)) / 2
