"""Random numbers that a restart and a replay draw alike: every ask starts its sampler's generators anew.

Optuna's samplers carry one generator from ask to ask, so what they propose depends on how many numbers were drawn
since the process began, and their `reseed_rng` takes entropy from the system.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from optuna.samplers import BaseSampler
from optuna.samplers._lazy_random_state import LazyRandomState


@runtime_checkable
class Derives(Protocol):
    """A sampler whose draws are a function of a seed and the trial's number."""

    def derive_from(self, seed: int) -> None:
        """Use this seed from now on."""
        ...


def seed_of(given: int | None) -> int:
    """The given seed, or one from the system's entropy."""
    return int(np.random.SeedSequence().generate_state(1)[0]) if given is None else given


def reseed(sampler: BaseSampler, seed: int, number: int) -> None:
    """Set every generator of Optuna's kind in a sampler, and in the samplers that it uses, by (seed, trial number).

    May be repeated. Those that derive what they draw from seed and number by themselves are told the seed.
    """
    states = []
    for part in _parts(sampler, set()):
        if isinstance(part, Derives):
            part.derive_from(seed)
        states += [value for value in vars(part).values() if isinstance(value, LazyRandomState)]
    for index, state in enumerate(states):
        state.rng.seed(np.random.SeedSequence([seed, number, index]).generate_state(4))


def _parts(part: object, seen: set[int]) -> Iterator[object]:
    """A sampler and all that it consists of."""
    if id(part) in seen or not hasattr(part, "__dict__"):
        return
    seen.add(id(part))
    yield part
    for value in list(vars(part).values()):
        if isinstance(value, BaseSampler) or type(value).__module__.startswith("optuna.samplers"):
            yield from _parts(value, seen)
