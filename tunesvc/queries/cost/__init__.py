"""A study's spending, and the cost and gain of further trials."""
