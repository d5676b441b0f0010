"""A worker's process: its protocol with the driver, fencing, garbage collection."""
