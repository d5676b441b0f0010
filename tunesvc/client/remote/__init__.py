"""The client of a server's API: one module per group of operations."""
