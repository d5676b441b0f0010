"""Trials side by side, and studies side by side: facts by name, and which of them differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tunesvc.db.engine.database import Database
from tunesvc.db.schema.tables import trials
from tunesvc.queries.rows import StudyView, TrialDetail
from tunesvc.queries.sql import first_value, is_candidate


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact of several things."""

    group: str
    name: str
    values: tuple[Any, ...]
    """One each; None where there is none."""

    @property
    def differs(self) -> bool:
        """Whether it is not the same everywhere."""
        first = self.values[0]
        return any(type(value) is not type(first) or repr(value) != repr(first) for value in self.values[1:])


def trial_facts(study: StudyView, found: Sequence[TrialDetail]) -> list[Fact]:
    """Results, parameters, how they ran, and attributes of trials of one study."""
    rows = [detail.row for detail in found]
    facts = [Fact("results", "state", tuple(row.state for row in rows))]
    for index, objective in enumerate(study.objectives):
        facts.append(Fact("results", objective.name, tuple(row.values[index] if row.values else None for row in rows)))
    if not all(row.feasible for row in rows):
        facts.append(Fact("results", "feasible", tuple(row.feasible for row in rows)))
    facts += [
        Fact("results", "last step", tuple(row.last_step for row in rows)),
        Fact("results", "last reported", tuple(row.last_value for row in rows)),
        *_merged("parameters", [row.params for row in rows]),
        *_merged("how it ran", [_run(detail) for detail in found]),
        *_merged("attributes", [detail.user_attrs for detail in found]),
    ]
    return facts


def _run(detail: TrialDetail) -> dict[str, Any]:
    last = detail.attempts[-1] if detail.attempts else None
    asks = [decision.details for decision in detail.decisions if decision.kind == "ask"]
    return {
        "seconds": detail.row.duration_s,
        "attempts": detail.row.attempts,
        "failure": detail.row.failure,
        "machine": last.node if last else None,
        "devices": ", ".join(last.devices) or None if last else None,
        "phase of the search": asks[0].get("phase") if asks else None,
        "predicted": asks[0].get("mean") if asks else None,
        "started": detail.row.started_at,
    }


def study_facts(found: Sequence[StudyView]) -> list[Fact]:
    """Counts, best values and what is spent of studies, and their specs by key."""
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
            "created": study.created_at,
        }
        for study in found
    ]
    specs = [_spec(study) for study in found]
    return [*_merged("results", overview), *_merged("spec", specs)]


def _spec(study: StudyView) -> dict[str, Any]:
    if study.spec is None:
        return {}
    told = study.spec.model_dump(mode="json", exclude_defaults=True)
    return dict(_flat(told, ())) | {"name": study.name}


def _flat(value: Any, path: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Leaves by their keys; lists are leaves, but for those of mappings, which are known by their names."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {str(item.get("name", i)): item for i, item in enumerate(value)}
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in _flat(item, (*path, str(key)))]
    return [(".".join(path), json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value)]


def _merged(group: str, found: Sequence[Mapping[str, Any]]) -> list[Fact]:
    """Facts that any of them has."""
    names = dict.fromkeys(name for one in found for name in one)
    facts = [Fact(group, name, tuple(one.get(name) for one in found)) for name in names]
    return [fact for fact in facts if any(value is not None for value in fact.values)]


def best_course(database: Database, study: StudyView) -> tuple[tuple[int, float], ...]:
    """The best value so far of a study of one objective, where it changes and at its end: (trials, value) each."""
    value, number = first_value(), trials.c.number
    extreme = sa.func.max if study.objectives[0].maximize else sa.func.min
    so_far = extreme(value).over(order_by=number).label("so_far")
    candidates = sa.select(number, so_far).where(
        trials.c.study_id == study.study_id, value.is_not(None), *is_candidate([study.study_id])
    )
    inner = candidates.subquery()
    first = sa.select(inner.c.so_far, sa.func.min(inner.c.number).label("number")).group_by(inner.c.so_far)
    with database.engine.connect() as connection:
        rows = connection.execute(first.order_by("number")).all()
    course = [(int(row.number) + 1, float(row.so_far)) for row in rows]
    ended = max(study.counts.total, course[-1][0]) if course else 0
    return (*course, (ended, course[-1][1])) if course and ended > course[-1][0] else tuple(course)
