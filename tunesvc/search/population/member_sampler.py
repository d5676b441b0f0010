"""Parameters of a population's members: spread evenly at first, then explored from a parent's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from tunesvc.search.explanations import Reason, RecentEntries
from tunesvc.search.samplers.gp.model.domain import Domain, draw_alone
from tunesvc.search.seeding import seed_of
from tunesvc.search.tracking.lineage import Parent, parent_of
from tunesvc.spec.sections.population_keys import Search


class MemberSampler(BaseSampler):
    """Draws members that begin at step zero, and leaves copies to `explore`."""

    version = ""
    """Version; it changes when the same seed and history give another proposal."""

    def __init__(
        self,
        seed: int | None = None,
        *,
        search_space: Mapping[str, BaseDistribution],
        search: Search,
    ) -> None:
        """Make a sampler for one study.

        Args:
            seed: of all random numbers.
            search_space: the parameters.
            search: the population's rules.
        """
        self._seed = seed_of(seed)
        self._search_space = dict(search_space)
        self._search = search
        self._reasons: RecentEntries[Reason] = RecentEntries()

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> dict[str, BaseDistribution]:
        """Return all parameters."""
        return {name: kind for name, kind in self._search_space.items() if not kind.single()}

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Return values for all parameters jointly."""
        if not search_space:
            return {}
        parent = parent_of(trial)
        if parent is None:
            return self.begin(trial, Domain(search_space))
        source = next(one for one in study.get_trials(deepcopy=False) if one.number == parent.trial)
        rng = np.random.default_rng([self._seed, trial.number])
        params, how = self.explore(study, trial, source, Domain(search_space), rng)
        self._explain_copy(trial.number, parent, source, params, how)
        return params

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a uniformly drawn value."""
        return draw_alone(self._seed, trial.number, param_name, param_distribution)

    def explain(self, number: int) -> Reason | None:
        """Return the reason of the last proposal for this trial."""
        return self._reasons.get(number)

    def begin(self, trial: FrozenTrial, domain: Domain) -> dict[str, Any]:
        """Return the parameters of a member that begins at step zero."""
        # scipy.stats takes a third of a second to import
        from tunesvc.search.samplers.gp.initial_design import spread

        self.explain_start(trial.number, "new member, spread evenly over the space")
        return domain.decode(spread(domain, trial.number, self._seed % 2**32))

    def explain_start(self, number: int, text: str) -> None:
        """Remember the reason for the parameters of a member that begins at step zero."""
        self._reasons[number] = Reason(text, {"version": self.version, "phase": "start"})

    def explore(
        self,
        study: Study,
        trial: FrozenTrial,
        parent: FrozenTrial,
        domain: Domain,
        rng: np.random.Generator,
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        """Return the parameters of a copy, and words about how some of them were chosen."""
        raise NotImplementedError

    def _explain_copy(
        self,
        number: int,
        parent: Parent,
        source: FrozenTrial,
        params: Mapping[str, Any],
        how: Mapping[str, str],
    ) -> None:
        before = source.params
        changed = [name for name in params if name in before and params[name] != before[name]]
        texts = [f"{name} {_shown(before[name])} → {_shown(params[name])}" for name in changed]
        notes = [f" ({how[name]})" if name in how else "" for name in changed]
        listed = ", ".join(text + note for text, note in zip(texts, notes, strict=True))
        text = f"copy of trial {parent.trial} at step {parent.step}, "
        text += f"with {listed}" if listed else "with the same parameters"
        if "" in how:
            text += f"; {how['']}"
        details = {
            "version": self.version,
            "phase": "copy",
            "parent": parent.trial,
            "step": parent.step,
            "before": {name: before[name] for name in changed},
        }
        self._reasons[number] = Reason(text, details)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
