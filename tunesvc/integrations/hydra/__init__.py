"""Hydra's sweeper `tunesvc`: `hydra/sweeper: tunesvc` makes a multirun a study.

Hydra finds plugins in the package `hydra_plugins` only: the wheel has `sweeper_plugin.py` there, as
`hydra_plugins/tunesvc_sweeper.py`, which pyproject.toml says.
"""
