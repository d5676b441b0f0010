"""Small helpers that know nothing of studies: the clock, paths, text formatting, threads, the current user."""
