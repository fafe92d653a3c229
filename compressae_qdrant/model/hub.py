"""Models on the Hugging Face Hub: a repository holds the files of a model's directory, and a model card."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from ..codes import BYTES_PER_NONZERO
from ..errors import ModelFileError
from ..files import write_text
from ..lazy import needs_extra
from .baseline import Baseline
from .calibration import Calibration

if TYPE_CHECKING:
    import torch

__all__ = ["HubModel"]

_FILES: Final = ("*.json", "*.safetensors")
_OUTDATED: Final = ("weights-*.safetensors", "history.json", "training.png", "baseline.safetensors", "calibration.json",
                    "projection.safetensors", "concepts.json")  # fmt: skip
"""Files of a model that was there before; those that the new one has too are replaced anyway."""

_CARD: Final = """---
library_name: compressae-qdrant
tags: [compressae, sparse-autoencoder, embedding-compression, vector-search]
{metadata}---

# CompresSAE model

A k-sparse autoencoder ([CompresSAE](https://arxiv.org/abs/2505.11388)) that compresses embeddings of {source} into
codes.

| | |
|---|---|
| dimensions of an embedding | {dim} ({dense:,} bytes as float32) |
| non-zeros of a code | {k} of {latents:,} ({bytes} bytes as index and value) |
| fingerprint | `{fingerprint}` |
{recall}
Codes can be searched only by the model that made them, and only with embeddings of the same backbone. An index in
Qdrant rounds values and compresses indices: about 100 bytes for each item at 32 non-zeros, 125 at 44.

```sh
pip install 'compressae-qdrant[hub]'
```

```python
from compressae_qdrant import CompresSAE

model = CompresSAE.from_pretrained("{name}")
codes = model.encode(embeddings)
```
"""


class HubModel:
    """Methods of a model that read and write repositories of the Hub. `CompresSAE` has them."""

    if TYPE_CHECKING:
        baseline: Baseline | None

        @property
        def dim(self) -> int: ...
        @property
        def latents(self) -> int: ...
        @property
        def k(self) -> int: ...
        @property
        def fingerprint(self) -> str: ...
        @property
        def calibration(self) -> Calibration | None: ...
        def save(self, directory: str | Path) -> None: ...
        @classmethod
        def load(cls, directory: str | Path, *, device: str | torch.device = "cpu") -> Self: ...

    def save_pretrained(
        self,
        directory: str | Path,
        *,
        name: str | None = None,
        backbone: str | None = None,
        recall: Mapping[str, float] | None = None,
        license: str | None = None,
    ) -> None:
        """Write the model with a model card, README.md, as a repository of the Hub has them.

        Args:
            directory: where to write. `load` and `from_pretrained` read it.
            name: name of the repository, for the card.
            backbone: name of the model that made the embeddings, for the card.
            recall: measured recalls for the card, by what was measured: `{"recall@100 on my catalog": 0.92}`. By
                default those that the model brings, from its calibration or its held-out items.
            license: identifier of the licence, such as "apache-2.0", for the card.
        """
        measured = self._measured_recall() if recall is None else dict(recall)
        metadata = {"base_model": backbone, "license": license}
        card = _CARD.format(
            metadata="".join(f"{key}: {value}\n" for key, value in metadata.items() if value is not None),
            source=f"`{backbone}`" if backbone else "one backbone", dim=self.dim, dense=4 * self.dim, k=self.k,
            latents=self.latents, bytes=BYTES_PER_NONZERO * self.k, fingerprint=self.fingerprint,
            recall="".join(f"| {what} | {value:.3f} |\n" for what, value in measured.items()),
            name=name or "path or name of this model",
        )  # fmt: skip
        self.save(directory)
        write_text(Path(directory) / "README.md", card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | bool | None = None,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a CompresSAE model",
        backbone: str | None = None,
        recall: Mapping[str, float] | None = None,
        license: str | None = None,
    ) -> str:
        """Upload the model with a model card, as one commit. The repository is created unless it exists.

        Args:
            repo_id: "owner/name" of the repository.
            token: see `huggingface_hub`.
            private: whether a new repository is private.
            revision: branch to write to.
            commit_message: first line of the commit.
            backbone: see `save_pretrained`.
            recall: see `save_pretrained`.
            license: see `save_pretrained`.

        Returns:
            The URL of the commit.

        Raises:
            MissingExtraError: huggingface_hub is not installed.
            ModelFileError: the Hub cannot be reached, or refused.
        """
        hub, network_errors = _hub()
        api = hub.HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, name=repo_id, backbone=backbone, recall=recall, license=license)
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                commit = api.upload_folder(
                    repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message,
                    delete_patterns=list(_OUTDATED),
                )  # fmt: skip
            except network_errors as exc:
                raise ModelFileError(
                    f"cannot upload the model to {repo_id!r} ({exc}); check the name, the token and the network"
                ) from exc
        return str(commit.commit_url)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        subfolder: str | None = None,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load a model from a directory, or from a repository of the Hub, which is downloaded and kept in the cache.

        Args:
            name: a directory, or "owner/name".
            subfolder: directory of the model inside it: "2_CompresSAEModule", for example, in a sparse encoder.
            device: device of the model.
            revision: branch, tag or commit.
            token: see `huggingface_hub`.
            cache_dir: directory of the cache.
            local_files_only: do not download anything.

        Raises:
            MissingExtraError: `name` is no directory, and huggingface_hub is not installed.
            ModelFileError: there is no such model, or it is damaged.
        """
        folder = Path(name)
        if not folder.is_dir():
            hub, network_errors = _hub()
            prefix = "" if subfolder is None else f"{subfolder}/"
            try:
                folder = Path(
                    hub.snapshot_download(
                        str(name), revision=revision, token=token, cache_dir=cache_dir,
                        local_files_only=local_files_only, allow_patterns=[prefix + pattern for pattern in _FILES],
                    )
                )  # fmt: skip
            except network_errors as exc:
                raise ModelFileError(
                    f"{str(name)!r} is no directory, and cannot be loaded from the Hub ({exc}); check the name, the "
                    "token and the network"
                ) from exc
        return cls.load(folder if subfolder is None else folder / subfolder, device=device)

    def _measured_recall(self) -> dict[str, float]:
        """Recalls that were measured when the model was calibrated or trained."""
        measured = {}
        if self.calibration is not None and self.calibration.plans:
            best = self.calibration.plans[-1]
            for limit, recall in sorted(best.recall.items()):
                what = f"recall@{limit} on {self.calibration.items:,} items (costliest calibrated plan)"
                measured[what] = recall.mean
        elif self.baseline is not None and self.baseline.pools:
            mean = float(np.nanmean(self.baseline.recalls[-1].astype(np.float64)))
            measured[f"recall@10 among {self.baseline.pools[-1]:,} held-out items"] = mean
        return measured


def _hub() -> tuple[Any, tuple[type[Exception], ...]]:
    """huggingface_hub, and the errors that it raises for names, tokens and the network."""
    with needs_extra("hub", "the Hub", "huggingface_hub"):
        import huggingface_hub
    from httpx import HTTPError

    return huggingface_hub, (OSError, ValueError, HTTPError)
