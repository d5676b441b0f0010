"""Strategy of a study: its sampler and pruner, with the names that reasons give them."""

from __future__ import annotations

from dataclasses import dataclass

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler


@dataclass(frozen=True, slots=True)
class Strategy:
    """Sampler and pruner of one study."""

    sampler: BaseSampler
    pruner: BasePruner
    sampler_name: str
    pruner_name: str
    seed: int | None = None
    """Seed from which, with its number, a trial's random numbers follow; None: from entropy."""
