"""`train`: fits a model to the embeddings of a catalog, in three phases:

1. autoencoder: Adam trains the encoder and the atoms on the paper's objective, starting from items of the catalog;
2. dictionary: rounds of coding by pursuit and solving for the atoms by least squares;
3. encoder: Adam trains the encoder alone, to fit the refined atoms.

Every random choice is a function of the seed and of a position in the training, so a checkpoint holds no random state,
and a resumed training gives the same bits as an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy.typing as npt
import torch
from torch import Tensor

from ..model.compressae import CompresSAE
from ..model.history import Phase, Record
from ..model.observation import MIN_ITEMS, make_baseline
from ..model.projection import Projection
from .config import TrainConfig, choose_latents
from .data import TrainingData
from .dictionary import NormalEquations
from .progress import Progress, ProgressBars
from .refinement import refine
from .state import WARM_UP, TrainingState
from .steps import Step, make_step

__all__ = ["TrainConfig", "learning_rate", "train"]

_LOG = logging.getLogger(__name__)
_PROJECTION_ITEMS: Final = 100_000
"""Items whose second moment the projection is fitted to: 100 for each of 1,024 dimensions."""
_STATISTICS_ITEMS: Final = 20_000
"""Training items whose codes give the use and the strength of each latent."""


def train(
    embeddings: npt.ArrayLike,
    config: TrainConfig = TrainConfig(),  # noqa: B008 (frozen)
    *,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    on_record: Callable[[Record], None] | None = None,
    device: str | torch.device = "cpu",
    queries: npt.ArrayLike | None = None,
) -> CompresSAE:
    """Train a model on the embeddings of a catalog.

    Args:
        embeddings: (n, d) array or memory map of any float type; rows are L2-normalised here. Never copied as a whole.
        config: settings.
        checkpoint: file to save progress in. If it exists, training resumes from it, with the same result as without
            the interruption. It is deleted at the end.
        progress: show progress bars on standard error.
        on_record: called with the record of each validation.
        device: device to train on.
        queries: (q, d) embeddings of logged queries, if they are distributed differently from the items. Navigation
            vectors are fitted to them; codes are not.

    Returns:
        The model, with its `history`.

    Raises:
        InvalidInputError: an embedding is zero, NaN or infinite, or there are too few.
        ConfigError: the checkpoint belongs to a training with other settings or embeddings.
        ModelFileError: the checkpoint cannot be read.
    """
    device = torch.device(device)
    data = TrainingData(embeddings, config.held_out, config.seed, device)
    config, note = _choose_latents(config, data)
    state = TrainingState(config, data, device, None if checkpoint is None else Path(checkpoint), on_record)
    if note:
        _LOG.info(note)
        state.history.notes.append(note)
    state.resume()
    with ProgressBars(progress) as bars:
        _train_autoencoder(state, bars)
        _refine_dictionary(state, bars)
        _refit_encoder(state, bars)
    _measure_latents(state)
    _measure_baseline(state)
    _fit_projection(state, queries)
    if state.checkpoint is not None and state.group.is_first:
        state.checkpoint.unlink(missing_ok=True)
    return state.model.eval()


def _train_autoencoder(state: TrainingState, bars: ProgressBars) -> None:
    config, model = state.config, state.model
    if state.steps_done["autoencoder"] >= config.steps:
        return
    adam = state.optimiser(list(model.parameters()))
    step = make_step(model, adam, state.batches, config, state.group, train_atoms=True, last_use=state.last_use)
    with bars.phase("autoencoder", config.steps, state.steps_done["autoencoder"], config.batch_size) as bar:
        for done in range(state.steps_done["autoencoder"], config.steps):
            loss = step(done * config.batch_size, learning_rate(config, done, config.steps), done + 1)
            state.steps_done["autoencoder"] = done + 1
            if config.revive_after and (done + 1) % config.revive_after == 0 and done + 1 < config.steps:
                _revive_dead_latents(state, adam, step)
            _finish_step(state, "autoencoder", loss, config.steps, adam, bar)


def _refine_dictionary(state: TrainingState, bars: ProgressBars) -> None:
    config, model = state.config, state.model
    if state.steps_done["dictionary"] >= config.rounds:
        return
    if state.equations is None:
        state.equations = NormalEquations.zero(model.latents, model.dim, state.device)
    size = min(config.round_items, len(state.data))
    start = config.steps * config.batch_size
    with bars.phase("dictionary", config.rounds, state.steps_done["dictionary"], size) as bar:
        for done in range(state.steps_done["dictionary"], config.rounds):
            loss = refine(state, state.equations, start + done * size, size, revive=done + 1 < config.rounds)
            state.steps_done["dictionary"] = done + 1
            _finish_step(state, "dictionary", loss, config.rounds, None, bar)


def _refit_encoder(state: TrainingState, bars: ProgressBars) -> None:
    config, model = state.config, state.model
    if state.steps_done["encoder"] >= config.encoder_steps:
        return
    adam = state.optimiser([model.encoder_weight, model.encoder_bias])
    step = make_step(model, adam, state.batches, config, state.group, train_atoms=False, last_use=state.last_use)
    start = config.steps * config.batch_size + config.rounds * config.round_items
    with bars.phase("encoder", config.encoder_steps, state.steps_done["encoder"], config.batch_size) as bar:
        for done in range(state.steps_done["encoder"], config.encoder_steps):
            loss = step(start + done * config.batch_size, learning_rate(config, done, config.encoder_steps), done + 1)
            state.steps_done["encoder"] = done + 1
            _finish_step(state, "encoder", loss, config.encoder_steps, adam, bar)


def _finish_step(
    state: TrainingState, phase: Phase, loss: Tensor, total: int, optimiser: torch.optim.Adam | None, bar: Progress
) -> None:
    """Record the loss of a step; validate and save a checkpoint when they are due."""
    state.add_loss(loss)
    bar.advance(loss)
    done = state.steps_done[phase]
    validate, save = (2, 2) if phase == "dictionary" else (state.config.validate_every, state.config.checkpoint_every)
    if done % validate == 0 or done == total:
        state.validate(phase)
    if done == total:
        state.save()
    elif done % save == 0:
        state.save(optimiser)


@torch.no_grad()
def _revive_dead_latents(state: TrainingState, adam: torch.optim.Adam, step: Step) -> None:
    """Restart latents that were unused for `revive_after` steps, as the largest residuals of the last batch."""
    model = state.model
    x = step.x.float()
    unused = state.steps_done["autoencoder"] - state.last_use >= state.config.revive_after
    dead = unused.nonzero().squeeze(1)[: state.config.batch_size]
    if not len(dead):
        return
    directions = state.group.largest_residuals(x - model(x), len(dead))
    model.atoms[dead] = directions
    model.encoder_weight[dead] = directions
    model.encoder_bias[dead] = 0
    for moments in adam.state.values():
        moments["exp_avg"][dead] = 0
        moments["exp_avg_sq"][dead] = 0
    state.last_use[dead] = state.steps_done["autoencoder"]
    state.group.broadcast_(*(weight.detach() for weight in model.parameters()))
    step.refresh()


@torch.no_grad()
def _measure_latents(state: TrainingState) -> None:
    """Measure how often and how strongly training items use each latent, and store it with the model."""
    model = state.model
    x = state.data.sample(_STATISTICS_ITEMS, salt=3)
    model.measure_latents(model.encode(x.cpu().numpy(), atoms_per_step=state.config.atoms_per_step))


def _measure_baseline(state: TrainingState) -> None:
    """Store the quality on the held-out items with the model; monitoring compares later batches with it."""
    if not state.config.held_out or len(state.held_out) < MIN_ITEMS:
        return
    source = "items held out of the training"
    state.model.baseline = make_baseline(state.model, state.held_out.cpu().numpy(), source=source)


def _fit_projection(state: TrainingState, queries: npt.ArrayLike | None) -> None:
    """Fit the projection to navigation vectors, and store it with the model."""
    items = state.data.sample(_PROJECTION_ITEMS, salt=4)
    state.model.projection = Projection.fit(items.cpu().numpy(), queries)


def _choose_latents(config: TrainConfig, data: TrainingData) -> tuple[TrainConfig, str]:
    if config.latents is not None:
        return config, ""
    latents, note = choose_latents(len(data), config.k)
    return dataclasses.replace(config, latents=latents), note


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """The learning rate of a step: linear warm-up, then a cosine down to zero."""
    warm_up = min(1.0, (step + 1) / min(WARM_UP, total))
    return config.learning_rate * warm_up * (1 + math.cos(math.pi * step / total)) / 2
