"""Queries about the running system: cluster, leases, requests, timeline of attempts."""
