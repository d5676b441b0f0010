"""Samplers and pruners by the names of study.yaml, with their options and checks."""
