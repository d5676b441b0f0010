"""Report of a study as one page: a first page in plain words, then everything for its authors."""

from tunesvc.charts.report.study_report import report

__all__ = ["report"]
