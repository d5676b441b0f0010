"""Text views of studies for terminals, pipes and notebooks, shared by the command line and the
Python API."""
