"""The tree-structured Parzen estimator, kept up to date incrementally."""
