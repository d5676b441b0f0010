"""Studies from the files and objects of other tuners: `tune import`.

`foreign_study` recognises a format and makes a study of it; `formats` has one module for each.
All describe parameters through `dimensions` and note in a `Draft` what they cannot carry.
"""
