"""The space as a box, and the model: a Gaussian process of each objective and constraint."""
