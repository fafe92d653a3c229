"""A report about a compressed catalog: one self-contained HTML page."""

from .build import ReportSettings, build_report

__all__ = ["ReportSettings", "build_report"]
