"""Names of scikit-learn's scorers, and the rules of `evaluation: {scoring: ...}`.

The names are listed here, since a study file is checked without importing scikit-learn; a test
compares them with its own. Of all scorers more is better.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunesvc.spec.diagnostics import SpecIssue, printable
from tunesvc.spec.model import StudySpec
from tunesvc.spec.sections.objective import Metric
from tunesvc.util.suggestions import suggest

_AVERAGED = ("f1", "jaccard", "precision", "recall")
_AVERAGES = ("", "_macro", "_micro", "_samples", "_weighted")
_NEGATED = (
    "brier_score",
    "log_loss",
    "max_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_gamma_deviance",
    "mean_poisson_deviance",
    "mean_squared_error",
    "mean_squared_log_error",
    "median_absolute_error",
    "negative_likelihood_ratio",
    "root_mean_squared_error",
    "root_mean_squared_log_error",
)
SCORERS = frozenset(
    (
        *(f"{name}{average}" for name in _AVERAGED for average in _AVERAGES),
        *(f"neg_{name}" for name in _NEGATED),
        *("accuracy", "average_precision", "balanced_accuracy", "matthews_corrcoef"),
        *("positive_likelihood_ratio", "top_k_accuracy", "d2_brier_score", "d2_log_loss_score"),
        *("roc_auc", "roc_auc_ovo", "roc_auc_ovo_weighted", "roc_auc_ovr", "roc_auc_ovr_weighted"),
        *("r2", "explained_variance", "d2_absolute_error_score"),
        *("adjusted_mutual_info_score", "adjusted_rand_score", "completeness_score"),
        *("fowlkes_mallows_score", "homogeneity_score", "mutual_info_score"),
        *("normalized_mutual_info_score", "rand_score", "v_measure_score"),
    )
)
_SHORT = {"auc": "roc_auc", "mse": "neg_mean_squared_error", "mae": "neg_mean_absolute_error"}
_SHORT |= {"rmse": "neg_root_mean_squared_error", "mape": "neg_mean_absolute_percentage_error"}
_SHORT |= {"error": "accuracy", "mcc": "matthews_corrcoef"}


def scoring_issues(spec: StudySpec) -> Iterator[SpecIssue]:
    """Yield what is wrong with the scorers of a study, whatever its data and model."""
    if spec.evaluation is None or not spec.evaluation.scoring:
        return
    path = ("evaluation", "scoring")
    if spec.data is None:
        text = "needs `data` with a `target`, on whose validation part models are scored"
        yield SpecIssue(path, text, at_key=True)
    if spec.command is not None:
        text = "needs an `entrypoint`: a command returns no model"
        yield SpecIssue(path, text, at_key=True)
    if spec.search is not None:
        text = "does not go with `search`, which compares members by what they report"
        yield SpecIssue(path, text, at_key=True)
    scoring = spec.evaluation.scoring
    for index, name in enumerate(scoring):
        if name not in SCORERS:
            text = f"scikit-learn has no scorer `{printable(name)}`{_hint(name, SCORERS)}"
            yield SpecIssue((*path, index), text)
        elif name in scoring[:index]:
            yield SpecIssue((*path, index), f"`{printable(name)}` is there twice")
    for index, metric in enumerate(spec.metrics):
        yield from _metric(("metrics", index), metric, scoring)


def _metric(
    path: tuple[str, int],
    metric: Metric,
    scoring: tuple[str, ...],
) -> Iterator[SpecIssue]:
    shown = printable(metric.name)
    if metric.name not in scoring:
        listed = ", ".join(printable(name) for name in scoring)
        hint = _hint(metric.name, SCORERS if metric.name in _SHORT else scoring)
        text = f"with `scoring`, the metric is one of its scorers ({listed}), not `{shown}`{hint}"
        yield SpecIssue(path, text)
    elif metric.goal == "minimize":
        text = f"of the scorer `{shown}` more is better: leave `goal` out, or write `maximize`"
        yield SpecIssue((*path, "goal"), text)


def _hint(name: str, known: frozenset[str] | tuple[str, ...]) -> str:
    """Return the scorer that is probably meant. That of a loss is its negative."""
    negative = f"neg_{name}"
    if negative in SCORERS:
        return f": its negative `{negative}` is one, of which more is better, as of all scorers"
    if name.lower() in _SHORT:
        return f", did you mean `{_SHORT[name.lower()]}`?"
    return suggest(name, known)
