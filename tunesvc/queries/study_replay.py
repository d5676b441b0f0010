"""Replays of stored studies: the same sampler and pruner once more, or others on what was recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from tunesvc.db.engine.database import Database
from tunesvc.errors import SpecError
from tunesvc.queries.recording import load_recording
from tunesvc.queries.rows import StudyView
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
    """A study's own decisions, asked for once more."""

    asks: ReplayCount
    prunes: ReplayCount
    promotions: ReplayCount


def replay_study(database: Database, view: StudyView) -> StudyReplay:
    """Ask the study's sampler and pruner once more, with the seeds and the history that they had."""
    played = load_recording(database, view)
    spec = played.spec
    pruner = make_pruner(spec)
    return StudyReplay(
        *redraw(
            played,
            _maker(spec),
            spec.sampler.name,
            pruner,
            spec.pruner.name,
            last_step(spec),
        )
    )


def replay_pruner(database: Database, view: StudyView, pruner: str) -> PrunerComparison:
    """What another pruner would have done on the recorded curves; `pruner` as the spec writes it.

    Raises:
        SpecError: there is no such pruner, or it refuses its options.
    """
    played = load_recording(database, view)
    spec = played.spec.model_copy(update={"pruner": _read(Pruner, pruner)})
    return judge(played, make_pruner(spec), spec.pruner.name, last_step(spec))


def replay_sampler(
    database: Database,
    view: StudyView,
    sampler: str,
) -> tuple[ReplayedProposal, ...]:
    """What another sampler would have proposed at each ask, on the recorded history; `sampler` as the spec writes it.

    Raises:
        SpecError: there is no such sampler, it refuses its options, or the objective declares the parameters itself.
    """
    played = load_recording(database, view)
    if played.spec.define_by_run:
        raise SpecError(
            f"study {view.name!r} declares its parameters in the objective: nothing is drawn at the ask",
        )
    other = _read(Sampler, sampler)
    return propose(
        played,
        _maker(played.spec.model_copy(update={"sampler": other})),
        other.seed,
    )


def _maker(spec: StudySpec) -> SamplerMaker:
    from tunesvc.search.registry.sampler_registry import (
        make_sampler,  # brings all that samplers need, for which no other question waits
    )

    def make(seed: int) -> Any:
        return make_sampler(seeded(spec, seed), Space(spec.parameters))

    return make


def _read(kind: type[Choice], text: str) -> Choice:
    what = kind.__name__.lower()
    try:
        written = yaml.safe_load(text)
        return kind.model_validate(
            {"name": written} if isinstance(written, str) else written,
        )
    except (yaml.YAMLError, ValidationError):
        raise SpecError(
            f"--{what} {text!r}: write a name or a mapping, as in a study file",
        ) from None
