"""Trials as files and data frames."""
