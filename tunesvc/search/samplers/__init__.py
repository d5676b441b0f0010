"""Samplers of our own: the automatic choice, and one that imputes the results of running trials."""
