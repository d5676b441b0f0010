"""Launches that agents take, and the events that they send: the two sides of one queue."""
