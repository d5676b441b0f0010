"""Gaussian-process search: the space as a box, the model, what to try next, and the sampler that puts them together."""
