"""Scores fitted models by scikit-learn's scorers. The worker loads it; imports no Ray."""
