"""What somebody asks of a study: pause, resume, stop, extend, enqueue. Each is answered in a sentence, empty when it
was carried out as asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from tunesvc.errors import SpecError
from tunesvc.spec import Budget, ParamValue, StudySpec
from tunesvc.store.studies import Command


class Steerable(Protocol):
    """What a command may do to a running study."""

    spec: StudySpec

    def pause(self) -> None:
        """Ask for nothing more, let what runs finish."""
        ...

    def unpause(self) -> None:
        """Take a pause back that has not come to its end."""
        ...

    def stop(self) -> None:
        """Stop what runs and end the study."""
        ...

    def change_spec(self, spec: StudySpec) -> None:
        """Go on under a changed spec."""
        ...

    def enqueue(self, params: Mapping[str, ParamValue]) -> int:
        """Have a trial with these values asked next; returns its number."""
        ...


def carry_out(command: Command, study: Steerable) -> str:
    """Do what a command asks; returns the answer for whoever asked. A mistake in it is an answer, not an error."""
    try:
        match command.kind:
            case "pause":
                study.pause()
            case "resume":
                study.unpause()
            case "stop":
                study.stop()
            case "extend":
                study.change_spec(extended(study.spec, command.payload))
            case "enqueue":
                return f"trial {study.enqueue(command.payload)} is next"
    except SpecError as error:
        return f"refused: {error}"
    return ""


def extended(spec: StudySpec, more: Mapping[str, Any]) -> StudySpec:
    """The spec with a larger budget.

    Args:
        more: what is added to `trials`, `wall` (seconds) or `gpu_hours`. A limit that the budget did not have stays
            absent, since any amount would lower it.

    Raises:
        SpecError: nothing is added, or it is no number above 0.
    """
    old = spec.budget.limits
    unknown = set(more) - set(old)
    if unknown or not more:
        raise SpecError(f"extend takes {', '.join(old)}; not {', '.join(sorted(unknown)) or 'nothing'}")
    for name, amount in more.items():
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or amount <= 0:
            raise SpecError(f"extend {name}: {amount!r} is no number above 0")
    if not any(old[name] for name in more):
        limits = ", ".join(name for name, limit in old.items() if limit is not None)
        raise SpecError(f"the budget has no limit on {', '.join(more)} that could be extended; it has one on {limits}")
    grown = {name: None if limit is None else limit + more.get(name, 0) for name, limit in old.items()}
    try:
        return spec.model_copy(update={"budget": Budget.model_validate({**grown, "stop_when": spec.budget.stop_when})})
    except ValidationError as error:
        raise SpecError(f"extend: {error.errors()[0]['msg']}") from None
