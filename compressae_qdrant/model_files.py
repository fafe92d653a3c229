"""The files of a saved model: config.json names a safetensors file and its hash; nothing is ever unpickled.

::

    config.json                     format, shape, fingerprint, name and SHA-256 of the weights file
    weights-<12 hex>.safetensors    encoder, atoms, statistics of the latents
    history.json, training.png      what the training went through (optional)
    baseline.safetensors            how it did on held-out items, for the monitor (optional)
    calibration.json                what query plans find and cost (optional, see `calibration`)
    concepts.json                   what latents stand for (optional, edited by hand; see `concepts`)

The weights file is named by its content and config.json is replaced last, so a reader sees one whole model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load, save

from .baseline import BASELINE_FILE, Baseline
from .calibration import CALIBRATION_FILE
from .concepts.concept import CONCEPTS_FILE, set_aside
from .errors import ConfigError, ModelFileError, ModelMismatchError
from .files import atomic_path, write_text
from .history import TrainingHistory
from .model import CompresSAE, ModelConfig

__all__ = ["load_model", "save_model"]

_FORMAT: Final = 1
_TENSORS: Final = ("atoms", "encoder_weight", "encoder_bias", "latent_use", "latent_magnitude")


def save_model(model: CompresSAE, directory: Path) -> None:
    """Write `model` to `directory`, which is made if it isn't there."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = save(state)
    digest = hashlib.sha256(content).hexdigest()
    name = f"weights-{digest[:12]}.safetensors"
    with atomic_path(directory / name) as temporary:
        temporary.write_bytes(content)
    if model.history is not None:
        model.history.save(directory / "history.json")
        model.history.plot(directory / "training.png")
    if model.baseline is not None:
        model.baseline.save(directory / BASELINE_FILE)
    config = {
        "format": _FORMAT,
        "dim": model.dim,
        "latents": model.latents,
        "k": model.k,
        "fingerprint": model.fingerprint,
        "weights": name,
        "sha256": digest,
    }
    write_text(directory / "config.json", json.dumps(config, indent=2) + "\n")
    _save_concepts(model, directory)
    _save_calibration(model, directory)
    for other in directory.glob("weights-*.safetensors"):
        if other.name != name:
            other.unlink()
    if model.history is None:
        (directory / "history.json").unlink(missing_ok=True)
        (directory / "training.png").unlink(missing_ok=True)
    if model.baseline is None:
        (directory / BASELINE_FILE).unlink(missing_ok=True)


def _save_concepts(model: CompresSAE, directory: Path) -> None:
    """Bring its concepts along, unless there are some of this model: those may have been edited since."""
    concepts = model.concepts
    set_aside(directory, model.fingerprint)
    if concepts is not None and not (directory / CONCEPTS_FILE).exists():
        concepts.save(directory)


def _save_calibration(model: CompresSAE, directory: Path) -> None:
    """Bring its calibration along; one of another model, that this one replaces, goes."""
    calibration = None
    with contextlib.suppress(ModelFileError, ModelMismatchError):
        calibration = model.calibration
    if calibration is not None and calibration.fingerprint == model.fingerprint:
        calibration.save(directory)
    else:
        (directory / CALIBRATION_FILE).unlink(missing_ok=True)


def load_model(directory: Path) -> CompresSAE:
    """Read what `save_model` wrote, on the CPU.

    Raises:
        ModelFileError: nothing is there, or it is truncated, altered, or in a newer format.
    """
    config = _read_config(directory)
    path = directory / Path(str(config["weights"])).name
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ModelFileError(f"can't read the weights of the model at {directory}: {exc}; copy it again") from exc
    if hashlib.sha256(content).hexdigest() != config["sha256"]:
        raise ModelFileError(
            f"{path} is not the file that config.json describes (its SHA-256 differs): it is truncated or altered; "
            "copy the model again"
        )
    try:
        model = CompresSAE(ModelConfig(config["dim"], config["latents"], config["k"]))
        state = load(content)
        if set(state) != set(_TENSORS):
            raise ModelFileError(f"{path} holds tensors {sorted(state)}, expected {sorted(_TENSORS)}")
        model.load_state_dict(state)
    except (SafetensorError, ConfigError, RuntimeError, TypeError) as exc:
        raise ModelFileError(f"{path} doesn't fit its config.json ({exc}); copy the model again") from exc
    if model.fingerprint != config["fingerprint"]:
        raise ModelFileError(
            f"the model at {directory} has fingerprint {model.fingerprint!r} but its config.json says "
            f"{config['fingerprint']!r}; one of its files was altered, copy the model again"
        )
    model.directory = directory
    history = directory / "history.json"
    if history.exists():
        model.history = TrainingHistory.from_json(history.read_bytes(), str(history))
    if (directory / BASELINE_FILE).exists():
        baseline = Baseline.load(directory / BASELINE_FILE)
        # Of another model where a save was interrupted: then there is none.
        model.baseline = baseline if baseline.fingerprint == model.fingerprint else None
    return model.eval()


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ModelFileError(
            f"there is no model at {directory} (no config.json); make one: compressae train CATALOG --out {directory}, "
            "or model.save"
        ) from exc
    except (OSError, ValueError) as exc:
        raise ModelFileError(f"{path} can't be read ({exc}); copy the model again") from exc
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise ModelFileError(
            f"{path} has model format {found!r}, this version reads {_FORMAT}; upgrade compressae-qdrant"
        )
    missing = {"dim", "latents", "k", "fingerprint", "weights", "sha256"} - set(config)
    if missing:
        raise ModelFileError(f"{path} lacks {', '.join(sorted(missing))}; copy the model again")
    return config
