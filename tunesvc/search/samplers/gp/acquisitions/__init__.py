"""The value of one more trial at a point, and the regions in which it is maximised."""
