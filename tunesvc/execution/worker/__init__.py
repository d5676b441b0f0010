"""A worker's process: its protocol with the executor, fencing, garbage collection."""
