"""Files of a saved model: config.json gives the name and hash of a safetensors file. Nothing is unpickled.

::

    config.json                     format, shape, fingerprint, name and SHA-256 of the weights file
    weights-<12 hex>.safetensors    encoder, atoms, statistics of the latents
    history.json, training.png      history of the training, and its chart (optional)
    baseline.safetensors            quality on held-out items, for monitoring (optional)
    projection.safetensors          maps of queries and items to navigation vectors (optional)
    calibration.json                recall and cost of query plans (optional, see `calibration`)
    concepts.json                   names of the latents, editable (optional, see `concepts`)

The name of the weights file contains its hash, and config.json is replaced last, so that a reader always sees a
complete model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import ConfigError, MissingExtraError, ModelFileError
from ..files import atomic_path, write_text
from .baseline import BASELINE_FILE, Baseline
from .calibration import CALIBRATION_FILE, Calibration
from .concepts import CONCEPTS_FILE, Concepts, rename_foreign
from .config import ModelConfig
from .history import TrainingHistory
from .projection import PROJECTION_FILE, Projection

__all__ = ["StoredModel", "read_model", "write_model"]

_FORMAT: Final = 1
_TENSORS: Final = ("atoms", "encoder_weight", "encoder_bias", "latent_use", "latent_magnitude")


@dataclass(frozen=True)
class StoredModel:
    """Content of the files of a model."""

    config: ModelConfig
    fingerprint: str
    state: Mapping[str, Tensor]
    """Tensors of `CompresSAE.state_dict`, on the CPU."""
    history: TrainingHistory | None
    baseline: Baseline | None
    concepts: Concepts | None = None
    """Written by `write_model`. `read_model` does not read them; the model loads them at first use."""
    projection: Projection | None = None
    """Written by `write_model`. `read_model` does not read it; the model loads it at first use."""
    calibration: Calibration | None = None
    """Written by `write_model`. `read_model` does not read it; the model loads it at first use."""


def write_model(stored: StoredModel, directory: Path) -> None:
    """Write a model's files to `directory`, which is created if it does not exist."""
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in stored.state.items()})
    digest = hashlib.sha256(content).hexdigest()
    name = f"weights-{digest[:12]}.safetensors"
    with atomic_path(directory / name) as temporary:
        temporary.write_bytes(content)
    if stored.history is not None:
        stored.history.save(directory / "history.json")
        try:
            stored.history.plot(directory / "training.png")
        except MissingExtraError:  # the chart is optional; one of an earlier training is removed
            (directory / "training.png").unlink(missing_ok=True)
    if stored.baseline is not None:
        stored.baseline.save(directory / BASELINE_FILE)
    config = {
        "format": _FORMAT,
        "dim": stored.config.dim,
        "latents": stored.config.latents,
        "k": stored.config.k,
        "fingerprint": stored.fingerprint,
        "weights": name,
        "sha256": digest,
    }
    write_text(directory / "config.json", json.dumps(config, indent=2) + "\n")
    _write_concepts(stored, directory)
    _write_calibration(stored, directory)
    if stored.projection is not None:
        stored.projection.save(directory, stored.fingerprint)
    else:
        (directory / PROJECTION_FILE).unlink(missing_ok=True)
    for other in directory.glob("weights-*.safetensors"):
        if other.name != name:
            other.unlink()
    if stored.history is None:
        (directory / "history.json").unlink(missing_ok=True)
        (directory / "training.png").unlink(missing_ok=True)
    if stored.baseline is None:
        (directory / BASELINE_FILE).unlink(missing_ok=True)


def _write_concepts(stored: StoredModel, directory: Path) -> None:
    """Write the concepts, unless the directory already has some of this model, which may have been edited."""
    rename_foreign(directory, stored.fingerprint)
    if stored.concepts is not None and not (directory / CONCEPTS_FILE).exists():
        stored.concepts.save(directory)


def _write_calibration(stored: StoredModel, directory: Path) -> None:
    """Write the calibration, or remove the calibration of a previous model."""
    if stored.calibration is not None and stored.calibration.fingerprint == stored.fingerprint:
        stored.calibration.save(directory)
    else:
        (directory / CALIBRATION_FILE).unlink(missing_ok=True)


def read_model(directory: Path) -> StoredModel:
    """Read a model written by `write_model`, on the CPU.

    Raises:
        ModelFileError: there is no model, or it is truncated or altered or has a newer format.
    """
    config = _read_config(directory)
    path = directory / Path(str(config["weights"])).name
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ModelFileError(
            f"cannot read the weights of the model at {directory}: {exc}; copy the model again"
        ) from exc
    if hashlib.sha256(content).hexdigest() != config["sha256"]:
        raise ModelFileError(
            f"{path} is truncated or altered (its SHA-256 differs from that in config.json); copy the model again"
        )
    try:
        shape = ModelConfig(config["dim"], config["latents"], config["k"])
        state = load(content)
    except (SafetensorError, ConfigError, TypeError) as exc:
        raise ModelFileError(f"{path} does not match its config.json ({exc}); copy the model again") from exc
    if set(state) != set(_TENSORS):
        raise ModelFileError(f"{path} holds tensors {sorted(state)}, expected {sorted(_TENSORS)}; copy the model again")
    history = baseline = None
    if (directory / "history.json").exists():
        history = TrainingHistory.from_json((directory / "history.json").read_bytes(), str(directory / "history.json"))
    if (directory / BASELINE_FILE).exists():
        baseline = Baseline.load(directory / BASELINE_FILE)
        if baseline.fingerprint != config["fingerprint"]:  # an interrupted save left the baseline of another model
            baseline = None
    return StoredModel(shape, str(config["fingerprint"]), state, history, baseline)


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ModelFileError(
            f"there is no model at {directory} (no config.json); create one by `compressae train CATALOG "
            f"--out {directory}` or `model.save`"
        ) from exc
    except (OSError, ValueError) as exc:
        raise ModelFileError(f"cannot read {path} ({exc}); copy the model again") from exc
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        version = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise ModelFileError(
            f"{path} has model format {version!r}, this version reads {_FORMAT}; upgrade compressae-qdrant"
        )
    missing = {"dim", "latents", "k", "fingerprint", "weights", "sha256"} - set(config)
    if missing:
        raise ModelFileError(f"{path} lacks {', '.join(sorted(missing))}; copy the model again")
    return config
