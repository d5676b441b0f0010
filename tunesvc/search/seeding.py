"""Random numbers that a restart and a replay reproduce: each ask seeds its sampler's generators.

Optuna's samplers use one generator from ask to ask, so their proposals depend on how many numbers
were drawn since the process began, and their `reseed_rng` takes entropy from the system.
"""

from __future__ import annotations

import numpy as np
from optuna.samplers import BaseSampler

from tunesvc.spec import StudySpec
from tunesvc.util.optuna_internals import random_states


def seed_of(given: int | None) -> int:
    """Return the given seed, or one from the system's entropy."""
    return int(np.random.SeedSequence().generate_state(1)[0]) if given is None else given


def seeded(spec: StudySpec, seed: int) -> StudySpec:
    """Return the spec with that seed for its sampler."""
    return spec.model_copy(update={"sampler": spec.sampler.model_copy(update={"seed": seed})})


def reseed(sampler: BaseSampler, seed: int, number: int) -> None:
    """Seed every generator of a sampler and of the samplers that it uses by (seed, trial number).

    May be repeated. A sampler that derives a generator from these two at each ask has none to seed.
    """
    for index, generator in enumerate(random_states(sampler)):
        sequence = np.random.SeedSequence([seed, number, index])
        if isinstance(generator, np.random.RandomState):
            generator.seed(sequence.generate_state(4))
        elif isinstance(generator, np.random.Generator):
            bits = generator.bit_generator
            bits.state = type(bits)(sequence).state
        else:
            generator.seed(int.from_bytes(sequence.generate_state(4).tobytes(), "little"))
