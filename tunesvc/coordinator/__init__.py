"""The loop that runs a study: one writer, one step at a time."""
