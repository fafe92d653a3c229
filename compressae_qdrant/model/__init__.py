"""The model: encodes embeddings into codes, decodes them, and stores what belongs to a model beside it.

Names are imported when they are first used, so that `model.config` can be read without loading torch.
"""

from typing import TYPE_CHECKING

from ..lazy import lazy_exports

if TYPE_CHECKING:
    from .compressae import CompresSAE
    from .config import Method, ModelConfig
else:
    __getattr__, __dir__ = lazy_exports(
        __name__, {"CompresSAE": "compressae", "Method": "config", "ModelConfig": "config"}
    )

__all__ = ["CompresSAE", "Method", "ModelConfig"]
