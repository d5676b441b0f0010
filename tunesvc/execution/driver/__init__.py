"""The driver process, which owns the connection to Ray, and its supervisor."""
