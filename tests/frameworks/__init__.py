"""Integrations with heavy frameworks, and studies of each framework on real workers: `pytest -m frameworks`."""
