"""Replays of stored studies with the same sampler and pruner, or with others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from tunesvc.db.engine.database import Database
from tunesvc.errors import SpecError
from tunesvc.queries.recording import load_recording
from tunesvc.queries.rows import StudyView
from tunesvc.search.registry.component_options import name_of
from tunesvc.search.registry.pruner_registry import last_step, make_pruner
from tunesvc.search.replay import (
    PrunerComparison,
    ReplayCount,
    ReplayedProposal,
    SamplerMaker,
    judge,
    propose,
    redraw,
)
from tunesvc.search.seeding import seeded
from tunesvc.space.search_space import Space
from tunesvc.spec import Pruner, Sampler, StudySpec

Choice = TypeVar("Choice", Sampler, Pruner)


@dataclass(frozen=True, slots=True)
class StudyReplay:
    """Comparison of a study's decisions with those of a replay."""

    asks: ReplayCount
    prunes: ReplayCount
    promotions: ReplayCount


def replay_study(database: Database, view: StudyView) -> StudyReplay:
    """Replay a study's sampler and pruner with their recorded seeds and history."""
    recording = load_recording(database, view)
    spec = recording.spec
    asks, prunes, promotions = redraw(
        recording,
        None if spec.sampler.is_foreign else _sampler_maker(spec),
        name_of(spec.sampler),
        None if spec.pruner.is_foreign else make_pruner(spec),
        name_of(spec.pruner),
        last_step(spec),
    )
    return StudyReplay(asks, prunes, promotions)


def replay_pruner(
    database: Database,
    view: StudyView,
    pruner: str,
) -> PrunerComparison:
    """Run another pruner on the recorded curves.

    Args:
        database: Database to read.
        view: Study to replay.
        pruner: The pruner in YAML, as in a study file.

    Raises:
        SpecError: there is no such pruner, or an option of it is wrong.
    """
    recording = load_recording(database, view)
    spec = recording.spec.model_copy(update={"pruner": _parse(Pruner, pruner)})
    return judge(recording, make_pruner(spec), spec.pruner.name, last_step(spec))


def replay_sampler(
    database: Database,
    view: StudyView,
    sampler: str,
) -> tuple[ReplayedProposal, ...]:
    """Return the proposals of another sampler at each ask of the recorded history.

    Args:
        database: Database to read.
        view: Study to replay.
        sampler: The sampler in YAML, as in a study file.

    Raises:
        SpecError: there is no such sampler, an option of it is wrong, or the objective declares the
            parameters itself.
    """
    recording = load_recording(database, view)
    if recording.spec.define_by_run:
        where = f"study {view.name!r} declares its parameters in the objective"
        raise SpecError(f"{where}: nothing is drawn at the ask")
    other = _parse(Sampler, sampler)
    spec = recording.spec.model_copy(update={"sampler": other})
    return propose(recording, _sampler_maker(spec), other.seed)


def _sampler_maker(spec: StudySpec) -> SamplerMaker:
    # Imports all samplers' libraries, which are slow to import.
    from tunesvc.search.registry.sampler_registry import make_sampler

    def make(seed: int) -> Any:
        return make_sampler(seeded(spec, seed), Space(spec.parameters))

    return make


def _parse(model: type[Choice], text: str) -> Choice:
    option = model.__name__.lower()
    try:
        value = yaml.safe_load(text)
        return model.model_validate({"name": value} if isinstance(value, str) else value)
    except (yaml.YAMLError, ValidationError):
        expected = "write a name or a mapping, as in a study file"
        raise SpecError(f"--{option} {text!r}: {expected}") from None
