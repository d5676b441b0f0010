"""Drift between two samples of a table: tests by column, and a report on a whole version. Pure.

Works on Arrow and NumPy. Imports nothing of tunesvc.
"""
