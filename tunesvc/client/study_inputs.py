"""Inputs of clients: a new study, and changes of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesvc.db.schema.states import Priority


@dataclass(frozen=True, slots=True)
class NewStudy:
    """A study to be stored, as the text of a study file or as an object with the same keys."""

    text: str | None = None
    """The study file: YAML."""
    spec: Mapping[str, Any] | None = None
    """Instead of `text`: the keys of a study file."""
    folder: str | None = None
    """Folder of its entrypoint or command, on the machine that will run it."""
    project: str | None = None
    """Project that it belongs to. A server takes the user's only one by default."""


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """Larger limits of a budget. Those that are None stay as they are."""

    trials: int | None = None
    wall: float | None = None
    """Seconds."""
    gpu_hours: float | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class ParallelismChange:
    """Another number of trials at a time."""

    trials: int | None
    """None for as many as fit."""


@dataclass(frozen=True, slots=True)
class ParameterChange:
    """A wider range, or choices to add."""

    min: float | None = None
    max: float | None = None
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class StudyPatch:
    """Changes of a study, running or not. What is left out stays as it is."""

    budget: BudgetChange | None = None
    parallelism: ParallelismChange | None = None
    priority: Priority | None = None
    parameters: Mapping[str, ParameterChange] = field(default_factory=dict)
    note: str | None = None
