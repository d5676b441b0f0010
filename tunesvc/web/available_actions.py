"""Which actions make sense for a study or a trial as it stands, and why the others do not. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from tunesvc.queries.rows import StudyStatus, StudyView, TrialRow
from tunesvc.spec import StudySpec

ENDED = frozenset({"complete", "pruned", "failed", "stopped"})


def unavailable_actions(
    study: StudyView,
    trial: TrialRow | None = None,
) -> Mapping[str, str]:
    """What speaks against each action, in words; those that are not named make sense."""
    if study.spec is None:
        found = dict.fromkeys(
            _OF_A_COORDINATOR,
            "it was made through Optuna's API: no coordinator runs it",
        )
        found |= _against_stopping(study, trial)
    else:
        found = _against_study(study, study.spec) if trial is None else _against_trial(study.spec, trial)
    return {action: why for action, why in found.items() if why}


def _against_stopping(study: StudyView, trial: TrialRow | None) -> dict[str, str]:
    """What speaks against failing the running trials of a study of Optuna's, or one of them."""
    if trial is None:
        return {"stop": "" if study.counts.running else "no trial of it runs"}
    return {"stop_trial": "" if trial.state == "running" else f"it does not run: it is {trial.state}"}


def _against_study(study: StudyView, spec: StudySpec) -> dict[str, str]:
    over = f"it is {study.state} already" if study.state.is_terminal else ""
    closing = {"pause": "it is being paused", "stop": "it is being stopped"}.get(
        study.closing or "",
        "",
    )
    paused = "it is paused already" if study.state is StudyStatus.PAUSED else ""
    declares = "its objective declares the parameters itself" if spec.define_by_run else ""
    return {
        "pause": over or paused or closing,
        "stop": over or (closing if study.closing == "stop" else ""),
        "resume": _against_resuming(study),
        "extend": _EXHAUSTED if study.is_exhausted else "",
        "enqueue": declares,
        "widen": declares,
        "delete": f"{study.coordinator} runs it: stop it first" if study.coordinator else "",
    }


def _against_resuming(study: StudyView) -> str:
    if study.coordinator is not None:
        return "" if study.closing == "pause" else "it runs"
    if study.state is not StudyStatus.FINISHED:
        return ""
    return _EXHAUSTED if study.is_exhausted else "its budget is spent: extend it first"


def _against_trial(spec: StudySpec, trial: TrialRow) -> dict[str, str]:
    ended = trial.state in ENDED
    bare = "" if trial.params else "it has no parameters"
    return {
        "stop_trial": f"it is over: {trial.state}" if ended else "",
        "retry": bare if ended else "it is not over",
        "near": bare,
        "enqueue": bare or ("its objective declares the parameters itself" if spec.define_by_run else ""),
    }


_EXHAUSTED = "all configurations have been tried: widen the space first"

_OF_A_COORDINATOR = (
    *("pause", "resume", "extend", "parallelism", "widen"),
    *("enqueue", "near", "retry"),
)
