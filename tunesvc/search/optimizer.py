"""The optimizer: ask, report, prune and tell over one study in memory.

Owns which trials there are; `proposals` chooses their parameters and `pruning` decides which ones stop. Never hears of
attempts, executors or transactions: changes are recorded where the caller says (`record_into`).
"""

from __future__ import annotations

import json
import pickle
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.db.optuna.frozen_trials import was_withdrawn
from tunesvc.db.trial_changes import TrialChanges
from tunesvc.search.prefetched_proposals import (
    PrefetchedProposal,
    PrefetchQueue,
    Proposal,
    Reproducible,
)
from tunesvc.search.proposals import FIXED, ORIGIN, Proposer, configuration
from tunesvc.search.pruners.curve.curve_model import refit_models, reread
from tunesvc.search.pruning import Promotion, PruneDecision, PruningPolicy
from tunesvc.search.study_storage import FAILURE, RecordingStorage, clear_trial_cache
from tunesvc.search.tracking.pausing import Alternative
from tunesvc.search.warm_start import TRANSFERRED, WarmStart
from tunesvc.space.search_space import Space
from tunesvc.spec import ParamValue
from tunesvc.trial import is_name

CONSTRAINT = "constraints:"
"""Prefix of Optuna's own system attributes for constraint values, which its samplers read."""


class Optimizer:
    """Ask / report / prune / tell. Not thread-safe: one coordinator drives it."""

    def __init__(
        self,
        memory: RecordingStorage,
        space: Space,
        sampler: BaseSampler,
        pruner: BasePruner,
        *,
        sampler_name: str,
        pruner_name: str,
        prune_before_step: int | None = None,
        trials_max: int | None = None,
        seed: int | None = None,
        warm_start: WarmStart | None = None,
    ) -> None:
        """Search one study.

        Args:
            prune_before_step: from this step on a trial is as good as finished, and is left to finish.
            trials_max: after how many different trials nothing is left to try.
            seed: with a trial's number, it decides what is drawn for that trial; from entropy when None.
            teacher: what earlier studies teach the sampler.
        """
        self.memory = memory
        self.space = space
        name = memory.get_study_name_from_id(memory.study_id)
        self.study = optuna.load_study(
            study_name=name,
            storage=memory,
            sampler=sampler,
            pruner=pruner,
        )
        # Grid and brute-force samplers call `study.stop` when nothing is left, which Optuna allows in its loop only.
        self.study._thread_local.in_optimize_loop = True
        self._trials_max = trials_max
        self._size = space.size if space.parameters else None
        self._warm_start = warm_start
        self._proposer = Proposer(
            memory,
            self.study,
            space,
            sampler_name,
            seed,
            self._warm_start,
        )
        self._pruning = PruningPolicy(memory, self.study, pruner_name, prune_before_step)
        self._prefetched: PrefetchQueue = deque()
        self._waiting = deque(t.number for t in self.trials if t.state == TrialState.WAITING)
        self._is_up_to_date = True
        self._finished = sum(trial.state.is_finished() for trial in self.trials)
        self._tried = {configuration(t.params) for t in self.trials if t.state != TrialState.WAITING}
        self.cancelled = sum(map(was_withdrawn, self.trials))
        """How many enqueued trials were taken back before they were asked for."""

    @property
    def seed(self) -> int:
        """With a trial's number, it decides what is drawn for that trial."""
        return self._proposer.seed

    @property
    def trials(self) -> Sequence[FrozenTrial]:
        """All trials, in order of their numbers, but for those drawn ahead. Do not change them."""
        trials = self.memory.get_all_trials(self.memory.study_id, deepcopy=False)
        return trials[: len(trials) - len(self._prefetched)]

    @property
    def count(self) -> int:
        """How many trials there are, but for those drawn ahead."""
        return self.memory.count - len(self._prefetched)

    @property
    def exhausted(self) -> str:
        """Why there is nothing left to try; empty while there is."""
        if self._waiting:
            return ""
        if self._trials_max is not None and len(self._tried) >= self._trials_max:
            return f"all {self._trials_max} configurations have been tried"
        return "the sampler has nothing left to propose" if self.study._stop_flag else ""

    @property
    def is_distinct(self) -> bool:
        """Whether no configuration is proposed twice."""
        return self._proposer.is_distinct

    @is_distinct.setter
    def is_distinct(self, wanted: bool) -> None:
        if wanted != self._proposer.is_distinct:
            self._drop_prefetched()
        self._proposer.is_distinct = wanted

    def trial(self, number: int) -> FrozenTrial:
        """One trial. Do not change it."""
        return self.memory.get_trial(number)

    @property
    def enqueued(self) -> int:
        """How many trials wait to be asked for."""
        return len(self._waiting)

    def warm_up(self) -> None:
        """Enqueue the best that earlier studies know, and record what they teach. Once, for a study without trials."""
        if self._warm_start is None:
            return
        counts = self._warm_start.counts
        self.memory.note(None, self._warm_start.reason, {"carried": counts})
        for one in self._warm_start.first():
            number = self.enqueue(
                one.params,
                f"trial {one.number} of {one.study}, which had {one.value:.6g}",
            )
            self.memory.set_trial_system_attr(number, TRANSFERRED, [one.study, one.number])

    def enqueue(self, params: Mapping[str, ParamValue], origin: str = "") -> int:
        """Make a trial with given values, to be asked before any other; the sampler fills in what is not given.

        Args:
            origin: where the values come from, told when the trial is asked.

        Raises:
            SpecError: a parameter does not exist, or not beside the others, or the value is outside its range.
        """
        if self.space.parameters:  # else the objective declares them, and decides what fits
            params = self.space.checked(params)
        self._drop_prefetched()
        template = create_trial(
            state=TrialState.WAITING,
            system_attrs=queued(params, origin),
        )
        number = self.memory.create_new_trial(self.memory.study_id, template)
        self._waiting.append(number)
        return number

    def cancel(self, number: int) -> None:
        """Take a trial back that is enqueued and was not asked for yet: it ends as failed, and counts for nothing."""
        self._waiting.remove(number)
        self.memory.set_trial_state_values(number, TrialState.FAIL)
        self.cancelled += 1
        self._is_up_to_date = False

    def widen(
        self,
        space: Space,
        sampler: BaseSampler,
        pruner: BasePruner,
        trials_max: int | None,
    ) -> None:
        """Go on in a wider space with a sampler and a pruner that know it, as after a restart."""
        self._drop_prefetched()
        self.space, self._trials_max = space, trials_max
        self._size = space.size if space.parameters else None
        self.study.sampler, self.study.pruner = sampler, pruner
        self.memory.update_distributions(space)
        reread(self.study)
        self._proposer.go_on_in(space)
        self.study._stop_flag = False

    def ask(self) -> Proposal:
        """A new trial with all its parameters. A sampler that raises is replaced by chance for this one trial."""
        if self._prefetched and self._finished >= self._prefetched[0].stale_from:
            self._drop_prefetched()
        if self._prefetched:
            drawn = self._prefetched.popleft()
            self.recorded.add(drawn.changes)
            proposal = drawn.timestamped
        else:
            proposal = self._propose()
        self._tried.add(configuration(proposal.params))
        return proposal

    @property
    def recorded(self) -> TrialChanges:
        """Changes recorded so far, see `record_into`."""
        return self.memory.recorded

    def record_into(self, changes: TrialChanges) -> None:
        """Record changes there from now on."""
        self.memory.record_into(changes)

    @property
    def prefetched(self) -> int:
        """How many proposals are ready."""
        return len(self._prefetched)

    def prefetch(self, step_time: str | None, lasting: int) -> bool:
        """Make one more proposal ready; False when that cannot be, or nothing is left to propose.

        Args:
            moment: of the study as it is now, for replay: see `DRAWN`. None while that is being written: then
                `date_ahead` has to follow.
            lasting: how many results may come in before it has to be drawn anew.
        """
        sampler = self.study.sampler
        repeatable = isinstance(sampler, Reproducible) and sampler.repeatable
        if not repeatable or not self.space.parameters or self._waiting or self.exhausted:
            return False
        with self.memory.recording_apart() as changes:
            proposal = self._propose()
        self._prefetched.append(PrefetchedProposal(proposal, changes, self._finished + lasting, step_time))
        return True

    def stamp_prefetched(self, step_time: str) -> None:
        """What was drawn while a step was being written rests on that one; empty: nobody knows when that was."""
        if self._prefetched and self._prefetched[-1].step_time is None:
            self._prefetched = deque(
                drawn if drawn.step_time else replace(drawn, step_time=step_time) for drawn in self._prefetched
            )
            if not step_time:
                self._drop_prefetched()

    def _drop_prefetched(self) -> None:
        """Throw away what is ready. The next ask begins anew, as after a restart: what is gone taught nothing."""
        for drawn in self._prefetched:
            self._proposer.forget(drawn.proposal.number)
        if self._prefetched:
            self.memory.pop_last(len(self._prefetched))
            self._prefetched.clear()
            self._proposer.is_cold_start = True

    def _propose(self) -> Proposal:
        enqueued = bool(self._waiting)
        number = self._next_waiting() if enqueued else self.memory.create_new_trial(self.memory.study_id)
        return self._proposer.propose(number, enqueued=enqueued, finished=self._finished)

    def suggest(self, number: int, name: str, distribution: str) -> ParamValue:
        """A value for a parameter that the objective itself declares. See `Proposer.suggest`."""
        return self._proposer.suggest(number, name, distribution)

    def set_user_attr(
        self,
        number: int,
        name: str,
        value: str,
        kind: str = "user",
    ) -> None:
        """Keep an attribute of a trial; one that cannot be stored, or a constraint that is no number, is left out.

        Args:
            value: as JSON.
            kind: `user` or `system`.
        """
        is_constraint = kind == "system" and name.startswith(CONSTRAINT)
        if not is_name(name) or not _is_json(value) or (is_constraint and not _is_number(json.loads(value))):
            self.memory.note(
                number,
                f"attribute {name!r} is left out: it cannot be {value[:100]!r}",
            )
            return
        write = self.memory.set_trial_system_attr if kind == "system" else self.memory.set_trial_user_attr
        write(number, name, json.loads(value))

    def packed_study(self) -> bytes:
        """Return attributes and trials, pickled, for an Optuna objective that reads `trial.study`."""
        memory, study_id = self.memory, self.memory.study_id
        trials = memory.get_all_trials(study_id, deepcopy=False)
        user, system = (
            memory.get_study_user_attrs(study_id),
            memory.get_study_system_attrs(study_id),
        )
        return pickle.dumps((user, system, trials))

    def report(
        self,
        number: int,
        step: int,
        value: float,
        *others: float | None,
    ) -> None:
        """A point of the trial's curve. A later attempt's value replaces an earlier one's.

        Args:
            value: the first objective's.
            others: those of the other objectives; None where the report did not bear one.
        """
        self.memory.set_trial_intermediate_value(number, step, value)
        if others:
            self.memory.set_others(number, step, others)

    def verdict(
        self,
        number: int,
        steps: Sequence[int] | None = None,
    ) -> PruneDecision | None:
        """Whether the pruner wants the trial stopped, and why. See `PruningPolicy.verdict`."""
        return self._pruning.verdict(number, steps)

    def pause(self, number: int, after_step: int) -> None:
        """The trial holds its worker no longer. See `PruningPolicy.pause`."""
        self._is_up_to_date = False
        self._pruning.pause(number, after_step)

    def promotion(self, *, asks: bool) -> Promotion | None:
        """The paused trial that goes on now, if its pruner wants that more than what else could be done.

        Args:
            asks: whether a new trial may be asked instead.
        """
        alternative = Alternative.NOTHING if not asks else Alternative.REPEAT if self._covered else Alternative.NEW
        return self._pruning.promotion(alternative)

    def promote(self, number: int, details: Mapping[str, Any]) -> None:
        """The trial runs again. See `PruningPolicy.promote`."""
        self._pruning.promote(number, details)

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
        self._pruning.over(number)
        self._proposer.over(number, state, values)
        self.memory.set_trial_state_values(number, state, values)
        self._finished += 1
        self._is_up_to_date = False

    def on_step_end(self) -> None:
        """All that a step brought to an end or a pause has been told; what learns from it does so now."""
        if self._is_up_to_date:
            return
        self._is_up_to_date = True
        clear_trial_cache(self.study)
        refit_models(self.study)

    @property
    def _covered(self) -> bool:
        """Whether there is nothing new to try."""
        return bool(self.exhausted) or (self._size is not None and len(self._tried) >= self._size)

    def _next_waiting(self) -> int:
        number = self._waiting.popleft()
        self.memory.set_trial_state_values(number, TrialState.RUNNING)
        return number


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def queued(params: Mapping[str, ParamValue], origin: str = "") -> dict[str, Any]:
    """The system attributes of a trial that is enqueued with these values."""
    return {FIXED: dict(params), **({ORIGIN: origin} if origin else {})}
