"""Proposals: parameters of new trials, drawn by a sampler, with its reason.

All parameters of a trial are drawn at once, parents of conditional ones before their children,
through the public methods of Optuna's `BaseSampler`. `optuna.Trial` is not used: making one again
after a restart would call the sampler's `before_trial` a second time. A sampler may be any user's
code: if it raises, the trial is drawn at random.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import TrialState

from tunesvc.errors import BadReport
from tunesvc.search.exhaustion import Repetition
from tunesvc.search.explanations import REPEATS, Reason, reason_of
from tunesvc.search.prefetched_proposals import Proposal
from tunesvc.search.pruners.curve.study_forecasts import refit
from tunesvc.search.registry.sampler_registry import RANDOM_ALONE
from tunesvc.search.seeding import reseed, seed_of
from tunesvc.search.strategy import Strategy
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.warm_start import WarmStart
from tunesvc.space.search_space import Space, canonical
from tunesvc.spec import ParamValue
from tunesvc.spec.conditions import is_same
from tunesvc.spec.sections.field_types import MAX_EXACT
from tunesvc.trial import is_name
from tunesvc.util.optuna_internals import clear_trial_cache, holds, study_of_bracket
from tunesvc.util.optuna_keys import FIXED_PARAMS

ORIGIN = "tunesvc:origin"
"""System attribute of an enqueued trial: where its values come from, as text."""
VERSION = f"optuna {optuna.__version__}"
"""Version of samplers that do not give their own."""


class Proposer:
    """Draws the trials of one study in memory."""

    def __init__(
        self,
        memory: RecordingStorage,
        study: Study,
        space: Space,
        strategy: Strategy,
        warm_start: WarmStart | None,
    ) -> None:
        """Take the arguments of `Optimizer`."""
        self._memory = memory
        self._study = study
        self.space = space
        self._sampler_name = strategy.sampler_name
        self.seed = seed_of(strategy.seed)
        """Seed from which, with a trial's number, the trial's random numbers follow."""
        self._warm_start = warm_start
        self._fallback = RandomSampler()
        self._relative_of: dict[int, Mapping[str, Any]] = {}
        self._alone: list[str] = []
        """Parameters of the last trial that the sampler did not propose jointly."""
        self.is_cold_start = True
        """True if the next draw starts without anything that
        sampler and curve models have cached."""
        self.repetition = Repetition.FREE
        """Rule for keeping a proposal that was tried before."""

    def propose(
        self,
        number: int,
        *,
        enqueued: bool,
        finished: int,
    ) -> Proposal:
        """Return parameters for a new trial.

        Args:
            enqueued: True if the trial has values of its own.
            finished: number of finished trials.
        """
        clear_trial_cache(self._study)
        details: dict[str, Any] = {
            "sampler": self._sampler_name,
            "version": VERSION,
            "seed": self.seed,
        }
        if self.is_cold_start:
            self.is_cold_start, details["fresh"] = False, True
            refit(self._study)
        try:
            params = self.draw_all(number, self._study.sampler)
        except Exception as error:  # noqa: BLE001  # a user's sampler must not end the study
            return self._propose_at_random(number, error, details)
        if enqueued:
            return self._enqueued(number, params, details)
        reason, details = self._explained(number, params, finished, details)
        untried = None if self._may_repeat(details) else self.nearest_untried(number, params)
        if untried is not None:
            self._replace_params(number, untried)
            params, details = untried, {**details, "untried": True}
            reason += "; moved to the nearest configuration that has not been tried"
        return Proposal(number, params, reason, details)

    def _may_repeat(self, details: Mapping[str, Any]) -> bool:
        if self.repetition is Repetition.DELIBERATE:
            return REPEATS in details
        return self.repetition is Repetition.FREE

    def _enqueued(
        self,
        number: int,
        params: Mapping[str, ParamValue],
        details: dict[str, Any],
    ) -> Proposal:
        origin = self._memory.get_trial(number).system_attrs.get(ORIGIN, "")
        reason = f"enqueued: {origin}" if origin else "enqueued"
        return Proposal(number, params, reason, {**details, "phase": "enqueued"})

    def _explained(
        self,
        number: int,
        params: Mapping[str, ParamValue],
        finished: int,
        details: dict[str, Any],
    ) -> tuple[str, dict[str, Any]]:
        """Return the sampler's reason and details, or ours if it gives none."""
        explained = self._sampler_reason(number)
        if explained is None:
            return self._unexplained(params, finished, details)
        return self._name_sources(explained.text), self._merged(details, explained)

    def _propose_at_random(
        self,
        number: int,
        error: Exception,
        details: dict[str, Any],
    ) -> Proposal:
        message = f"{type(error).__name__}: {error}"
        params = self.draw_all(number, self._fallback)
        reason = f"drawn at random, because sampler {self._sampler_name} raised {message}"
        return Proposal(
            number,
            params,
            reason,
            {**details, "sampler": "random"},
            sampler_error=message,
        )

    def _replace_params(
        self,
        number: int,
        params: Mapping[str, ParamValue],
    ) -> None:
        self._memory.forget_params(number)
        for name, value in params.items():
            distribution = self.space.distributions[name]
            internal = distribution.to_internal_repr(value)
            self._memory.set_trial_param(number, name, internal, distribution)

    def _unexplained(
        self,
        params: Mapping[str, ParamValue],
        finished: int,
        details: dict[str, Any],
    ) -> tuple[str, dict[str, Any]]:
        """Return a reason for a sampler that gives none, naming parameters drawn at random."""
        name = self._sampler_name
        reason = f"proposed by {name} from {finished} finished trials"
        if not self.space.parameters:
            return f"{reason}, one parameter at a time", details
        if name not in RANDOM_ALONE or not self._alone:
            return reason, details
        if len(self._alone) == len(params):
            reason = f"drawn at random, because {name} has nothing to propose yet"
            return reason, {**details, "by": "random"}
        reason += f", except {', '.join(self._alone)}, drawn at random"
        return reason, {**details, "drawn_at_random": self._alone}

    def nearest_untried(
        self,
        number: int,
        params: Mapping[str, ParamValue],
    ) -> dict[str, ParamValue] | None:
        """Return the configuration nearest to these parameters that no other trial has.

        None if no other trial has these parameters.
        """
        trials = self._memory.get_all_trials(
            self._memory.study_id,
            deepcopy=False,
        )
        tried = {configuration(trial.params) for trial in trials if trial.number != number}
        if configuration(params) not in tried:
            return None
        untried = (one for one in self.space.configurations() if configuration(one) not in tried)
        return min(
            untried,
            key=lambda one: self.space.distance(params, one),
            default=None,
        )

    def suggest(self, number: int, name: str, distribution: str) -> ParamValue:
        """Return a value for a parameter that the objective declares (define-by-run).

        Args:
            distribution: as `optuna.distributions.distribution_to_json` writes it.

        Raises:
            BadReport: the name cannot be stored, the values cannot be stored exactly, other trials
                declare the parameter differently, or no value can be drawn for it.
        """
        if not is_name(name):
            text = f"{name!r} is no name for a parameter: a text of 1 to 200 characters without NUL"
            raise BadReport(text)
        declared = _declared(name, distribution)
        clear_trial_cache(self._study)
        sampler = self._study.sampler
        try:
            return self._draw(
                number,
                name,
                declared,
                self._relative(number, sampler),
                sampler,
            )
        except Exception as raised:  # noqa: BLE001  # a user's sampler
            return self._suggest_at_random(number, name, declared, raised)

    def _suggest_at_random(
        self,
        number: int,
        name: str,
        declared: BaseDistribution,
        raised: Exception,
    ) -> ParamValue:
        try:
            drawn = self._draw(number, name, declared, {}, self._fallback)
        except ValueError as error:
            text = f"parameter {name!r} is declared in different ways: {error}"
            raise BadReport(text) from error
        except Exception as error:  # an objective's mistake ends its trial, not the study
            text = f"nothing can be drawn for parameter {name!r}: {error!r}"
            raise BadReport(text) from error
        component = f"sampler {self._sampler_name}, in whose place {name} is drawn at random,"
        self._memory.record_error(number, component, raised)
        return drawn

    def draw_all(
        self,
        number: int,
        sampler: BaseSampler,
    ) -> dict[str, ParamValue]:
        """Draw all parameters of a trial, in the order of the space."""
        reseed(sampler, self.seed, number)
        self._alone = []
        params: dict[str, ParamValue] = {}
        with self._teaching():
            trial = self._memory.get_trial(number)
            sampler.before_trial(study_of_bracket(self._study, trial), trial)
            relative = self._relative(number, sampler) if self.space.distributions else {}
            for name, distribution in self.space.distributions.items():
                if self.space.active(name, params):
                    params[name] = self._draw(
                        number,
                        name,
                        distribution,
                        relative,
                        sampler,
                    )
        return params

    def on_trial_end(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell the sampler that a trial is about to finish."""
        clear_trial_cache(self._study)
        self._relative_of.pop(number, None)
        trial = self._memory.get_trial(number)
        try:
            with self._teaching():
                self._study.sampler.after_trial(
                    study_of_bracket(self._study, trial),
                    trial,
                    state,
                    values,
                )
        except Exception as error:  # noqa: BLE001  # a user's sampler must not lose the outcome
            self._memory.record_error(
                number,
                f"sampler {self._sampler_name}",
                error,
            )

    def forget(self, number: int) -> None:
        """Forget a trial that was removed, as if it had never been drawn."""
        self._relative_of.pop(number, None)

    def widen(self, space: Space) -> None:
        """Draw from a wider space, as after a restart."""
        self.space = space
        self.is_cold_start = True
        self._relative_of.clear()

    def version(self, number: int) -> str:
        """Return the version that the sampler gave with its last draw for that trial."""
        reason = self._sampler_reason(number)
        if reason is None:
            return VERSION
        return str(self._merged({"version": VERSION}, reason)["version"])

    def _sampler_reason(self, number: int) -> Reason | None:
        return reason_of(self._study.sampler, number, self._memory.record_error)

    @contextmanager
    def _teaching(self) -> Iterator[None]:
        """Show the sampler the trials of earlier studies within the block."""
        if self._warm_start is None:
            yield
            return
        own = self._memory.get_all_trials(self._memory.study_id, deepcopy=False)
        with self._memory.with_extra_trials(self._warm_start.shown(own)):
            clear_trial_cache(self._study)
            yield
        clear_trial_cache(self._study)

    def _relative(self, number: int, sampler: BaseSampler) -> Mapping[str, Any]:
        """Return the values that the sampler draws jointly, once per trial."""
        if number not in self._relative_of:
            trial = self._memory.get_trial(number)
            study = study_of_bracket(self._study, trial)
            together = sampler.infer_relative_search_space(study, trial)
            self._relative_of[number] = sampler.sample_relative(
                study,
                trial,
                together,
            )
        return self._relative_of[number]

    def _draw(
        self,
        number: int,
        name: str,
        distribution: BaseDistribution,
        relative: Mapping[str, Any],
        sampler: BaseSampler,
    ) -> ParamValue:
        trial = self._memory.get_trial(number)
        if name in trial.params:
            known: ParamValue = trial.params[name]
            return known
        fixed = trial.system_attrs.get(FIXED_PARAMS, {})
        # Samplers compute steps in binary and bounds through logarithms. Each step and each
        # bound gets its one value here, where proposals enter.
        relative_value = canonical(distribution, relative.get(name))
        if name in fixed and not _holds(distribution, fixed[name]):
            self._memory.note(
                number,
                f"enqueued with {name} = {fixed[name]!r}, which is none of {distribution}",
            )
        if name in fixed and _holds(distribution, fixed[name]):
            value = fixed[name]
        elif name in relative and _holds(distribution, relative_value):
            value = relative_value
        else:
            self._alone.append(name)
            value = sampler.sample_independent(
                study_of_bracket(self._study, trial),
                trial,
                name,
                distribution,
            )
        internal = distribution.to_internal_repr(canonical(distribution, value))
        self._memory.set_trial_param(number, name, internal, distribution)
        drawn: ParamValue = distribution.to_external_repr(internal)
        return drawn

    def _merged(
        self,
        details: Mapping[str, Any],
        reason: Reason,
    ) -> dict[str, Any]:
        """Merge a sampler's details into ours.

        `sampler` is the name in the spec, `by` is what drew instead.
        """
        its = {key: value for key, value in reason.details.items() if value is not None}
        if isinstance(its.get("nearest"), list):
            its["nearest"] = [self._near(one) for one in its["nearest"] if isinstance(one, Mapping)]
        by = its.pop("sampler", None)
        if by is not None and "version" not in its:
            its["version"] = by  # the sampler gives its name and version as one text
        elif by not in (None, self._sampler_name):
            its["by"] = by
        return {**details, **its}

    def _near(self, one: Mapping[str, Any]) -> dict[str, Any]:
        """Format a nearby trial alike for all samplers: number, distance, value, and its study."""
        number = one.get("number", one.get("trial"))
        value, *_ = one.get("values") or (one.get("value"),)
        made = {
            "number": number,
            "distance": one.get("distance"),
            "value": value,
        }
        origin = None
        if self._warm_start is not None and isinstance(number, int):
            origin = self._warm_start.origin(number)
        if origin is None:
            return made
        return {**made, "study": origin[0], "number": origin[1]}

    def _name_sources(self, text: str) -> str:
        """Name trials of earlier studies in a sampler's sentence by their own numbers."""

        def name(found: re.Match[str]) -> str:
            origin = self._warm_start.origin(int(found[1])) if self._warm_start else None
            return found[0] if origin is None else f"trial {origin[1]} of {origin[0]}"

        return re.sub(r"\btrial (-\d+)", name, text)


def _declared(name: str, distribution: str) -> BaseDistribution:
    """Parse the distribution that an objective declares."""
    try:
        declared = json_to_distribution(distribution)
    except Exception as error:  # any text may come from an objective
        text = f"parameter {name!r} has no distribution that can be read: {error!r}"
        raise BadReport(text) from error
    if not isinstance(declared, IntDistribution):
        return declared
    if max(abs(declared.low), abs(declared.high)) > MAX_EXACT:
        raise BadReport(
            f"parameter {name!r} goes beyond 2**53, where not every whole number can be kept: "
            "suggest the number less an offset, and add that in the objective"
        )
    return declared


def configuration(params: Mapping[str, ParamValue]) -> int:
    """Return a hash that identifies a configuration; the parameters would take 1 kB per trial."""
    return hash(frozenset((name, repr(value)) for name, value in params.items()))


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    """True if a value is one of the distribution's; `true` and 1 are different choices."""
    if isinstance(distribution, CategoricalDistribution):
        return any(is_same(value, choice) for choice in distribution.choices)
    try:
        return holds(distribution, value)
    except (ValueError, TypeError):
        return False
