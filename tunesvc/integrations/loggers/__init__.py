"""Loggers: they send the trials of a study to trackers. Nothing is imported until one is named."""
