"""Stand-ins for tests and benchmarks: a simulated executor and a virtual clock."""
