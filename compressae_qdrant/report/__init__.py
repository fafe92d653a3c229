"""A report of a compressed catalog: one HTML page to put before a colleague."""

from .build import ReportSettings, build_report

__all__ = ["ReportSettings", "build_report"]
