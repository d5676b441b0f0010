"""Gaussian-process search: the space as a box, the model, the acquisition, and the sampler."""
