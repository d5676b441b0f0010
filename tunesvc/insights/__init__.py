"""The read side: one set of queries for the command line, the API and the dashboard.

Functions take a `Database` and return frozen rows. Nothing here writes, decides or draws.
"""

from tunesvc.insights.answer import answer_rows, forecast, recommended
from tunesvc.insights.audit import Audit, audit
from tunesvc.insights.diagnosis import Diagnosis, diagnosis
from tunesvc.insights.explanation import Explanation, explain_study, explain_trial
from tunesvc.insights.frame import dataframe, value_columns
from tunesvc.insights.history import attempts, curve, curves, decisions, logs
from tunesvc.insights.overview import labels, studies, study, study_by_id, study_names
from tunesvc.insights.pulse import fingerprint, pulse
from tunesvc.insights.replay import Replayed, replay, replay_pruner, replay_sampler
from tunesvc.insights.requests import requests
from tunesvc.insights.rows import (
    AttemptRow,
    Counts,
    Curve,
    DecisionRow,
    Labels,
    LogRow,
    Objective,
    Point,
    RequestRow,
    StudyRow,
    StudyView,
    TrialDetail,
    TrialRow,
)
from tunesvc.insights.sparks import sparks
from tunesvc.insights.trial_table import Order, best, trial, trials

__all__ = [
    "AttemptRow",
    "Audit",
    "Counts",
    "Curve",
    "DecisionRow",
    "Diagnosis",
    "Explanation",
    "Labels",
    "LogRow",
    "Objective",
    "Order",
    "Point",
    "Replayed",
    "RequestRow",
    "StudyRow",
    "StudyView",
    "TrialDetail",
    "TrialRow",
    "answer_rows",
    "attempts",
    "audit",
    "best",
    "curve",
    "curves",
    "dataframe",
    "decisions",
    "diagnosis",
    "explain_study",
    "explain_trial",
    "fingerprint",
    "forecast",
    "labels",
    "logs",
    "pulse",
    "recommended",
    "replay",
    "replay_pruner",
    "replay_sampler",
    "requests",
    "sparks",
    "studies",
    "study",
    "study_by_id",
    "study_names",
    "trial",
    "trials",
    "value_columns",
]
