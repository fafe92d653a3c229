"""Training: embeddings in, a model out. `loop` reads from top to bottom; the rest is what it is made of."""

from .config import TrainConfig
from .loop import train

__all__ = ["TrainConfig", "train"]
