"""Stages of a study after its search: on the test part, and on all data."""
