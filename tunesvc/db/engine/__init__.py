"""Connections: timeouts, prepared statements, autocommit, errors, JSON numbers."""
