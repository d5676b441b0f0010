"""Gaussian-process search: the sampler, on a model and an acquisition."""
