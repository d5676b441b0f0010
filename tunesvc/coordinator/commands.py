"""What somebody asks of a study, carried out. Each is answered in a sentence, empty when it was done as asked.

The study is whatever is `ControllableStudy`: one that runs, or one that nobody runs at the moment.
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
    """What a command may do to a study. What does not make sense raises `SpecError`."""

    @property
    def spec(self) -> StudySpec:
        """What it runs by."""
        ...

    @property
    def trials(self) -> int:
        """Trials that count against the budget, those that wait included."""
        ...

    def trial(self, number: int) -> FrozenTrial | None:
        """A trial of it, or None when there is no such number."""
        ...

    def pause(self) -> str:
        """Ask for nothing more, let what runs finish."""
        ...

    def unpause(self) -> str:
        """Take a pause back that has not come to its end."""
        ...

    def stop(self) -> str:
        """Stop what runs and end the study."""
        ...

    def change_spec(self, spec: StudySpec) -> None:
        """Go on under another budget or parallelism."""
        ...

    def widen(self, spec: StudySpec, decision: Decision) -> None:
        """Go on in a wider space, and record that."""
        ...

    def enqueue(self, params: Mapping[str, ParamValue], origin: str) -> int:
        """Have a trial with these values asked next; returns its number."""
        ...

    def stop_trial(self, number: int, reason: str) -> str:
        """End a trial that is not over, and go on with the others."""
        ...


def carry_out(command: Command, study: ControllableStudy) -> str:
    """Do what a command asks; returns the answer for whoever asked. A mistake in it is an answer, not an error."""
    try:
        return perform(command, study)
    except SpecError as error:
        return f"refused: {error}"


def perform(command: Command, study: ControllableStudy) -> str:
    """Do what a command asks; returns the answer for whoever asked.

    Raises:
        SpecError: it makes no sense.
    """
    given = command.payload
    match command.kind:
        case "pause":
            return study.pause()
        case "resume":
            return study.unpause()
        case "stop":
            return study.stop()
        case "extend":
            study.change_spec(extended(study.spec, given))
        case "parallelism":
            study.change_spec(paralleled(study.spec, given))
        case "widen":
            return _widen(command, study)
        case "enqueue":
            return _enqueue(command, study)
        case "retry":
            return _retry(command, study)
        case "stop_trial":
            trial = _known(study, given)
            if trial.state.is_finished():
                raise SpecError(f"trial {trial.number} is over: it is {_word(trial.state)}")
            return study.stop_trial(trial.number, _by(command))
        case _:
            raise SpecError(f"there is no request {command.kind!r}")
    return ""


def _widen(command: Command, study: ControllableStudy) -> str:
    spec = wider(study.spec, command.payload)
    told = differences(study.spec, spec)
    study.widen(spec, Decision(None, "sampler", f"search space widened {_by(command)}: {told}", {"widened": told}))
    return told


def _enqueue(command: Command, study: ControllableStudy) -> str:
    """With the values that are given, or near those of another trial; which ones, the command's id decides."""
    given = command.payload
    if "near" in given:
        trial = _known(study, {"number": given["near"]})
        space = Space(study.spec.parameters)
        params = near(space, trial, Random(command.command_id))  # noqa: S311 - no secret
        return _next(study, study.enqueue(params, f"near trial {trial.number}"))
    if not isinstance(given.get("params"), Mapping):
        raise SpecError("enqueue takes `params`, values by name, or `near`, the number of a trial")
    return _next(study, study.enqueue(as_choices(given["params"]), str(given.get("origin", ""))))


def _retry(command: Command, study: ControllableStudy) -> str:
    trial = _known(study, command.payload)
    if not trial.state.is_finished():
        raise SpecError(f"trial {trial.number} is not over: it is {_word(trial.state)}")
    number = study.enqueue(trial.params, f"trial {trial.number} again, {_by(command)}")
    return _next(study, number, f", with the parameters of trial {trial.number}")


def _next(study: ControllableStudy, number: int, detail: str = "") -> str:
    """Return the answer for an enqueued trial, and extend a budget of trials that has no room for it."""
    answer, limit = f"trial {number} is next{detail}", study.spec.budget.trials
    if limit is None or study.trials <= limit:
        return answer
    study.change_spec(extended(study.spec, {"trials": study.trials - limit}))
    return f"{answer}; the budget grows to {study.trials} trials, so that it runs"


def _known(study: ControllableStudy, given: Mapping[str, Any]) -> FrozenTrial:
    number = given.get("number")
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
