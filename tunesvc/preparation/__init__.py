"""Preparation of a study's data: read, split, fitted, described and stored once per version."""
