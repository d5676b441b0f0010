"""Layers that every request passes: access and headers, error pages, static files."""
