"""The read side: one set of queries for the command line, the API and the dashboard.

Functions take a `Database` and return frozen rows. Nothing here writes, decides or draws. A function that needs
the models of `search` imports them itself: SciPy takes longer to import than most queries take to answer.
"""

from tunesvc.insights.answer import answer_rows, best_trial, forecast, modelled, recommended, with_repeats
from tunesvc.insights.audit import Audit, audit
from tunesvc.insights.beliefs import importance_shares, surface
from tunesvc.insights.checkpoint_files import KeptCheckpoint, best_checkpoint
from tunesvc.insights.cluster import ClusterView, cluster
from tunesvc.insights.columns import names_of
from tunesvc.insights.comparison import Fact, best_course, study_facts, trial_facts
from tunesvc.insights.diagnosis import Diagnosis, diagnosis
from tunesvc.insights.explanation import Explanation, Said, explain_study, explain_trial, trial_told
from tunesvc.insights.export import Export
from tunesvc.insights.filters import MEANINGS, Names
from tunesvc.insights.frame import dataframe, value_columns
from tunesvc.insights.history import attempts, curve, curves, decisions, log_end, logs
from tunesvc.insights.locally import attribution, attribution_told
from tunesvc.insights.overview import Only, count_studies, labels, studies, study, study_by_id, study_names
from tunesvc.insights.parameters import Parameter, Tried, parameters, tried_best, tried_evenly
from tunesvc.insights.pulse import fingerprint, pulse
from tunesvc.insights.requests import requests
from tunesvc.insights.results import Results, Saved, chosen, results, saved_by_pruning, saving_of, spread
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
    StudyStatus,
    StudyView,
    TrialDetail,
    TrialRow,
)
from tunesvc.insights.spans import Span, laned, spans
from tunesvc.insights.sparks import sparks
from tunesvc.insights.standing import Gain, Headline, headline, queued, recent, running
from tunesvc.insights.trial_pages import Selection, Sort, TrialPage, count_trials, trial_page
from tunesvc.insights.trial_reasons import Judgement, Other, Proposal, TrialReasons, trial_reasons
from tunesvc.insights.trial_table import Order, best, drawn_from, pareto_mask, rows_of, trial, trials

__all__ = [
    "MEANINGS",
    "AttemptRow",
    "Audit",
    "ClusterView",
    "Counts",
    "Curve",
    "DecisionRow",
    "Diagnosis",
    "Explanation",
    "Export",
    "Fact",
    "Gain",
    "Headline",
    "Judgement",
    "KeptCheckpoint",
    "Labels",
    "LogRow",
    "Names",
    "Objective",
    "Only",
    "Order",
    "Other",
    "Parameter",
    "Point",
    "Proposal",
    "RequestRow",
    "Results",
    "Said",
    "Saved",
    "Selection",
    "Sort",
    "Span",
    "StudyRow",
    "StudyStatus",
    "StudyView",
    "TrialDetail",
    "TrialPage",
    "TrialReasons",
    "TrialRow",
    "Tried",
    "answer_rows",
    "attempts",
    "attribution",
    "attribution_told",
    "audit",
    "best",
    "best_checkpoint",
    "best_course",
    "best_trial",
    "chosen",
    "cluster",
    "count_studies",
    "count_trials",
    "curve",
    "curves",
    "dataframe",
    "decisions",
    "diagnosis",
    "drawn_from",
    "explain_study",
    "explain_trial",
    "fingerprint",
    "forecast",
    "headline",
    "importance_shares",
    "labels",
    "laned",
    "log_end",
    "logs",
    "modelled",
    "names_of",
    "parameters",
    "pareto_mask",
    "pulse",
    "queued",
    "recent",
    "recommended",
    "requests",
    "results",
    "rows_of",
    "running",
    "saved_by_pruning",
    "saving_of",
    "spans",
    "sparks",
    "spread",
    "studies",
    "study",
    "study_by_id",
    "study_facts",
    "study_names",
    "surface",
    "trial",
    "trial_facts",
    "trial_page",
    "trial_reasons",
    "trial_told",
    "trials",
    "tried_best",
    "tried_evenly",
    "value_columns",
    "with_repeats",
]
