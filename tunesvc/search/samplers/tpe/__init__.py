"""The tree-structured Parzen estimator, updated incrementally."""
