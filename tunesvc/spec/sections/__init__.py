"""Sections of a study's spec, one module for each subject."""
