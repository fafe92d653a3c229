"""CompresSAE: the model that encodes dense embeddings into k-sparse codes and decodes them."""

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

from ..checks import check_choice, check_whole, shown
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
from .hub import HubModel
from .projection import Projection
from .pursuit import ATOMS_PER_STEP, batch_rows
from .storage import StoredModel, read_model, write_model

__all__ = ["CompresSAE"]


class CompresSAE(HubModel, nn.Module):
    """A k-sparse autoencoder with signed codes (CompresSAE, arXiv 2505.11388).

    The encoder computes `e = W_enc x + b_enc` and keeps the k entries of largest |e| with their signs. The decoder
    computes `x_hat = sum_j v_j W_j`; rows of W have unit norm, and there is no decoder bias.

    A new model has random atoms and an encoder with the same weights. Use `train` to fit a model to a catalog.

    Args:
        config: shape of the model.
        seed: random seed of the atoms.
    """

    encoder_weight: nn.Parameter
    """(h, d) W_enc, transposed."""
    encoder_bias: nn.Parameter
    """(h,) b_enc."""
    atoms: nn.Parameter
    """(h, d) W, the dictionary: rows of unit norm."""
    latent_use: Tensor
    """(h,) share of the training items whose code uses each latent; sums to k. Zero before training."""
    latent_magnitude: Tensor
    """(h,) mean |value| of each latent in the codes that use it, at projection scale. One before training."""

    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.history: TrainingHistory | None = None
        self.baseline: Baseline | None = None
        self.directory: Path | None = None
        self._concepts: Concepts | None = None
        self._calibration: Calibration | None = None
        self._projection: Projection | None = None
        self._share: tuple[tuple[str, str, int], float] | None = None
        self._derived: Projection | None = None
        self._navigation_atoms: tuple[tuple[str, int], FloatArray] | None = None
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
        """`sum_j p_j^2`, where p_j is the share of training items that use latent j. Even use gives k^2/h.

        The postings that a search by the query's own code reads grow with it. Zero before training.
        """
        return float(self.latent_use.double().square().sum())

    @property
    def concepts(self) -> Concepts | None:
        """Names and statistics of the latents, or None before `find_concepts` or `compressae concepts` was run.

        They are read from the model's directory at first use.

        Raises:
            ModelFileError: the file is invalid, perhaps after an edit.
            ModelMismatchError: the file belongs to another model.
        """
        if self._concepts is None and self.directory is not None:
            self._concepts = Concepts.load(self.directory, self.fingerprint)
        return self._concepts

    @concepts.setter
    def concepts(self, concepts: Concepts | None) -> None:
        self._concepts = concepts

    @property
    def calibration(self) -> Calibration | None:
        """Recall and cost of query plans, or None before `compressae calibrate` was run.

        It is read from the model's directory at first use.

        Raises:
            ModelFileError: the file is damaged.
            ModelMismatchError: the file belongs to another model.
        """
        if self._calibration is None and self.directory is not None:
            self._calibration = Calibration.load(self.directory, self.fingerprint)
        return self._calibration

    @calibration.setter
    def calibration(self, calibration: Calibration | None) -> None:
        self._calibration = calibration

    @property
    def projection(self) -> Projection:
        """Projection of queries and items to navigation vectors: learned by `train`, or read from the model's directory
        at first use, or else derived from the atoms.

        Raises:
            ModelFileError: the file is damaged.
        """
        if self._projection is None and self.directory is not None:
            self._projection = Projection.load(self.directory, self.fingerprint)
        if self._projection is None:
            return self._derived_projection()
        return self._projection

    @projection.setter
    def projection(self, projection: Projection) -> None:
        self._projection = projection

    def _derived_projection(self) -> Projection:
        cached = self._derived
        if cached is None or cached.fingerprint != f"p-{self.fingerprint}":
            cached = self._derived = Projection.of_dictionary(*self._weighted_atoms(), f"p-{self.fingerprint}")
        return cached

    def _weighted_atoms(self) -> tuple[FloatArray, FloatArray]:
        """(h, d) atoms, and (h,) mean squared value of each latent over all items."""
        use, magnitude = self.latent_use.cpu().numpy(), self.latent_magnitude.cpu().numpy()
        return self.atoms.detach().cpu().numpy(), use * magnitude**2

    @property
    def projection_fingerprint(self) -> str:
        """Fingerprint of the projection: navigation vectors of equal fingerprints can be compared."""
        return self.projection.fingerprint

    @property
    def max_navigation_dim(self) -> int:
        """Most dimensions that navigation vectors of this model can have."""
        return self.projection.max_dim

    def navigation_share(self, dim: int) -> float:
        """How much of an item navigation vectors of so many dimensions hold; see `Projection.share`."""
        key = (self.fingerprint, self.projection.fingerprint, dim)
        if self._share is None or self._share[0] != key:
            self._share = (key, self.projection.share(*self._weighted_atoms(), dim))
        return self._share[1]

    def navigation_vectors(self, codes: SparseCodes, dim: int) -> FloatArray:
        """Navigation vectors of items, from their codes at the scale of the index: (n, dim) float32."""
        projection = self.projection
        key = (projection.fingerprint, dim)
        if self._navigation_atoms is None or self._navigation_atoms[0] != key:
            atoms = self.atoms.detach().cpu().numpy()
            self._navigation_atoms = (key, np.asarray(atoms @ projection.item_map[:dim].T, np.float32))
        return np.asarray(codes.to_csr() @ self._navigation_atoms[1], np.float32)

    @property
    def fingerprint(self) -> str:
        """Short stable hash of the weights and of k. Only codes of equal fingerprints can be compared.

        It consists of `m-` and 12 hexadecimal digits of SHA-256 over (d, h, k) and the little-endian float32 weights.
        """
        weights = (self.atoms, self.encoder_weight, self.encoder_bias)
        # A tensor created in inference mode has no version counter, and nothing trains it.
        versions = tuple((0 if w.is_inference() else w._version, w.data_ptr()) for w in weights)
        if self._fingerprint is None or self._fingerprint[0] != versions:
            digest = hashlib.sha256(repr((self.dim, self.latents, self.k)).encode())
            for weight in weights:
                digest.update(weight.detach().cpu().numpy().astype("<f4").tobytes())
            self._fingerprint = (versions, f"m-{digest.hexdigest()[:12]}")
        return self._fingerprint[1]

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct (n, d) unit-norm embeddings by the encoder and the decoder: (n, d), differentiable."""
        indices, values = signed_topk(torch.addmm(self.encoder_bias, x, self.encoder_weight.t()), self.k)
        return sparse_decode(indices, values, self.atoms)

    def code(
        self, x: Tensor, method: Method = "pursuit", atoms_per_step: int = ATOMS_PER_STEP
    ) -> tuple[Tensor, Tensor]:
        """Encode one batch as tensors on the model's device, with raw values.

        Args:
            x: (n, d) float32, unit norm.
            method: how to encode; see `Method`.
            atoms_per_step: atoms of a pursuit step; see `pursuit.pursue`.

        Returns:
            (n, k) int64 indices, unordered, and (n, k) float32 values. They carry no gradient; use `forward` for
            training.
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
        """Encode embeddings in batches, so that memory beyond the result does not grow with n.

        On a GPU, the next batch is copied to the device while a batch is encoded.

        Args:
            X: (n, d) or (d,) array or memory map of real numbers, whose rows are L2-normalised first; or `UnitRows`.
            method: "pursuit" for the best codes, "refit" or "encoder" for faster encoding; see `Method`.
            atoms_per_step: atoms of a pursuit step. 1 is best and slowest; 4 loses less than 0.003 recall@100.
            scale: scale of the values; see `Scale`. The default ranks best, because a badly reconstructed item has a
                smaller norm and ranks lower.
            batch_size: rows of a batch. The default depends on the device: 256 on a CPU, 16,384 on a GPU.

        Returns:
            The codes; row i belongs to row i of X.

        Raises:
            DimensionError: X does not have the model's number of dimensions.
            InvalidInputError: a row is zero, or holds NaN or an infinite value (the message names the first such row);
                X is empty; or an argument is invalid.
        """
        check_choice("method", method, get_args(Method))
        check_choice("scale", scale, get_args(Scale))
        atoms_per_step = check_whole("atoms_per_step", atoms_per_step, 1)
        if batch_size is not None:
            batch_size = check_whole("batch_size", batch_size, 1)
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
        return SparseCodes._trusted(indices, values, self.latents, scale, self.fingerprint)

    def _coder(self) -> Coder:
        return Coder(self.atoms, self.encoder_weight, self.encoder_bias, self.k)

    @torch.no_grad()
    def decode(self, codes: SparseCodes, *, batch_size: int = 8192) -> FloatArray:
        """Decode codes to their reconstructions `sum_j v_j W_j`.

        Args:
            codes: codes of this model.
            batch_size: codes of a batch.

        Returns:
            (n, d) float32; the scale of the codes determines the norms.

        Raises:
            InvalidInputError: the codes have another number of latents than the model.
            ModelMismatchError: another model made the codes.
        """
        if not isinstance(codes, SparseCodes):
            raise InvalidInputError(f"codes are {shown(codes)}; pass SparseCodes, which `encode` returns")
        batch_size = check_whole("batch_size", batch_size, 1)
        if codes.latents != self.latents:
            raise InvalidInputError(
                f"codes have {codes.latents} latents but model {self.fingerprint!r} has {self.latents}; "
                "decode with the model that encoded them"
            )
        if codes.fingerprint is not None and codes.fingerprint != self.fingerprint:
            raise ModelMismatchError(
                f"the codes were made by model {codes.fingerprint!r}, not by {self.fingerprint!r}; decode with the "
                "model that encoded them"
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
        """Write the model to a directory, with its history, baseline, concepts and calibration if it has them.

        After a crash, the directory holds the old model or the new one. See `model.storage` for the format.
        """
        calibration = None
        with contextlib.suppress(ModelFileError, ModelMismatchError):
            calibration = self.calibration
        stored = StoredModel(
            self.config, self.fingerprint, self.state_dict(), self.history, self.baseline, self.concepts,
            None if self.projection.source == "dictionary" else self.projection, calibration,
        )  # fmt: skip
        write_model(stored, Path(directory))

    @classmethod
    def load(cls, directory: str | Path, *, device: str | torch.device = "cpu") -> CompresSAE:
        """Read a model written by `save`.

        Raises:
            ModelFileError: there is no model, or it is truncated or altered or has a newer format.
        """
        path = Path(directory)
        stored = read_model(path)
        model = cls(stored.config)
        try:
            model.load_state_dict(dict(stored.state))
        except RuntimeError as exc:
            raise ModelFileError(
                f"the weights file of the model at {path} does not match its config.json ({exc}); copy the model again"
            ) from exc
        if model.fingerprint != stored.fingerprint:
            raise ModelFileError(
                f"the model at {path} has fingerprint {model.fingerprint!r} but its config.json says "
                f"{stored.fingerprint!r}; one of the files was altered; copy the model again"
            )
        model.directory = path
        model.history, model.baseline = stored.history, stored.baseline
        return model.eval().to(device)

    @torch.no_grad()
    def with_k(self, k: int, items: npt.ArrayLike) -> CompresSAE:
        """Create a model with the same atoms and encoder and another number of non-zeros.

        One training thus serves indexes of several sizes. Codes with more non-zeros than in training rank as well as
        those of a model trained for them. Codes with half as many lose 0.005 recall@100 (EXPERIMENTS.md), which
        training for that k avoids. The encoder (`method="encoder"`) remains fitted to the old k.

        Args:
            k: non-zeros of a code, at most h.
            items: (n, d) embeddings from the catalog, from whose codes the statistics of the latents are computed;
                20,000 are enough.

        Returns:
            A model with a fingerprint of its own. An index cannot mix codes of the two models.

        Raises:
            ConfigError: k is out of range.
            DimensionError, InvalidInputError: the items are invalid.
        """
        model = CompresSAE(ModelConfig(self.dim, self.latents, k)).to(self.atoms.device)
        model.load_state_dict(self.state_dict())
        model.measure_latents(model.encode(items))
        if self.projection.source != "dictionary":
            model.projection = self.projection
        if self.history is not None:
            note = f"k={k} was set after training with k={self.k}"
            model.history = replace(self.history, notes=[*self.history.notes, note])
        return model.eval()

    @torch.no_grad()
    def measure_latents(self, codes: SparseCodes) -> None:
        """Compute the statistics of the latents (`latent_use`, `latent_magnitude`) from codes at projection scale."""
        flat = codes.indices.reshape(-1)
        counts = np.bincount(flat, minlength=self.latents)
        strength = np.bincount(flat, np.abs(codes.values).reshape(-1), minlength=self.latents)
        self.latent_use.copy_(torch.from_numpy(counts / len(codes)))
        self.latent_magnitude.copy_(torch.from_numpy(strength / np.maximum(counts, 1)))

    def extra_repr(self) -> str:
        """Return shape and fingerprint, for `repr`."""
        return f"dim={self.dim}, latents={self.latents}, k={self.k}, fingerprint={self.fingerprint!r}"
