"""The tree of a population: which trial continues which, and the schedule of a lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema import tables
from tunesvc.db.schema.ids import number_of
from tunesvc.errors import StudyNotFound, TuneError
from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.queries.sql import in_study
from tunesvc.queries.trials.trial_table import list_trials
from tunesvc.search.tracking.lineage import PARENT, Parent, ancestors


@dataclass(frozen=True, slots=True)
class Schedule:
    """The parameters along the lineage of a trial, by ranges of steps."""

    study: str
    number: int
    """The trial at its end."""
    values: tuple[float, ...] | None
    """Values of that trial."""
    lineage: tuple[int, ...]
    """The trial and its ancestors, the oldest first."""
    stages: tuple[Mapping[str, Any], ...]
    """Each with `until`, its last step, and `parameters`."""

    @property
    def search(self) -> dict[str, Any]:
        """The key `search` of a study that trains by it."""
        return {"method": "schedule", "stages": [dict(stage) for stage in self.stages]}


@dataclass(frozen=True, slots=True)
class TreeBranch:
    """A trial in the tree."""

    row: TrialRow
    parent: Parent | None
    """None if it began at step zero."""


def get_parents(database: Database, study_id: int) -> dict[int, Parent]:
    """Return the origin of each trial that began as a copy."""
    columns = tables.trial_attrs.c
    query = sa.select(columns.trial_id, columns.value).where(
        in_study(columns.trial_id, study_id),
        columns.kind == "system",
        columns.name == PARENT,
    )
    found = database.rows(query)
    return {number_of(row.trial_id): Parent(**json.loads(row.value)) for row in found}


def get_tree(database: Database, view: StudyView) -> tuple[TreeBranch, ...]:
    """Return all trials by number, with their origins."""
    parents = get_parents(database, view.study_id)
    rows = view.as_given(list_trials(database, view.study_id))
    return tuple(TreeBranch(row, parents.get(row.number)) for row in rows)


def get_schedule(database: Database, view: StudyView, number: int) -> Schedule:
    """Return the schedule of a trial's lineage.

    Raises:
        StudyNotFound: the study has no trial of that number.
        TuneError: the trial has reported no step after 0.
    """
    tree = {branch.row.number: branch for branch in get_tree(database, view)}
    if number not in tree:
        raise StudyNotFound(f"study {view.name!r} has no trial {number}")
    parents = {one: branch.parent for one, branch in tree.items() if branch.parent is not None}
    line = ancestors(number, parents)
    last = tree[number].row.last_step
    if last is None or last < 1:
        raise TuneError(f"trial {number} of study {view.name!r} has reported no step after 0")
    ends = [parents[one].step for one in line[1:]] + [last]
    stages = _merged([(end, tree[one].row.params) for one, end in zip(line, ends, strict=True)])
    return Schedule(view.name, number, tree[number].row.values, tuple(line), stages)


def _merged(stages: Sequence[tuple[int, Mapping[str, Any]]]) -> tuple[Mapping[str, Any], ...]:
    """Return stages without those that are empty or change nothing."""
    merged: list[dict[str, Any]] = []
    for until, parameters in stages:
        if merged and merged[-1]["parameters"] == dict(parameters):
            merged[-1]["until"] = until
        elif not merged or until > merged[-1]["until"]:
            merged.append({"until": until, "parameters": dict(parameters)})
    return tuple(merged)
