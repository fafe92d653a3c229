"""CompresSAE: the encoder and the dictionary that turn dense embeddings into k-sparse codes and back."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..codes import FloatArray, Scale, SparseCodes
from ..errors import InvalidInputError, ModelFileError, ModelMismatchError
from ..kernels import signed_topk, sparse_decode
from ..vectors import UnitRows, check_embeddings
from .baseline import Baseline
from .calibration import Calibration
from .concepts import Concepts
from .config import Method, ModelConfig
from .encoder import Coder, encode_rows
from .history import TrainingHistory
from .pursuit import ATOMS_PER_STEP, batch_rows
from .storage import StoredModel, read_model, write_model

__all__ = ["CompresSAE"]


class CompresSAE(nn.Module):
    """A k-sparse autoencoder with signed codes (CompresSAE, arXiv 2505.11388).

    `e = W_enc x + b_enc`; the code keeps the k entries of largest |e| with their signs; `x_hat = sum_j v_j W_j`. Rows
    of the decoder W have unit norm, and there is no decoder bias.

    A new model has random atoms and an encoder tied to them; `train` gives one that fits a catalog.
    """

    encoder_weight: nn.Parameter
    """(h, d) W_enc, transposed."""
    encoder_bias: nn.Parameter
    """(h,) b_enc."""
    atoms: nn.Parameter
    """(h, d) W: the dictionary, unit-norm rows."""
    latent_use: Tensor
    """(h,) share of the training items whose code uses each latent; sums to k. Zero until trained."""
    latent_magnitude: Tensor
    """(h,) mean |value| of each latent in the codes that use it, at projection scale. One until trained."""

    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.history: TrainingHistory | None = None
        self.baseline: Baseline | None = None
        self.directory: Path | None = None
        self._concepts: Concepts | None = None
        self._calibration: Calibration | None = None
        generator = torch.Generator().manual_seed(seed)
        atoms = normalize(torch.randn(config.latents, config.dim, generator=generator), dim=1)
        self.atoms = nn.Parameter(atoms)
        self.encoder_weight = nn.Parameter(atoms.clone())
        self.encoder_bias = nn.Parameter(torch.zeros(config.latents))
        self.register_buffer("latent_use", torch.zeros(config.latents))
        self.register_buffer("latent_magnitude", torch.ones(config.latents))
        self._fingerprint: tuple[tuple[tuple[int, int], ...], str] | None = None

    @property
    def dim(self) -> int:
        """d: dimensions of the dense embeddings."""
        return self.config.dim

    @property
    def latents(self) -> int:
        """h: atoms in the dictionary."""
        return self.config.latents

    @property
    def k(self) -> int:
        """Non-zeros of a code."""
        return self.config.k

    @property
    def posting_mass(self) -> float:
        """`sum_j p_j^2` over the training items, p_j the share that uses latent j. Even use would give k^2/h; the
        postings that a query of one code walks grow with it. Zero until trained."""
        return float(self.latent_use.double().square().sum())

    @property
    def concepts(self) -> Concepts | None:
        """What its latents stand for, where `find_concepts` or `compressae concepts` has been run: read from the
        directory that the model came from at first use.

        Raises:
            ModelFileError: the file was damaged by an edit.
            ModelMismatchError: it is of another model.
        """
        if self._concepts is None and self.directory is not None:
            self._concepts = Concepts.load(self.directory, self.fingerprint)
        return self._concepts

    @concepts.setter
    def concepts(self, concepts: Concepts | None) -> None:
        self._concepts = concepts

    @property
    def calibration(self) -> Calibration | None:
        """What its query plans find and cost, where `compressae calibrate` has been run: read from the directory that
        the model came from at first use.

        Raises:
            ModelFileError: the file is damaged.
            ModelMismatchError: it is of another model.
        """
        if self._calibration is None and self.directory is not None:
            self._calibration = Calibration.load(self.directory, self.fingerprint)
        return self._calibration

    @calibration.setter
    def calibration(self, calibration: Calibration | None) -> None:
        self._calibration = calibration

    @property
    def fingerprint(self) -> str:
        """Short stable hash of the weights and of k: codes of equal fingerprints can be compared.

        `m-` and 12 hexadecimal digits of SHA-256 over (d, h, k) and the little-endian float32 weights.
        """
        weights = (self.atoms, self.encoder_weight, self.encoder_bias)
        # A tensor made in inference mode counts no versions; nothing trains it either.
        versions = tuple((0 if w.is_inference() else w._version, w.data_ptr()) for w in weights)
        if self._fingerprint is None or self._fingerprint[0] != versions:
            digest = hashlib.sha256(repr((self.dim, self.latents, self.k)).encode())
            for weight in weights:
                digest.update(weight.detach().cpu().numpy().astype("<f4").tobytes())
            self._fingerprint = (versions, f"m-{digest.hexdigest()[:12]}")
        return self._fingerprint[1]

    def forward(self, x: Tensor) -> Tensor:
        """The autoencoder itself: (n, d) unit-norm embeddings to their (n, d) reconstructions."""
        indices, values = signed_topk(torch.addmm(self.encoder_bias, x, self.encoder_weight.t()), self.k)
        return sparse_decode(indices, values, self.atoms)

    def code(
        self, x: Tensor, method: Method = "pursuit", atoms_per_step: int = ATOMS_PER_STEP
    ) -> tuple[Tensor, Tensor]:
        """Codes of one batch as tensors, on the model's device, values undivided ("raw").

        Args:
            x: (n, d) float32, unit norm.
            method: see `Method`.
            atoms_per_step: pursuit only; see `pursuit.pursue`.

        Returns:
            (n, k) int64 indices, in no order, and (n, k) float32 values. No gradient flows through them: that is what
            `forward` is for.
        """
        return self._coder().code(x, method, atoms_per_step)

    @torch.no_grad()
    def encode(
        self,
        X: npt.ArrayLike | UnitRows,
        method: Method = "pursuit",
        *,
        atoms_per_step: int = ATOMS_PER_STEP,
        scale: Scale = "projection",
        batch_size: int | None = None,
    ) -> SparseCodes:
        """Codes of embeddings, in batches, so that memory beyond the result doesn't grow with n. On a GPU the rows of
        the next batch are on their way while one is coded.

        Args:
            X: (n, d) or (d,) real numbers, an array or a memory map of any float type, whose rows are L2-normalised
                here; or `UnitRows`, which are normalised already.
            method: "pursuit" for the best codes, "refit" or "encoder" for the fastest; see `Method`.
            atoms_per_step: of pursuit; 1 is the best and slowest, 4 as good to 0.003 recall@100.
            scale: of the values, see `Scale`. The default ranks best: an item that is reconstructed badly is trusted
                less, instead of being stretched to the norm of the others.
            batch_size: rows at once; None takes what suits the device, 512 on a CPU and 16,384 on a GPU.

        Returns:
            The codes, row i of X at row i.

        Raises:
            DimensionError: X has another number of dimensions than the model.
            InvalidInputError: a row is zero, NaN or infinite (named), X is empty, or a setting is unknown.
        """
        if method not in get_args(Method):
            raise InvalidInputError(f"method is {method!r}; it must be one of {', '.join(get_args(Method))}")
        if scale not in get_args(Scale):
            raise InvalidInputError(f"scale is {scale!r}; it must be one of {', '.join(get_args(Scale))}")
        if atoms_per_step < 1 or (batch_size is not None and batch_size < 1):
            raise InvalidInputError(f"atoms_per_step={atoms_per_step}, batch_size={batch_size}; both must be >= 1")
        whose = f"model {self.fingerprint!r}"
        rows: npt.NDArray[np.floating] | UnitRows
        if isinstance(X, UnitRows):
            check_embeddings(X.rows, self.dim, whose)
            rows = X
        else:
            rows = check_embeddings(X, self.dim, whose)
        coder = self._coder()

        def code(x: Tensor) -> tuple[Tensor, Tensor]:
            support, raw = coder.code(x, method, atoms_per_step)
            return support, raw * coder.factor(x, support, raw, scale)

        device = self.atoms.device
        indices, values = encode_rows(
            X if isinstance(X, UnitRows) else rows, code, self.k, batch_size or batch_rows(device), device
        )
        return SparseCodes._trusted(indices, values, self.latents, scale)

    def _coder(self) -> Coder:
        return Coder(self.atoms, self.encoder_weight, self.encoder_bias, self.k)

    @torch.no_grad()
    def decode(self, codes: SparseCodes, *, batch_size: int = 8192) -> FloatArray:
        """Reconstructions `sum_j v_j W_j` of codes: (n, d) float32, with the norm that the codes' scale gives.

        Raises:
            InvalidInputError: the codes are over another number of latents.
        """
        if codes.latents != self.latents:
            raise InvalidInputError(
                f"codes are over {codes.latents} latents but model {self.fingerprint!r} has {self.latents}; "
                "decode with the model that encoded them"
            )
        decoded = np.empty((len(codes), self.dim), np.float32)
        device = self.atoms.device
        for start in range(0, len(codes), batch_size):
            part = codes[start : start + batch_size]
            indices = torch.from_numpy(part.indices.astype(np.int64)).to(device)
            values = torch.from_numpy(part.values).to(device)
            decoded[start : start + len(part)] = sparse_decode(indices, values, self.atoms).cpu().numpy()
        return decoded

    def save(self, directory: str | Path) -> None:
        """Write the model to a directory: config.json, a safetensors file, its training history and baseline if any.

        A crash leaves the old model or the new one, never a mixture. See `model_files` for the format.
        """
        calibration = None
        with contextlib.suppress(ModelFileError, ModelMismatchError):
            calibration = self.calibration
        stored = StoredModel(
            self.config, self.fingerprint, self.state_dict(), self.history, self.baseline, self.concepts, calibration
        )
        write_model(stored, Path(directory))

    @classmethod
    def load(cls, directory: str | Path, *, device: str | torch.device = "cpu") -> CompresSAE:
        """Read a model written by `save`.

        Raises:
            ModelFileError: nothing is there, or it is truncated, altered, or in a newer format.
        """
        path = Path(directory)
        stored = read_model(path)
        model = cls(stored.config)
        try:
            model.load_state_dict(dict(stored.state))
        except RuntimeError as exc:
            raise ModelFileError(
                f"the weights file of the model at {path} doesn't fit its config.json ({exc}); copy the model again"
            ) from exc
        if model.fingerprint != stored.fingerprint:
            raise ModelFileError(
                f"the model at {path} has fingerprint {model.fingerprint!r} but its config.json says "
                f"{stored.fingerprint!r}; one of its files was altered, copy the model again"
            )
        model.directory = path
        model.history, model.baseline = stored.history, stored.baseline
        return model.eval().to(device)

    @torch.no_grad()
    def with_k(self, k: int, items: npt.ArrayLike) -> CompresSAE:
        """A model with the same atoms and encoder whose codes have another number of non-zeros.

        One training serves several sizes of index. Codes of more non-zeros than the atoms were trained for rank as well
        as codes on atoms trained for that many; codes of half as many lose 0.005 recall@100 (EXPERIMENTS.md), which a
        training of their own avoids. The encoder alone (`method="encoder"`) was fitted to the old k.

        Args:
            k: non-zeros of a code, at most h.
            items: (n, d) embeddings of the catalog; their codes give the new model the statistics of its latents, for
                which 20,000 are plenty.

        Returns:
            A model with its own fingerprint. Codes of the two can't be in one index.

        Raises:
            ConfigError: k is out of range.
            DimensionError, InvalidInputError: the items are unusable.
        """
        model = CompresSAE(ModelConfig(self.dim, self.latents, k)).to(self.atoms.device)
        model.load_state_dict(self.state_dict())
        model.measure_latents(model.encode(items))
        if self.history is not None:
            note = f"k={k} was chosen after a training with k={self.k}"
            model.history = replace(self.history, notes=[*self.history.notes, note])
        return model.eval()

    @torch.no_grad()
    def measure_latents(self, codes: SparseCodes) -> None:
        """Replace the statistics of the latents by those of some items' codes at projection scale."""
        flat = codes.indices.reshape(-1)
        counts = np.bincount(flat, minlength=self.latents)
        strength = np.bincount(flat, np.abs(codes.values).reshape(-1), minlength=self.latents)
        self.latent_use.copy_(torch.from_numpy(counts / len(codes)))
        self.latent_magnitude.copy_(torch.from_numpy(strength / np.maximum(counts, 1)))

    def extra_repr(self) -> str:
        """Shape and fingerprint, for `repr`."""
        return f"dim={self.dim}, latents={self.latents}, k={self.k}, fingerprint={self.fingerprint!r}"
