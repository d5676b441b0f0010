"""The client on an open database: one module per group of operations."""
