"""Training of a model on the embeddings of a catalog. `loop` is the training; the other modules are its parts."""

from .config import TrainConfig
from .loop import train

__all__ = ["TrainConfig", "train"]
