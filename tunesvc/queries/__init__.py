"""The read side: one set of queries for the command line, the API and the dashboard.

Functions take a `Database` and return frozen rows. Nothing here writes, decides or draws. A function that needs
the models of `search` imports them itself: SciPy takes longer to import than most queries take to answer.
"""
