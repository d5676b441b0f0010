"""State of a study, updated as its trials finish: history, scale, objectives, pauses."""
