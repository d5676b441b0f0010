"""Prepared data as a trial reads it. `tunesvc.preparation` makes it."""
