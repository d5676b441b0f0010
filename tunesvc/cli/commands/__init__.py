"""The commands of `tune`, one module for each group."""
