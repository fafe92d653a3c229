"""What latents stand for: concepts with names, found on a catalog, stored with the model, edited by hand."""

from ..model.concepts import Concept, Concepts, StrongItem
from .finder import find_concepts
from .names import Namer

__all__ = ["Concept", "Concepts", "Namer", "StrongItem", "find_concepts"]
