"""Failpoints and the event log, with which tests observe a running system."""
