"""The read side: one set of queries for the command line, the API and the dashboard.

Functions take a `Database` and return frozen rows. They write nothing, make no decisions and render
nothing. A function that needs the models of `search` imports them itself: importing SciPy takes
longer than most queries.
"""
