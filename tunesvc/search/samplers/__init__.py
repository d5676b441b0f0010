"""Samplers of our own: an automatic choice, Gaussian process, TPE, and imputed pruned trials."""
