"""Keys of attributes that Optuna shares with other processes. Imports no Optuna."""

from __future__ import annotations

METRIC_NAMES = "study:metric_names"
"""A study's system attribute: names of its objectives. `Study.set_metric_names` is experimental,
and writes to the storage, which would record them again."""
FIXED_PARAMS = "fixed_params"
"""System attribute of an enqueued trial: its values. `Study.enqueue_trial` returns no number."""
CONSTRAINT = "constraints:"
"""Prefix of a trial's system attributes for its constraints. Optuna's trials have methods to set
and to read them, but they are stored under this key."""
OLD_CONSTRAINTS = "constraints"
"""System attribute of a trial: list that older versions of Optuna wrote."""
RELATIVE_PARAMS = "tpe:relative_params"
"""Prefix of the system attributes by which TPE shares a running trial's parameters with other
processes before they are set."""
