"""The read side: one set of queries for the command line, the API and the dashboard.

Functions take a `Database` and return frozen rows. Nothing here writes, decides or draws.
"""

from tunesvc.insights.answer import answer_rows, forecast, recommended
from tunesvc.insights.columns import names_of
from tunesvc.insights.diagnosis import Diagnosis, diagnosis
from tunesvc.insights.explanation import Explanation, explain_study, explain_trial
from tunesvc.insights.export import Export, inert
from tunesvc.insights.filters import MEANINGS, Names
from tunesvc.insights.frame import dataframe, value_columns
from tunesvc.insights.history import attempts, curve, curves, decisions, logs
from tunesvc.insights.overview import studies, study, study_by_id, study_names
from tunesvc.insights.pulse import fingerprint, pulse
from tunesvc.insights.replay import Replayed, replay, replay_pruner, replay_sampler
from tunesvc.insights.rows import (
    AttemptRow,
    Counts,
    Curve,
    DecisionRow,
    LogRow,
    Objective,
    Point,
    StudyRow,
    StudyView,
    TrialDetail,
    TrialRow,
)
from tunesvc.insights.sparks import sparks
from tunesvc.insights.trial_pages import Selection, Sort, TrialPage, count_trials, trial_page
from tunesvc.insights.trial_table import Order, best, rows_of, trial, trials

__all__ = [
    "MEANINGS",
    "AttemptRow",
    "Counts",
    "Curve",
    "DecisionRow",
    "Diagnosis",
    "Explanation",
    "Export",
    "LogRow",
    "Names",
    "Objective",
    "Order",
    "Point",
    "Replayed",
    "Selection",
    "Sort",
    "StudyRow",
    "StudyView",
    "TrialDetail",
    "TrialPage",
    "TrialRow",
    "answer_rows",
    "attempts",
    "best",
    "count_trials",
    "curve",
    "curves",
    "dataframe",
    "decisions",
    "diagnosis",
    "explain_study",
    "explain_trial",
    "fingerprint",
    "forecast",
    "inert",
    "logs",
    "names_of",
    "pulse",
    "recommended",
    "replay",
    "replay_pruner",
    "replay_sampler",
    "rows_of",
    "sparks",
    "studies",
    "study",
    "study_by_id",
    "study_names",
    "trial",
    "trial_page",
    "trials",
    "value_columns",
]
