"""Small helpers without knowledge of studies: clock, paths, formatting, threads, user."""
