"""Commands from users to a study. Each has a sentence as answer, empty when it was simply done.

The study is any `ControllableStudy`: one that a coordinator runs, or an idle one.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, Protocol

from optuna.trial import FrozenTrial, TrialState

from tunesvc.coordinator.spec_changes import differences, extended, paralleled, wider
from tunesvc.db.study_records import Command
from tunesvc.db.trial_changes import Decision
from tunesvc.errors import SpecError
from tunesvc.space.search_space import Space, near
from tunesvc.spec import ParamValue, StudySpec, as_choices


class ControllableStudy(Protocol):
    """The operations of commands on a study. One that makes no sense raises `SpecError`."""

    @property
    def spec(self) -> StudySpec:
        """The study's current spec."""
        ...

    @property
    def trials(self) -> int:
        """Number of trials that count against the budget, waiting ones included."""
        ...

    def trial(self, number: int) -> FrozenTrial | None:
        """Return a trial, or None when there is no such number."""
        ...

    def pause(self) -> str:
        """Ask for no more trials, and let live attempts finish."""
        ...

    def unpause(self) -> str:
        """Cancel a pause that is not complete yet."""
        ...

    def stop(self) -> str:
        """Stop live attempts and end the study."""
        ...

    def change_spec(self, spec: StudySpec) -> None:
        """Continue with another budget or parallelism."""
        ...

    def widen(self, spec: StudySpec, decision: Decision) -> None:
        """Continue in a wider space, and record the decision."""
        ...

    def enqueue(self, params: Mapping[str, ParamValue], origin: str) -> int:
        """Have a trial with these values run next; return its number."""
        ...

    def stop_trial(self, number: int, reason: str) -> str:
        """End an unfinished trial; the others continue."""
        ...


def carry_out(command: Command, study: ControllableStudy) -> str:
    """Perform a command; return its answer. A mistake in the command is an answer, not an error."""
    try:
        return perform(command, study)
    except SpecError as error:
        return f"refused: {error}"


def perform(command: Command, study: ControllableStudy) -> str:
    """Perform a command; return its answer.

    Raises:
        SpecError: the command makes no sense.
    """
    payload = command.payload
    match command.kind:
        case "pause":
            return study.pause()
        case "resume":
            return study.unpause()
        case "stop":
            return study.stop()
        case "extend":
            study.change_spec(extended(study.spec, payload))
        case "parallelism":
            study.change_spec(paralleled(study.spec, payload))
        case "widen":
            return _widen(command, study)
        case "enqueue":
            return _enqueue(command, study)
        case "retry":
            return _retry(command, study)
        case "stop_trial":
            return _stop_trial(command, study)
        case _:
            raise SpecError(f"there is no request {command.kind!r}")
    return ""


def _widen(command: Command, study: ControllableStudy) -> str:
    spec = wider(study.spec, command.payload)
    changes = differences(study.spec, spec)
    reason = f"search space widened {_by(command)}: {changes}"
    study.widen(spec, Decision(None, "sampler", reason, {"widened": changes}))
    return changes


def _enqueue(command: Command, study: ControllableStudy) -> str:
    """Enqueue the given values, or ones near another trial's; the command's id seeds the choice."""
    _refuse_late_member(study)
    payload = command.payload
    if "near" in payload:
        trial = _find_trial(study, {"number": payload["near"]})
        space = Space(study.spec.parameters)
        params = near(space, trial, Random(command.command_id))  # noqa: S311 - no secret
        return _enqueued(study, study.enqueue(params, f"near trial {trial.number}"))
    if not isinstance(payload.get("params"), Mapping):
        raise SpecError("enqueue takes `params`, values by name, or `near`, the number of a trial")
    origin = str(payload.get("origin", ""))
    return _enqueued(study, study.enqueue(as_choices(payload["params"]), origin))


def _retry(command: Command, study: ControllableStudy) -> str:
    _refuse_late_member(study)
    trial = _find_trial(study, command.payload)
    if not trial.state.is_finished():
        raise SpecError(f"trial {trial.number} has not finished: it is {_word(trial.state)}")
    number = study.enqueue(trial.params, f"trial {trial.number} again, {_by(command)}")
    return _enqueued(study, number, f", with the parameters of trial {trial.number}")


def _stop_trial(command: Command, study: ControllableStudy) -> str:
    trial = _find_trial(study, command.payload)
    if trial.state.is_finished():
        raise SpecError(f"trial {trial.number} has finished: it is {_word(trial.state)}")
    return study.stop_trial(trial.number, _by(command))


def _refuse_late_member(study: ControllableStudy) -> None:
    """Refuse a member that begins after the others: what it could copy is deleted by then.

    Raises:
        SpecError: the study is a population whose members have all begun.
    """
    search = study.spec.search
    if search is not None and study.trials >= search.members:
        text = f"the {search.members} members of the population have begun"
        raise SpecError(f"{text}: enqueue before that, or run it as a study of its own")


def _enqueued(study: ControllableStudy, number: int, detail: str = "") -> str:
    """Return the answer for an enqueued trial; extend a budget that has no room for it."""
    answer, limit = f"trial {number} is next{detail}", study.spec.budget.trials
    if limit is None or study.trials <= limit:
        return answer
    study.change_spec(extended(study.spec, {"trials": study.trials - limit}))
    return f"{answer}; the budget grows to {study.trials} trials, so that it runs"


def _find_trial(study: ControllableStudy, payload: Mapping[str, Any]) -> FrozenTrial:
    number = payload.get("number")
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise SpecError(f"{number!r} is no number of a trial")
    trial = study.trial(number)
    if trial is None:
        raise SpecError(f"there is no trial {number}")
    return trial


def _by(command: Command) -> str:
    return f"by request of {command.asked_by}" if command.asked_by else "by request"


def _word(state: TrialState) -> str:
    return "failed" if state is TrialState.FAIL else state.name.lower()
