"""Submitting a study from a browser: its folder, or an archive of it."""
