"""The search space: parameters, conditions, distributions, and the number of configurations."""
