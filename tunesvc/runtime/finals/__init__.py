"""Final runs: a study's recommended configuration on its test part, and trained on all data."""
