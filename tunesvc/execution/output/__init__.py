"""The output of processes: captured at the file descriptors, and kept in files."""
