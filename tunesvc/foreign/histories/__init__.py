"""Histories of other tuners, from the folders that they write: trials with their curves.

`ray_experiment` and `ray_trial` read, `tried_space` derives a space from what was tried, and
`imported_history` stores all of it through Optuna's storage, as `optuna.copy_study` does.
"""
