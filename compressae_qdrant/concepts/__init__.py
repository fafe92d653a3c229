"""Concepts: names for latents, computed from a catalog, stored with the model and editable by hand."""

from ..model.concepts import Concept, Concepts, StrongItem
from .finder import find_concepts
from .names import Namer

__all__ = ["Concept", "Concepts", "Namer", "StrongItem", "find_concepts"]
