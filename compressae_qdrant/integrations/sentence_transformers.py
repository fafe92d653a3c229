"""A model as the last module of a sentence-transformers SparseEncoder: documents become codes, queries become `W x_q`.

The dot product of the two sides estimates the cosine of the dense embeddings. The codes of two texts must not be
compared with each other: their dot product ranks far worse. So use `encode_query` for queries and `encode_document`
for documents, and not `encode`.
"""

from __future__ import annotations

import json
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import ConfigError, DimensionError, ModelFileError
from ..lazy import needs_extra
from ..model.compressae import CompresSAE

with needs_extra("text", "a SparseEncoder", "sentence-transformers 5.4 or newer"):
    from sentence_transformers import SentenceTransformer, SparseEncoder
    from sentence_transformers.base.modules import Module

__all__ = ["CompresSAEModule", "Side", "load_sparse_encoder", "save_sparse_encoder", "sparse_encoder"]

Side = Literal["document", "query"]
"""What a text is embedded as: `document` gives a code of k latents, `query` a value for every latent."""

_CARD: Final = """---
library_name: sentence-transformers
tags: [sentence-transformers, sparse-encoder, sparse, compressae]
pipeline_tag: feature-extraction
---

# Sparse encoder with CompresSAE codes

Documents are encoded into {k} of {latents:,} latents, {bytes} bytes each as index and value, instead of {dense:,} bytes
of {dim} float32 dimensions. The dot product of a query and a document estimates the cosine of their dense embeddings.
Fingerprint of the codes: `{fingerprint}`.

```sh
pip install 'compressae-qdrant[text]'
```

```python
from compressae_qdrant.integrations.sentence_transformers import load_sparse_encoder

encoder = load_sparse_encoder("path or name of this model")
queries = encoder.encode_query(["text editor"])
documents = encoder.encode_document(["a text editor for programmers", "a board game"])
scores = encoder.similarity(queries, documents)
```

Use `encode_query` and `encode_document`: two documents' codes must not be compared with each other.
`SparseEncoder(path, trust_remote_code=True)` loads the model too, with compressae-qdrant installed.
"""


class CompresSAEModule(Module):
    """The module that replaces a dense sentence embedding by its code, or by the query vector `W x_q`.

    The weights stay in float32 whatever the precision of the backbone, and are not trained with it: use
    `compressae_qdrant.train`.

    Args:
        model: the model, with the dimension of the embeddings that the modules before it compute.
        default_side: what texts are embedded as if the caller says neither query nor document, as `encode` does. None
            means documents, with a warning.
    """

    config_file_name: str = "sentence_transformers_module.json"
    config_keys: list[str] = ["default_side"]  # noqa: RUF012 (declared so by the base)
    forward_kwargs: set[str] = {"task"}  # noqa: RUF012 (declared so by the base)

    coder: CompresSAE
    """The model. It is not registered as a submodule, because sentence-transformers casts all of those."""

    def __init__(self, model: CompresSAE, default_side: Side | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the base's arguments have no types
        if default_side not in (None, *get_args(Side)):
            raise ConfigError(f"default_side is {default_side!r}; it must be document, query or None")
        self.default_side = default_side
        self.__dict__["coder"] = model
        self._has_warned = False

    def forward(
        self,
        features: dict[str, Tensor | Any],
        task: str | None = None,
        **kwargs: Any,  # noqa: ARG002 (the base's)
    ) -> dict[str, Tensor | Any]:
        """Replace `sentence_embedding` (b, d) by (b, h) float32.

        Raises:
            DimensionError: the embeddings have another number of dimensions than the model.
            InvalidInputError: a document's embedding is zero, NaN or infinite.
            ConfigError: a gradient is required, which codes do not have.
        """
        x: Tensor = features["sentence_embedding"]
        if x.shape[-1] != self.coder.dim:
            raise DimensionError(
                f"the sentence embeddings have {x.shape[-1]} dimensions but model {self.coder.fingerprint!r} encodes "
                f"{self.coder.dim}; put it behind its own backbone"
            )
        if x.requires_grad and torch.is_grad_enabled():
            raise ConfigError("codes have no gradient, so a backbone can't be trained through them; train it before")
        if self.coder.atoms.device != x.device:
            self.coder.to(x.device)
        is_query = (task or self._side_without_task()) == "query"
        features["sentence_embedding"] = self._query_vectors(x) if is_query else self._codes(x)
        return features

    def get_embedding_dimension(self) -> int:
        """h: number of latents."""
        return self.coder.latents

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 (the signature is the base's)
        """Write the directory of the model, as `CompresSAE.save` does, and the settings of this module."""
        self.coder.save(output_path)
        self.save_config(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **kwargs: Any,  # noqa: ARG003 (the base's)
    ) -> Self:
        """Read what `save` wrote, from a directory or the hub.

        Raises:
            ModelFileError: there is no model, or it is damaged.
        """
        where = (model_name_or_path, subfolder)
        directory = cls.load_dir_path(*where, token, cache_folder, revision, local_files_only)
        if directory is None:
            raise ModelFileError(f"{model_name_or_path} has no directory {subfolder!r}; save the encoder again")
        config = cls.load_config(*where, None, token, cache_folder, revision, local_files_only)
        return cls(CompresSAE.load(directory), **{**(init_defaults or {}), **config})

    def on_model_ready(self, model: Any) -> None:
        """Tag the card of the whole encoder, and keep its writing offline."""
        model.model_card_data.add_tags(["compressae"])
        model.model_card_data.local_files_only = True

    def extra_repr(self) -> str:
        """The model and the default side, for `repr`."""
        return f"{self.coder.extra_repr()}, default_side={self.default_side!r}"

    def _side_without_task(self) -> Side:
        if self.default_side is None and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                "encode() was called without saying whether the texts are queries or documents; they are encoded as "
                "documents. Codes of documents must not be compared with each other: use encode_query for queries and "
                "encode_document for documents, or set default_side",
                UserWarning, stacklevel=3,
            )  # fmt: skip
        return self.default_side or "document"

    def _codes(self, x: Tensor) -> Tensor:
        codes = self.coder.encode(x.detach().float().cpu().numpy())
        dense = torch.zeros(len(codes), self.coder.latents)
        dense.scatter_(1, torch.from_numpy(codes.indices).long(), torch.from_numpy(codes.values))
        return dense.to(x.device)

    def _query_vectors(self, x: Tensor) -> Tensor:
        return normalize(x.detach().float(), dim=-1) @ self.coder.atoms.detach().t()


def sparse_encoder(
    backbone: SentenceTransformer | str, model: CompresSAE, *, default_side: Side | None = None
) -> SparseEncoder:
    """A SparseEncoder of a dense model and the CompresSAE model that was trained on its embeddings.

    Args:
        backbone: a loaded `SentenceTransformer`, or the name or directory of one. Its prompts are taken over.
        model: see `CompresSAEModule`.
        default_side: see `CompresSAEModule`. Give "query" to an encoder whose caller can only call `encode`.

    Raises:
        DimensionError: the backbone's embeddings have another number of dimensions than the model.
    """
    loaded = SentenceTransformer(backbone) if isinstance(backbone, str) else backbone
    dim = loaded.get_embedding_dimension()
    if dim != model.dim:
        raise DimensionError(
            f"the backbone embeds texts in {dim} dimensions but model {model.fingerprint!r} encodes {model.dim}; use "
            "the backbone whose embeddings the model was trained on"
        )
    return SparseEncoder(
        modules=[*loaded, CompresSAEModule(model, default_side)],
        prompts={name: prompt or "" for name, prompt in loaded.prompts.items()},
        default_prompt_name=loaded.default_prompt_name, similarity_fn_name="dot", device=str(loaded.device),
    )  # fmt: skip


def save_sparse_encoder(encoder: SparseEncoder, directory: str | Path) -> None:
    """Save an encoder in the layout of sentence-transformers, with a model card that tells how to load it.

    Raises:
        ConfigError: the last module of the encoder is not a `CompresSAEModule`.
    """
    last = encoder[-1]
    if not isinstance(last, CompresSAEModule):
        raise ConfigError(f"the last module of the encoder is a {type(last).__name__}, expected a CompresSAEModule")
    encoder.save(str(directory), create_model_card=False)
    coder = last.coder
    card = _CARD.format(
        k=coder.k, latents=coder.latents, dim=coder.dim, dense=4 * coder.dim, bytes=8 * coder.k,
        fingerprint=coder.fingerprint,
    )  # fmt: skip
    (Path(directory) / "README.md").write_text(card, encoding="utf-8")


def load_sparse_encoder(
    path: str | Path,
    *,
    device: str | None = None,
    token: str | bool | None = None,
    cache_folder: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> SparseEncoder:
    """Load an encoder with a `CompresSAEModule`, without `trust_remote_code`.

    `SparseEncoder(path)` refuses modules that are not its own unless it may also run any code that comes with the
    model. This function runs only modules of sentence-transformers and of this package.

    Args:
        path: directory, or name on the hub.
        device: device of the encoder; None lets sentence-transformers choose.
        token: see `SparseEncoder`.
        cache_folder: see `SparseEncoder`.
        revision: see `SparseEncoder`.
        local_files_only: do not download anything.

    Raises:
        ModelFileError: there is no encoder, or it has modules of other packages.
    """
    hub = {
        "token": token, "cache_folder": cache_folder, "revision": revision, "local_files_only": local_files_only,
    }  # fmt: skip
    modules = []
    for entry in _read_json(str(path), "modules.json", hub):
        package, _, name = str(entry["type"]).rpartition(".")
        if package != __name__ and package.partition(".")[0] != "sentence_transformers":
            raise ModelFileError(
                f"{path} has a module {entry['type']!r}, which is neither of sentence-transformers nor of this "
                "package; load it by SparseEncoder(path, trust_remote_code=True) if you trust its code"
            )
        modules.append(getattr(import_module(package), name).load(str(path), subfolder=entry["path"], **hub))
    config = _read_json(str(path), "config_sentence_transformers.json", hub)
    return SparseEncoder(
        modules=modules, device=device, prompts=config.get("prompts"), max_active_dims=config.get("max_active_dims"),
        default_prompt_name=config.get("default_prompt_name"), similarity_fn_name=config.get("similarity_fn_name"),
    )  # fmt: skip


def _read_json(path: str, name: str, hub: dict[str, Any]) -> Any:
    file = Module.load_file_path(path, name, **hub)
    if file is None:
        raise ModelFileError(f"there is no sparse encoder at {path} (no {name}); make one by save_sparse_encoder")
    return json.loads(Path(file).read_text(encoding="utf-8"))
