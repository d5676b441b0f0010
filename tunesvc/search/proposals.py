"""How a new trial gets its parameters: a sampler draws them, and says why.

All parameters of a trial are drawn at once, parents of conditional ones before their children, through the public
methods of Optuna's `BaseSampler`; `optuna.Trial` is not used, because building one again after a restart would run the
sampler's `before_trial` once more. A sampler is anybody's code: where it raises, chance takes its place for that trial.
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
from optuna.pruners import _filter_study
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import TrialState

from tunesvc.errors import BadReport
from tunesvc.search.explanations import Reason, reason_of
from tunesvc.search.prefetched_proposals import Proposal
from tunesvc.search.pruners.curve.curve_model import refit
from tunesvc.search.registry.sampler_registry import RANDOM_ALONE
from tunesvc.search.seeding import reseed, seed_of
from tunesvc.search.study_storage import RecordingStorage, clear_trial_cache
from tunesvc.search.warm_start import WarmStart
from tunesvc.space.search_space import Space, canonical
from tunesvc.spec import ParamValue
from tunesvc.spec.conditions import is_same
from tunesvc.spec.model import MAX_EXACT
from tunesvc.trial import is_name

FIXED = "fixed_params"
"""Optuna's own system attribute for the values of an enqueued trial."""
ORIGIN = "tunesvc:origin"
"""System attribute of an enqueued trial: where its values come from, in words."""
VERSION = f"optuna {optuna.__version__}"
"""Of the samplers that do not say their own."""


class Proposer:
    """For one study, in memory."""

    def __init__(
        self,
        memory: RecordingStorage,
        study: Study,
        space: Space,
        sampler_name: str,
        seed: int | None,
        warm_start: WarmStart | None,
    ) -> None:
        """Args as for `Optimizer`."""
        self._memory = memory
        self._study = study
        self.space = space
        self._sampler_name = sampler_name
        self.seed = seed_of(seed)
        """With a trial's number, it decides what is drawn for that trial."""
        self._warm_start = warm_start
        self._fallback = RandomSampler()
        self._relative_of: dict[int, Mapping[str, Any]] = {}
        self._alone: list[str] = []
        """Parameters of the last trial that the sampler did not propose together with others."""
        self.is_cold_start = True
        """Whether the next draw begins without what sampler and models of curves have kept."""
        self.is_distinct = False
        """Whether a proposal that was tried before becomes another one."""

    def propose(self, number: int, *, enqueued: bool, finished: int) -> Proposal:
        """Parameters for a new trial.

        Args:
            enqueued: whether it brings values of its own.
            finished: how many trials have.
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
        except Exception as error:  # noqa: BLE001 - a sampler is anybody's code; the study must go on
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
        if enqueued:
            note = self._memory.get_trial(number).system_attrs.get(ORIGIN, "")
            return Proposal(
                number,
                params,
                f"enqueued: {note}" if note else "enqueued",
                {**details, "phase": "enqueued"},
            )
        told = self._told(number)
        reason, details = self._unexplained(params, finished, details)
        if told is not None:
            reason, details = self._named(told.text), self._detailed(details, told)
        untried = self.nearest_untried(number, params) if self.is_distinct else None
        if untried is not None:
            self._memory.forget_params(number)
            for name, value in untried.items():
                distribution = self.space.distributions[name]
                self._memory.set_trial_param(
                    number,
                    name,
                    distribution.to_internal_repr(value),
                    distribution,
                )
            params, details = untried, {**details, "untried": True}
            reason += "; moved to the nearest configuration that has not been tried"
        return Proposal(number, params, reason, details)

    def _unexplained(
        self,
        params: Mapping[str, ParamValue],
        finished: int,
        details: dict[str, Any],
    ) -> tuple[str, dict[str, Any]]:
        """Why, for a sampler that gives no reasons: what it leaves to chance is not proposed by it."""
        name = self._sampler_name
        if not self.space.parameters:
            return (
                f"proposed by {name} from {finished} finished trials, one parameter at a time",
                details,
            )
        if name not in RANDOM_ALONE or not self._alone:
            return f"proposed by {name} from {finished} finished trials", details
        if len(self._alone) == len(params):
            return f"drawn at random, because {name} has nothing to propose yet", {
                **details,
                "by": "random",
            }
        alone = ", ".join(self._alone)
        told = f"proposed by {name} from {finished} finished trials, except {alone}, drawn at random"
        return told, {**details, "drawn_at_random": self._alone}

    def nearest_untried(
        self,
        number: int,
        params: Mapping[str, ParamValue],
    ) -> dict[str, ParamValue] | None:
        """The configuration nearest to these parameters that no other trial has; None if these are such ones."""
        trials = self._memory.get_all_trials(self._memory.study_id, deepcopy=False)
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
        """A value for a parameter that the objective itself declares (define-by-run).

        Args:
            distribution: as `optuna.distributions.distribution_to_json` writes it.

        Raises:
            BadReport: the name cannot be stored, the values cannot be kept exactly, other trials declare the parameter
                in another way, or nothing can be drawn for it.
        """
        if not is_name(name):
            raise BadReport(f"{name!r} is no name for a parameter: a text of 1 to 200 characters without NUL")
        declared = _declared(name, distribution)
        clear_trial_cache(self._study)
        try:
            return self._draw(
                number,
                name,
                declared,
                self._relative(number, self._study.sampler),
                self._study.sampler,
            )
        except Exception as raised:  # noqa: BLE001  # a sampler is anybody's code
            try:
                drawn = self._draw(number, name, declared, {}, self._fallback)
                told = f"sampler {self._sampler_name}, in whose place {name} is drawn at random,"
                self._memory.record_error(number, told, raised)
                return drawn
            except ValueError as error:
                raise BadReport(f"parameter {name!r} is declared in different ways: {error}") from error
            except Exception as error:  # what an objective asks for ends its trial, and nothing else
                raise BadReport(f"nothing can be drawn for parameter {name!r}: {error!r}") from error

    def draw_all(self, number: int, sampler: BaseSampler) -> dict[str, ParamValue]:
        """All parameters of a trial, in the order of the space."""
        reseed(sampler, self.seed, number)
        self._alone = []
        params: dict[str, ParamValue] = {}
        with self._teaching():
            trial = self._memory.get_trial(number)
            sampler.before_trial(_filter_study(self._study, trial), trial)
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

    def over(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Tell the sampler that a trial is about to end."""
        clear_trial_cache(self._study)
        self._relative_of.pop(number, None)
        trial = self._memory.get_trial(number)
        try:
            with self._teaching():
                self._study.sampler.after_trial(
                    _filter_study(self._study, trial),
                    trial,
                    state,
                    values,
                )
        except Exception as error:  # noqa: BLE001  # a sampler is anybody's code; the outcome must not be lost for it
            self._memory.record_error(number, f"sampler {self._sampler_name}", error)

    def forget(self, number: int) -> None:
        """The trial was taken back, as if it had never been drawn."""
        self._relative_of.pop(number, None)

    def go_on_in(self, space: Space) -> None:
        """Draw from a wider space, as after a restart."""
        self.space = space
        self.is_cold_start = True
        self._relative_of.clear()

    def version(self, number: int) -> str:
        """Of the sampler, as it says for its last draw for that trial."""
        told = self._told(number)
        return str(VERSION if told is None else self._detailed({"version": VERSION}, told)["version"])

    def _told(self, number: int) -> Reason | None:
        return reason_of(self._study.sampler, number, self._memory.record_error)

    @contextmanager
    def _teaching(self) -> Iterator[None]:
        """While the sampler is asked or told, it sees what earlier studies lend."""
        if self._warm_start is None:
            yield
            return
        with self._memory.with_extra_trials(
            self._warm_start.shown(self._memory.get_all_trials(self._memory.study_id, deepcopy=False))
        ):
            clear_trial_cache(self._study)
            yield
        clear_trial_cache(self._study)

    def _relative(self, number: int, sampler: BaseSampler) -> Mapping[str, Any]:
        """Values that the sampler draws jointly; once per trial, however many parameters are asked for one by one."""
        if number not in self._relative_of:
            trial = self._memory.get_trial(number)
            study = _filter_study(self._study, trial)
            together = sampler.infer_relative_search_space(study, trial)
            self._relative_of[number] = sampler.sample_relative(study, trial, together)
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
        fixed = trial.system_attrs.get(FIXED, {})
        # Samplers compute steps in binary, and bounds through logarithms; here, where proposals enter, each step and
        # each bound gets its one value.
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
                _filter_study(self._study, trial),
                trial,
                name,
                distribution,
            )
        internal = distribution.to_internal_repr(canonical(distribution, value))
        self._memory.set_trial_param(number, name, internal, distribution)
        drawn: ParamValue = distribution.to_external_repr(internal)
        return drawn

    def _detailed(self, details: Mapping[str, Any], told: Reason) -> dict[str, Any]:
        """A sampler's own details beside ours: `sampler` is what the spec names, `by` is who drew in its place."""
        its = {key: value for key, value in told.details.items() if value is not None}
        if isinstance(its.get("nearest"), list):
            its["nearest"] = [self._near(one) for one in its["nearest"] if isinstance(one, Mapping)]
        by = its.pop("sampler", None)
        if by is not None and "version" not in its:
            its["version"] = by  # it names itself with its version
        elif by not in (None, self._sampler_name):
            its["by"] = by
        return {**details, **its}

    def _near(self, one: Mapping[str, Any]) -> dict[str, Any]:
        """One of the nearest trials, alike for all samplers: `number`, `distance`, `value`, `study` if another's."""
        number, (value, *_) = (
            one.get("number", one.get("trial")),
            one.get("values") or (one.get("value"),),
        )
        made = {"number": number, "distance": one.get("distance"), "value": value}
        origin = self._warm_start.origin(number) if self._warm_start and isinstance(number, int) else None
        return made if origin is None else {**made, "study": origin[0], "number": origin[1]}

    def _named(self, text: str) -> str:
        """A sampler's sentence, trials of earlier studies named by their own numbers."""

        def name(found: re.Match[str]) -> str:
            origin = self._warm_start.origin(int(found[1])) if self._warm_start else None
            return found[0] if origin is None else f"trial {origin[1]} of {origin[0]}"

        return re.sub(r"\btrial (-\d+)", name, text)


def _declared(name: str, distribution: str) -> BaseDistribution:
    """The distribution that an objective asks for."""
    try:
        declared = json_to_distribution(distribution)
    except Exception as error:  # any text may come from an objective
        raise BadReport(f"parameter {name!r} has no distribution that can be read: {error!r}") from error
    if isinstance(declared, IntDistribution) and max(abs(declared.low), abs(declared.high)) > MAX_EXACT:
        raise BadReport(
            f"parameter {name!r} goes beyond 2**53, where not every whole number can be kept: suggest the number less "
            "an offset, and add that in the objective"
        )
    return declared


def configuration(params: Mapping[str, ParamValue]) -> int:
    """A hash by which different parameters are counted: they themselves would take a kilobyte of each trial."""
    return hash(frozenset((name, repr(value)) for name, value in params.items()))


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value is one of the distribution's; true and 1 are different choices."""
    if isinstance(distribution, CategoricalDistribution):
        return any(is_same(value, choice) for choice in distribution.choices)
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False
