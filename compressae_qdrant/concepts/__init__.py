"""What latents stand for: concepts with names, found on a catalog, stored with the model, edited by hand."""

from .concept import Concept, Concepts, StrongItem
from .finding import find_concepts
from .naming import Namer

__all__ = ["Concept", "Concepts", "Namer", "StrongItem", "find_concepts"]
