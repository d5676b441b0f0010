"""The optimizer: ask, report, prune and tell over one study in memory.

Knows trials, never attempts, executors or the database. What it changes collects in `memory.batch`. It draws all
parameters of a trial at once, parents of conditional parameters before their children, through the public methods
of Optuna's `BaseSampler`; `optuna.Trial` is not used, because building one again after a restart would run the
sampler's `before_trial` once more.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.pruners import BasePruner, _filter_study
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.errors import BadReport
from tunesvc.objective import is_name
from tunesvc.search.ahead import DRAWN, Ahead, Drawn, Proposal, Repeatable
from tunesvc.search.curves import forget_models, look_again
from tunesvc.search.history import history_of
from tunesvc.search.memory import FAILURE, StudyMemory
from tunesvc.search.objectives import cut, points_of, signs_of
from tunesvc.search.pausing import RESUMED, Instead, Promotes
from tunesvc.search.reasons import Explains, Reason
from tunesvc.search.seeding import reseed, seed_of
from tunesvc.search.warmstart import CARRIED, Teacher
from tunesvc.space import Space
from tunesvc.spec import ParamValue
from tunesvc.store.batch import Batch, Decision

CONSTRAINT = "constraints:"
"""Prefix of Optuna's own system attributes for constraint values, which its samplers read."""
FIXED = "fixed_params"
"""Optuna's own system attribute for the values of an enqueued trial."""
ORIGIN = "tunesvc:origin"
"""System attribute of an enqueued trial: where its values come from, in words."""
VERSION = f"optuna {optuna.__version__}"
"""Of the samplers and pruners that do not say their own."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The pruner wants a trial stopped, and this is what it rests on."""

    reason: str
    details: Mapping[str, Any]
    stop: bool = True
    """False: it would have been stopped, and goes on to show whether that would have been right (an audit)."""
    pause: bool = False
    """Whether it is only paused: it may be promoted later."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """A paused trial goes on, and this is why."""

    number: int
    reason: str
    details: Mapping[str, Any]


class Optimizer:
    """Ask / report / prune / tell. Not thread-safe: one coordinator drives it."""

    def __init__(
        self,
        memory: StudyMemory,
        space: Space,
        sampler: BaseSampler,
        pruner: BasePruner,
        *,
        sampler_name: str,
        pruner_name: str,
        prune_before_step: int | None = None,
        trials_max: int | None = None,
        seed: int | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        """Search one study.

        Args:
            prune_before_step: from this step on a trial is as good as finished, and is left to finish.
            trials_max: how many different trials the sampler can propose; it would repeat itself after that.
            seed: with a trial's number, it decides what is drawn for that trial; from entropy when None.
            teacher: what earlier studies teach the sampler.
        """
        self.memory = memory
        self.space = space
        name = memory.get_study_name_from_id(memory.study_id)
        self.study = optuna.load_study(study_name=name, storage=memory, sampler=sampler, pruner=pruner)
        # Grid and brute-force samplers call `study.stop` when nothing is left, which Optuna allows in its loop only.
        self.study._thread_local.in_optimize_loop = True
        self._sampler_name = sampler_name
        self._pruner_name = pruner_name
        self._prune_before_step = prune_before_step
        self._trials_max = trials_max
        self._size = space.size if space.parameters else None
        self._seed = seed_of(seed)
        self._fallback = RandomSampler()
        self._fresh = True
        self._kept: set[int] = set()
        self._paused: dict[int, int] = {}
        self._nobody: tuple[Instead, int] | None = None
        """What was to be done instead, and after how many changes, when the pruner let nobody go on."""
        self._teacher = None if trials_max is not None else teacher  # who tries everything once learns nothing
        self._ahead: Ahead = deque()
        self._waiting = deque(t.number for t in self.trials if t.state == TrialState.WAITING)
        self._relative_of: dict[int, Mapping[str, Any]] = {}
        self._finished = sum(trial.state.is_finished() for trial in self.trials)
        self._tried = {configuration(t.params) for t in self.trials if t.state != TrialState.WAITING}
        self.withdrawn = sum(t.state == TrialState.FAIL and t.datetime_start is None for t in self.trials)
        """How many enqueued trials were taken back before they were asked for."""

    @property
    def seed(self) -> int:
        """With a trial's number, it decides what is drawn for that trial."""
        return self._seed

    @property
    def trials(self) -> Sequence[FrozenTrial]:
        """All trials, in order of their numbers, but for those drawn ahead. Do not change them."""
        trials = self.memory.get_all_trials(self.memory.study_id, deepcopy=False)
        return trials[: len(trials) - len(self._ahead)]

    @property
    def count(self) -> int:
        """How many trials there are, but for those drawn ahead."""
        return self.memory.count - len(self._ahead)

    @property
    def exhausted(self) -> bool:
        """Whether the sampler says that there is nothing left to try."""
        if self._waiting:
            return False
        complete = self._trials_max is not None and len(self._tried) >= self._trials_max
        return complete or bool(self.study._stop_flag)

    def trial(self, number: int) -> FrozenTrial:
        """One trial. Do not change it."""
        return self.memory.get_trial(number)

    @property
    def enqueued(self) -> int:
        """How many trials wait to be asked for."""
        return len(self._waiting)

    def warm_up(self) -> None:
        """Enqueue the best that earlier studies know, and record what they teach. Once, for a study without trials."""
        if self._teacher is None:
            return
        counts = self._teacher.counts
        self.memory.batch.decisions.append(Decision(None, "sampler", self._teacher.reason, {"carried": counts}))
        for one in self._teacher.first():
            number = self.enqueue(one.params, f"trial {one.number} of {one.study}, which had {one.value:.6g}")
            self.memory.set_trial_system_attr(number, CARRIED, [one.study, one.number])

    def enqueue(self, params: Mapping[str, ParamValue], origin: str = "") -> int:
        """Make a trial with given values, to be asked before any other; the sampler fills in what is not given.

        Args:
            origin: where the values come from, told when the trial is asked.

        Raises:
            SpecError: a parameter does not exist, or the value is outside its range.
        """
        if self.space.parameters:  # else the objective declares them, and decides what fits
            self.space.check(params)
        self._drop_ahead()
        template = create_trial(state=TrialState.WAITING, system_attrs=queued(params, origin))
        number = self.memory.create_new_trial(self.memory.study_id, template)
        self._waiting.append(number)
        return number

    def withdraw(self, number: int) -> None:
        """Take a trial back that is enqueued and was not asked for yet: it ends as failed, and counts for nothing."""
        self._waiting.remove(number)
        self.memory.set_trial_state_values(number, TrialState.FAIL)
        self.withdrawn += 1

    def widen(self, space: Space, sampler: BaseSampler, pruner: BasePruner, trials_max: int | None) -> None:
        """Go on in a wider space with a sampler and a pruner that know it, as after a restart."""
        self._drop_ahead()
        self.space, self._trials_max = space, trials_max
        self._size = space.size if space.parameters else None
        self.study.sampler, self.study.pruner = sampler, pruner
        self.memory.restate(space)
        look_again(self.study)
        self._fresh = True
        self._relative_of.clear()
        self.study._stop_flag = False

    def ask(self) -> Proposal:
        """A new trial with all its parameters. A sampler that raises is replaced by chance for this one trial."""
        if self._ahead and self._finished >= self._ahead[0].stale_from:
            self._drop_ahead()
        if self._ahead:
            drawn = self._ahead.popleft()
            drawn.record(self.memory.batch)
            proposal = drawn.proposal
        else:
            proposal = self._propose()
        self._tried.add(configuration(proposal.params))
        return proposal

    @property
    def ahead(self) -> int:
        """How many proposals are ready."""
        return len(self._ahead)

    def draw_ahead(self, moment: str, lasting: int) -> bool:
        """Make one more proposal ready; False when that cannot be, or nothing is left to propose.

        Args:
            moment: of the study as it is now, for replay: see `DRAWN`.
            lasting: how many results may come in before it has to be drawn anew.
        """
        sampler = self.study.sampler
        repeatable = isinstance(sampler, Repeatable) and sampler.repeatable
        if not repeatable or not self.space.parameters or self._waiting or self.exhausted:
            return False
        kept, changes = self.memory.batch, self.memory.changes
        self.memory.batch = Batch()
        try:
            proposal = self._propose()
            drawn = replace(proposal, details={**proposal.details, DRAWN: moment})
            self._ahead.append(Drawn(drawn, self.memory.batch, self._finished + lasting))
        finally:
            self.memory.batch = kept
            self.memory.changes = changes  # no pruner sees anything of it
        return True

    def _drop_ahead(self) -> None:
        """Throw away what is ready. The next ask begins anew, as after a restart: what is gone taught nothing."""
        for drawn in self._ahead:
            self._relative_of.pop(drawn.proposal.number, None)
        if self._ahead:
            self.memory.drop_last(len(self._ahead))
            self._ahead.clear()
            self._fresh = True

    def _propose(self) -> Proposal:
        self._forget_cached_trials()
        enqueued = bool(self._waiting)
        number = self._next_waiting() if enqueued else self.memory.create_new_trial(self.memory.study_id)
        details: dict[str, Any] = {"sampler": self._sampler_name, "version": VERSION, "seed": self._seed}
        if self._fresh:  # a sampler that keeps something between asks begins without it, and so do the models of curves
            self._fresh, details["fresh"] = False, True
            forget_models(self.study)
        try:
            params = self._draw_all(number, self.study.sampler)
        except Exception as error:  # noqa: BLE001 - a sampler is anybody's code; the study must go on
            message = f"{type(error).__name__}: {error}"
            params = self._draw_all(number, self._fallback)
            reason = f"drawn at random, because sampler {self._sampler_name} raised {message}"
            return Proposal(number, params, reason, {**details, "sampler": "random"}, sampler_error=message)
        if enqueued:
            note = self.trial(number).system_attrs.get(ORIGIN, "")
            return Proposal(
                number, params, f"enqueued: {note}" if note else "enqueued", {**details, "phase": "enqueued"}
            )
        told = self._reason_of(self.study.sampler, number)
        if told is not None:
            return Proposal(number, params, self._named(told.text), self._detailed(details, told))
        reason = f"proposed by {self._sampler_name} from {self._finished} finished trials"
        return Proposal(number, params, reason, details)

    def suggest(self, number: int, name: str, distribution: str) -> ParamValue:
        """A value for a parameter that the objective itself declares (define-by-run).

        Args:
            distribution: as `optuna.distributions.distribution_to_json` writes it.

        Raises:
            BadReport: the name cannot be stored, or other trials declare the parameter in another way.
        """
        if not is_name(name):
            raise BadReport(f"{name!r} is no name for a parameter: a text of 1 to 200 characters without NUL")
        declared = json_to_distribution(distribution)
        self._forget_cached_trials()
        try:
            return self._draw(number, name, declared, self._relative(number, self.study.sampler), self.study.sampler)
        except Exception:  # noqa: BLE001  # a sampler is anybody's code
            try:
                return self._draw(number, name, declared, {}, self._fallback)
            except ValueError as error:
                raise BadReport(f"parameter {name!r} is declared in different ways: {error}") from error

    def remember(self, number: int, name: str, value: str) -> None:
        """Keep a user attribute of a trial; one whose name cannot be stored is left out.

        Args:
            value: as JSON.
        """
        if is_name(name):
            self.memory.set_trial_user_attr(number, name, json.loads(value))

    def report(self, number: int, step: int, value: float, *others: float | None) -> None:
        """A point of the trial's curve. A later attempt's value replaces an earlier one's.

        Args:
            value: the first objective's.
            others: those of the other objectives; None where the report did not bear one.
        """
        self.memory.set_trial_intermediate_value(number, step, value)
        if others:
            self.memory.set_others(number, step, others)

    def verdict(self, number: int, steps: Sequence[int] | None = None) -> Verdict | None:
        """Whether the pruner wants the trial stopped, and why.

        Args:
            steps: those that it has not seen yet, all of them or the last one by default. It is asked about each in
                turn, as if the later ones were not there: reports that arrive together must not be judged otherwise
                than reports that arrive one by one. A trial that was promoted is not judged where it had been before.
        """
        known = points_of(self.trial(number), len(self.study.directions))
        if not known:
            return None
        passed = self.trial(number).system_attrs.get(RESUMED, {}).get("step", -1)
        for step in sorted(step for step in steps or [max(known)] if step in known and step > passed):
            if self._prune_before_step is not None and step >= self._prune_before_step:
                return None
            trial = cut(self.trial(number), step)
            if self._is_poor(trial):
                return self._explain(trial, step)
            if number not in self._kept and (audit := self._audit(number)) is not None:
                return audit
        return None

    def pause(self, number: int, after_step: int) -> None:
        """The trial holds its worker no longer; it may be promoted.

        Args:
            after_step: where it would go on; -1: from the start.
        """
        self._paused[number] = after_step
        self.memory.pause(number)

    def promotion(self, *, asks: bool) -> Promotion | None:
        """The paused trial that goes on now, if its pruner wants that more than what else could be done.

        Args:
            asks: whether a new trial may be asked instead.
        """
        if not self._paused or not self._pauses:
            return None
        self._forget_cached_trials()
        instead = Instead.NOTHING if not asks else Instead.REPEAT if self._covered else Instead.NEW
        if self._nobody == (instead, self.memory.changes):
            return None  # it decides from curves alone, which can take long, and they are as they were
        try:
            number = self.study.pruner.promotion(self.study, self._paused, instead)  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001  # a pruner is anybody's code
            self._complain(None, f"pruner {self._pruner_name}", error)
            return None
        if number is None:
            self._nobody = instead, self.memory.changes
            return None
        told = self._reason_of(self.study.pruner, number) or Reason(f"chosen by {self._pruner_name}", {})
        details = {"pruner": self._pruner_name, "instead": instead, "after_step": self._paused[number]}
        return Promotion(number, told.text, {**told.details, **details})

    def promote(self, number: int, details: Mapping[str, Any]) -> None:
        """The trial runs again. What it had reported after its checkpoint is to be forgotten beside this."""
        step = self.trial(number).last_step
        passed = {"step": -1 if step is None else step, "chance": details.get("chance")}
        self.memory.set_trial_system_attr(number, RESUMED, passed)
        self.memory.resume(number)
        del self._paused[number]

    def tell(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None = None,
        *,
        constraints: Mapping[str, float] | None = None,
        attrs: Mapping[str, float] | None = None,
        failure: str | None = None,
    ) -> None:
        """Finish a trial.

        Args:
            values: one per objective. For a pruned trial its last intermediate value, if it has one.
            constraints: outcome constraints by name, feasible where <= 0.
            attrs: further metrics, kept as user attributes.
            failure: of a failed trial, the class of what ended it. What its parameters caused, samplers learn from.
        """
        if failure is not None:
            self.memory.set_trial_system_attr(number, FAILURE, failure)
        for name, value in (attrs or {}).items():
            self.memory.set_trial_user_attr(number, name, value)
        for name, excess in (constraints or {}).items():
            self.memory.set_trial_system_attr(number, CONSTRAINT + name, excess)
        self._forget_cached_trials()
        self._relative_of.pop(number, None)
        self._kept.discard(number)
        self._paused.pop(number, None)
        self.memory.resume(number)
        trial = self.trial(number)
        try:
            with self._teaching():
                self.study.sampler.after_trial(_filter_study(self.study, trial), trial, state, values)
        except Exception as error:  # noqa: BLE001  # a sampler is anybody's code; the outcome must not be lost for it
            self._complain(number, f"sampler {self._sampler_name}", error)
        self.memory.set_trial_state_values(number, state, values)
        self._finished += 1

    def _next_waiting(self) -> int:
        number = self._waiting.popleft()
        self.memory.set_trial_state_values(number, TrialState.RUNNING)
        return number

    def _draw_all(self, number: int, sampler: BaseSampler) -> dict[str, ParamValue]:
        reseed(sampler, self._seed, number)
        params: dict[str, ParamValue] = {}
        with self._teaching():
            trial = self.trial(number)
            sampler.before_trial(_filter_study(self.study, trial), trial)
            relative = self._relative(number, sampler) if self.space.distributions else {}
            for name, distribution in self.space.distributions.items():
                if self.space.active(name, params):
                    params[name] = self._draw(number, name, distribution, relative, sampler)
        return params

    @contextmanager
    def _teaching(self) -> Iterator[None]:
        """While the sampler is asked or told, it sees what earlier studies lend."""
        if self._teacher is None:
            yield
            return
        with self.memory.lending(self._teacher.shown(self.trials)):
            self._forget_cached_trials()
            yield
        self._forget_cached_trials()

    def _is_poor(self, trial: FrozenTrial) -> bool:
        self._forget_cached_trials()
        try:
            return self.study.pruner.prune(self.study, trial)
        except Exception as error:  # noqa: BLE001  # a pruner is anybody's code; without its word the trial goes on
            self._complain(trial.number, f"pruner {self._pruner_name}", error)
            return False

    @property
    def _pauses(self) -> bool:
        return isinstance(self.study.pruner, Promotes) and self.study.pruner.pauses

    @property
    def _covered(self) -> bool:
        """Whether there is nothing new to try."""
        return self.exhausted or (self._size is not None and len(self._tried) >= self._size)

    def _complain(self, number: int | None, who: str, error: Exception) -> None:
        reason = f"{who} raised {type(error).__name__}: {error}"
        self.memory.batch.decisions.append(Decision(number, "sampler", reason, {}))

    def _relative(self, number: int, sampler: BaseSampler) -> Mapping[str, Any]:
        """Values that the sampler draws jointly; once per trial, however many parameters are asked for one by one."""
        if number not in self._relative_of:
            trial = self.trial(number)
            study = _filter_study(self.study, trial)
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
        trial = self.trial(number)
        if name in trial.params:
            known: ParamValue = trial.params[name]
            return known
        fixed = trial.system_attrs.get(FIXED, {})
        if name in fixed and _holds(distribution, fixed[name]):
            value = fixed[name]
        elif name in relative and _holds(distribution, relative[name]):
            value = relative[name]
        else:
            value = sampler.sample_independent(_filter_study(self.study, trial), trial, name, distribution)
        internal = distribution.to_internal_repr(value)
        self.memory.set_trial_param(number, name, internal, distribution)
        drawn: ParamValue = distribution.to_external_repr(internal)
        return drawn

    def _explain(self, trial: FrozenTrial, step: int) -> Verdict:
        """The pruner's reason, or else what the value looks like beside those of the other trials at the same step."""
        told = self._reason_of(self.study.pruner, trial.number) or Reason("", {})
        reason, details = told.text or f"{self._pruner_name} stopped it", told.details
        if len(self.study.directions) == 1 and "rank" not in details:
            beside, ranks = self._rank_at(trial, step)
            reason, details = told.text or beside, {**ranks, **details}
        return Verdict(reason, {"step": step, "pruner": self._pruner_name, **details}, pause=self._pauses)

    def _rank_at(self, trial: FrozenTrial, step: int) -> tuple[str, Mapping[str, Any]]:
        """What the trial's value at a step looks like beside those of all others there."""
        value, sign = trial.intermediate_values[step], float(signs_of(self.study)[0])
        place = history_of(self.study, self.study.get_trials(deepcopy=False)).place(trial.number, step, value)
        reason = (
            f"{self._pruner_name}: {value:.6g} at step {step} would be number {place.rank_finished} among the "
            f"{place.finished} finished trials there, and is number {place.rank} of all {place.of}"
        )
        best = None if place.best is None else sign * place.best
        details: dict[str, Any] = {"value": value, "rank": place.rank, "of": place.of, "best": best}
        return reason, {**details, "rank_finished": place.rank_finished, "finished": place.finished}

    def _audit(self, number: int) -> Verdict | None:
        """The pruner's word that the trial goes on only to show whether stopping it would have been right; once."""
        told = self._reason_of(self.study.pruner, number)
        if told is None or not told.details.get("audit"):
            return None
        self._kept.add(number)
        return Verdict(told.text, {"pruner": self._pruner_name, **told.details}, stop=False)

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
        number, (value, *_) = one.get("number", one.get("trial")), one.get("values") or (one.get("value"),)
        made = {"number": number, "distance": one.get("distance"), "value": value}
        origin = self._teacher.origin(number) if self._teacher and isinstance(number, int) else None
        return made if origin is None else {**made, "study": origin[0], "number": origin[1]}

    def _named(self, text: str) -> str:
        """A sampler's sentence, trials of earlier studies named by their own numbers."""

        def name(found: re.Match[str]) -> str:
            origin = self._teacher.origin(int(found[1])) if self._teacher else None
            return found[0] if origin is None else f"trial {origin[1]} of {origin[0]}"

        return re.sub(r"\btrial (-\d+)", name, text)

    def _reason_of(self, chooser: object, number: int) -> Reason | None:
        if not isinstance(chooser, Explains):
            return None
        try:
            return chooser.explain(number)
        except Exception as error:  # noqa: BLE001  # anybody's code; a choice without its reason is still a choice
            self._complain(number, type(chooser).__name__, error)
            return None

    def _forget_cached_trials(self) -> None:
        # Optuna caches the list of trials per thread between ask and tell; our memory is as fast as that cache.
        self.study._thread_local.cached_all_trials = None


def queued(params: Mapping[str, ParamValue], origin: str = "") -> dict[str, Any]:
    """The system attributes of a trial that is enqueued with these values."""
    return {FIXED: dict(params), **({ORIGIN: origin} if origin else {})}


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value is one of the distribution's."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False


def configuration(params: Mapping[str, ParamValue]) -> int:
    """A hash by which different parameters are counted: they themselves would take a kilobyte of each trial."""
    return hash(frozenset((name, repr(value)) for name, value in params.items()))
