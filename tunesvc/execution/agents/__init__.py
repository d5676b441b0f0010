"""Workers that are not Ray's: an executor whose workers are agents behind HTTP."""
