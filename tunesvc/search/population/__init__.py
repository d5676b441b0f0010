"""Population-based training: the moves of members, and the samplers of their parameters."""
