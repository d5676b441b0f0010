"""Parameters of a schedule: those of the stage that a trial runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.population.member_sampler import MemberSampler
from tunesvc.search.samplers.gp.model.domain import Domain
from tunesvc.search.tracking.lineage import parent_of
from tunesvc.spec.sections.field_types import as_choice
from tunesvc.spec.sections.population_keys import Stage


class ScheduleSampler(MemberSampler):
    """Gives each trial the parameters that a schedule has after the step at which it begins."""

    version = "schedule 1"

    def begin(self, trial: FrozenTrial, domain: Domain) -> dict[str, Any]:
        """Return the parameters of the first stage."""
        stage = self._search.stage_after(-1)
        self.explain_start(trial.number, f"the schedule's parameters up to step {stage.until}")
        return _values(stage)

    def explore(
        self,
        study: Study,
        trial: FrozenTrial,
        parent: FrozenTrial,
        domain: Domain,
        rng: np.random.Generator,
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        """Return the parameters of the next stage."""
        origin = parent_of(trial)
        stage = self._search.stage_after(-1 if origin is None else origin.step)
        return _values(stage), {"": f"the schedule's parameters up to step {stage.until}"}


def _values(stage: Stage) -> dict[str, Any]:
    return {name: as_choice(value) for name, value in stage.parameters.items()}
