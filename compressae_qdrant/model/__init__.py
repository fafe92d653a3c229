"""The model: an embedding becomes a code here, and what is stored with a model is read and written."""

from .compressae import CompresSAE
from .config import ModelConfig
from .encoder import Method

__all__ = ["CompresSAE", "Method", "ModelConfig"]
