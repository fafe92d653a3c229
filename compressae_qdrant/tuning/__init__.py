"""Searching k, h, index datatype, first stage and prefetch for a byte budget or a wanted recall, on a sample."""

from .chart import draw_front
from .measurement import Sample, Served
from .points import Goal, Point, Space, choose, front
from .study import TuneResult, tune

__all__ = ["Goal", "Point", "Sample", "Served", "Space", "TuneResult", "choose", "draw_front", "front", "tune"]
