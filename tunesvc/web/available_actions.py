"""Actions that are possible for a study or a trial, and reasons why others are not. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from tunesvc.errors import MADE_BY_OPTUNA
from tunesvc.queries.rows import StudyStatus, StudyView, TrialRow
from tunesvc.spec import StudySpec

ENDED = frozenset({"complete", "pruned", "failed", "stopped"})


def unavailable_actions(
    study: StudyView,
    trial: TrialRow | None = None,
) -> Mapping[str, str]:
    """Return the reason against each unavailable action; others are available."""
    if study.spec is None:
        reasons = dict.fromkeys(
            _NEEDING_COORDINATOR,
            f"it {MADE_BY_OPTUNA}: no coordinator runs it",
        )
        reasons |= _reasons_for_optuna(study, trial)
    elif trial is None:
        reasons = _reasons_for_study(study, study.spec)
    else:
        reasons = _reasons_for_trial(study.spec, trial)
    return {action: reason for action, reason in reasons.items() if reason}


def _reasons_for_optuna(study: StudyView, trial: TrialRow | None) -> dict[str, str]:
    """Return reasons against stopping trials of a study that Optuna runs."""
    if trial is None:
        return {"stop": "" if study.counts.running else "no trial of it runs"}
    is_running = trial.state == "running"
    return {"stop_trial": "" if is_running else f"it does not run: it is {trial.state}"}


def _reasons_for_study(study: StudyView, spec: StudySpec) -> dict[str, str]:
    finished = f"it is {study.state} already" if study.state.is_terminal else ""
    closing = {"pause": "it is being paused", "stop": "it is being stopped", None: ""}
    paused = "it is paused already" if study.state is StudyStatus.PAUSED else ""
    return {
        "pause": finished or paused or closing[study.closing],
        "stop": finished or (closing["stop"] if study.closing == "stop" else ""),
        "resume": _reason_against_resume(study),
        "extend": _EXHAUSTED if study.is_exhausted else "",
        "enqueue": _DECLARES if spec.define_by_run else "",
        "widen": _DECLARES if spec.define_by_run else "",
        "delete": f"{study.coordinator} runs it: stop it first" if study.coordinator else "",
    }


def _reason_against_resume(study: StudyView) -> str:
    if study.coordinator is not None:
        return "" if study.closing == "pause" else "it runs"
    if study.state is not StudyStatus.FINISHED:
        return ""
    return _EXHAUSTED if study.is_exhausted else "its budget is spent: extend it first"


def _reasons_for_trial(spec: StudySpec, trial: TrialRow) -> dict[str, str]:
    is_finished = trial.state in ENDED
    no_params = "" if trial.params else "it has no parameters"
    return {
        "stop_trial": f"it has finished: {trial.state}" if is_finished else "",
        "retry": no_params if is_finished else "it has not finished",
        "near": no_params,
        "enqueue": no_params or (_DECLARES if spec.define_by_run else ""),
    }


_EXHAUSTED = "all configurations have been tried: widen the space first"
_DECLARES = "its objective declares the parameters itself"

_NEEDING_COORDINATOR = (
    "pause",
    "resume",
    "extend",
    "parallelism",
    "widen",
    "enqueue",
    "near",
    "retry",
)
