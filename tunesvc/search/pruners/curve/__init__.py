"""The learning-curve pruner: a model of final values from partial curves, and its decisions."""
