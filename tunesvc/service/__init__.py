"""Servers that run the studies of many people on one cluster."""
