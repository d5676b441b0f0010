"""Comparison of trials, or of studies: facts by name, and which of them differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import trials
from tunesvc.queries.rows import StudyView, TrialDetail
from tunesvc.queries.sql import first_value, is_candidate
from tunesvc.util.formatting import names_in


@dataclass(frozen=True, slots=True)
class Fact:
    """One row of a comparison."""

    group: str
    name: str
    values: tuple[Any, ...]
    """One value per compared trial or study; None where it is missing."""

    @property
    def differs(self) -> bool:
        """True if the values are not all the same."""
        # By type and text: True == 1, and NaN is unequal to itself.
        kinds = {(type(value), repr(value)) for value in self.values}
        return len(kinds) > 1


def trial_facts(study: StudyView, details: Sequence[TrialDetail]) -> list[Fact]:
    """Return results, parameters, execution and attributes of trials of one study."""
    rows = [detail.row for detail in details]
    facts = [Fact("results", "state", tuple(row.state for row in rows))]
    for index, objective in enumerate(study.objectives):
        values = tuple(row.values[index] if row.values else None for row in rows)
        facts.append(Fact("results", objective.name, values))
    if not all(row.feasible for row in rows):
        facts.append(Fact("results", "feasible", tuple(row.feasible for row in rows)))
    facts += [
        Fact("results", "last step", tuple(row.last_step for row in rows)),
        Fact("results", "last reported", tuple(row.last_value for row in rows)),
        *_merged("parameters", [row.params for row in rows]),
        *_merged("how it ran", [_execution(detail) for detail in details]),
        *_merged("attributes", [detail.user_attrs for detail in details]),
    ]
    return facts


def _execution(detail: TrialDetail) -> dict[str, Any]:
    machine, devices = None, None
    if detail.attempts:
        last = detail.attempts[-1]
        machine = last.node
        devices = ", ".join(last.devices) or None
    asks = [decision.details for decision in detail.decisions if decision.kind == "ask"]
    ask = asks[0] if asks else {}
    return {
        "seconds": detail.row.duration_s,
        "attempts": detail.row.attempts,
        "failure": detail.row.failure,
        "machine": machine,
        "devices": devices,
        "phase of the search": ask.get("phase"),
        "predicted": ask.get("mean"),
        "started": detail.row.started_at,
    }


def study_facts(views: Sequence[StudyView]) -> list[Fact]:
    """Return counts, best values and usage of studies, and their specs by key."""
    overview = [
        {
            "state": str(study.state),
            "best value": study.best_value,
            "trials": study.counts.total,
            "complete": study.counts.complete,
            "pruned": study.counts.pruned,
            "failed": study.counts.failed,
            "stopped": study.counts.stopped,
            "seconds": study.active_s,
            "GPU hours": study.gpu_hours,
            **({"cost": study.cost_text} if study.prices else {}),
            "created": study.created_at,
        }
        for study in views
    ]
    specs = [_spec_by_key(study) for study in views]
    return [*_merged("results", overview), *_merged("spec", specs)]


def _spec_by_key(study: StudyView) -> dict[str, Any]:
    if study.spec is None:
        return {}
    keys = study.spec.model_dump(mode="json", exclude_defaults=True)
    return dict(_leaves(keys, ())) | {"name": study.name}


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a spec with their dotted keys.

    A list is a leaf, except a list of mappings: its items are keyed by their names.
    """
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {str(item.get("name", i)): item for i, item in enumerate(value)}
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, str(key)))
    elif isinstance(value, list):
        yield ".".join(path), json.dumps(value, ensure_ascii=False)
    else:
        yield ".".join(path), value


def _merged(group: str, records: Sequence[Mapping[str, Any]]) -> list[Fact]:
    """Return the facts that at least one record has."""
    facts = []
    for name in names_in(records):
        values = tuple(record.get(name) for record in records)
        if any(value is not None for value in values):
            facts.append(Fact(group, name, values))
    return facts


def best_value_history(database: Database, study: StudyView) -> tuple[tuple[int, float], ...]:
    """Return the best value so far of a study of one objective, as (trials, value).

    One pair for each improvement, and one for the last trial.
    """
    value = first_value()
    number = trials.c.number
    extreme = sa.func.max if study.objectives[0].maximize else sa.func.min
    so_far = extreme(value).over(order_by=number).label("so_far")
    candidates = (
        sa.select(number, so_far)
        .where(trials.c.study_id == study.study_id)
        .where(value.is_not(None), *is_candidate([study.study_id]))
        .subquery()
    )
    first = sa.func.min(candidates.c.number).label("number")
    query = (
        sa.select(first, candidates.c.so_far)  # the first trial with each value
        .group_by(candidates.c.so_far)
        .order_by(first)
    )
    history = [(row.number + 1, row.so_far) for row in database.rows(query)]
    if history and study.counts.total > history[-1][0]:
        history.append((study.counts.total, history[-1][1]))
    return tuple(history)
