"""Failpoints and the event log, by which tests look into a running system."""
