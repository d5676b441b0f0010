"""The optimizer: ask, report, prune and tell over one study in memory.

Owns the list of trials. `proposals` chooses their parameters and `pruning` decides which ones
stop. Knows nothing of attempts, executors or transactions: changes are recorded where the caller
asks for it (`record_into`).
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

from tunesvc.db.optuna.frozen_trials import was_cancelled
from tunesvc.db.trial_changes import TrialChanges
from tunesvc.search.exhaustion import Repetition
from tunesvc.search.population.population import Arrival, Copy, Move, NewMember, Population
from tunesvc.search.prefetched_proposals import (
    PrefetchedProposal,
    PrefetchQueue,
    Proposal,
    Reproducible,
)
from tunesvc.search.proposals import ORIGIN, Proposer, configuration
from tunesvc.search.pruners.curve.study_forecasts import (
    declare_evaluation,
    refit_models,
    reread,
)
from tunesvc.search.pruning import Promotion, PruneDecision, PruningPolicy
from tunesvc.search.strategy import Strategy
from tunesvc.search.study_storage import (
    FAILURE,
    RecordingStorage,
)
from tunesvc.search.tracking.lineage import PARENT
from tunesvc.search.tracking.pausing import Alternative
from tunesvc.search.warm_start import ENQUEUED_FROM, WarmStart
from tunesvc.space.search_space import Space
from tunesvc.spec import Evaluation, ParamValue
from tunesvc.trial import is_name
from tunesvc.util.optuna_internals import allow_stop, clear_trial_cache, undo_stop, was_stopped
from tunesvc.util.optuna_keys import CONSTRAINT, FIXED_PARAMS


class Optimizer:
    """Ask, report, prune and tell for one study. Not thread-safe: one coordinator drives it."""

    def __init__(
        self,
        memory: RecordingStorage,
        space: Space,
        strategy: Strategy,
        *,
        prune_before_step: int | None = None,
        trials_max: int | None = None,
        warm_start: WarmStart | None = None,
        population: Population | None = None,
        evaluation: Evaluation | None = None,
    ) -> None:
        """Open one study.

        Args:
            prune_before_step: from this step on a trial counts as nearly finished and is not
                stopped.
            trials_max: number of distinct trials after which nothing is left to try.
            warm_start: trials of earlier studies that the sampler learns from.
            population: of a search whose trials continue each other.
            evaluation: folds or repeats that are the steps of trials.
        """
        self.population = population
        self.memory = memory
        self.space = space
        name = memory.get_study_name_from_id(memory.study_id)
        self.study = optuna.load_study(
            study_name=name,
            storage=memory,
            sampler=strategy.sampler,
            pruner=strategy.pruner,
        )
        allow_stop(self.study)
        declare_evaluation(self.study, evaluation)
        self._trials_max = trials_max
        self._size = space.size if space.parameters else None
        self._warm_start = warm_start
        self._proposer = Proposer(memory, self.study, space, strategy, warm_start)
        self._pruning = PruningPolicy(
            memory,
            self.study,
            strategy.pruner_name,
            prune_before_step,
        )
        self._prefetched: PrefetchQueue = deque()
        self._waiting = deque(t.number for t in self.trials if t.state == TrialState.WAITING)
        self._is_up_to_date = True
        self._finished = sum(trial.state.is_finished() for trial in self.trials)
        asked = [
            trial
            for trial in self.trials
            if trial.state != TrialState.WAITING and not was_cancelled(trial)
        ]
        self._tried = {configuration(trial.params) for trial in asked}
        self.cancelled = sum(map(was_cancelled, self.trials))
        """Number of enqueued trials that were cancelled before they were asked for."""

    @property
    def seed(self) -> int:
        """Seed from which, with a trial's number, the trial's random numbers follow."""
        return self._proposer.seed

    @property
    def trials(self) -> Sequence[FrozenTrial]:
        """All trials in order of their numbers, without prefetched ones. Do not change them."""
        trials = self.memory.get_all_trials(
            self.memory.study_id,
            deepcopy=False,
        )
        return trials[: len(trials) - len(self._prefetched)]

    @property
    def count(self) -> int:
        """Number of trials, without prefetched ones."""
        return self.memory.count - len(self._prefetched)

    @property
    def exhausted(self) -> str:
        """Reason why nothing is left to try; empty while there is something."""
        if self._waiting:
            return ""
        if self.population is not None:
            return self.population.finished
        if self._trials_max is not None and len(self._tried) >= self._trials_max:
            return f"all {self._trials_max} configurations have been tried"
        return "the sampler has nothing left to propose" if was_stopped(self.study) else ""

    @property
    def repetition(self) -> Repetition:
        """Rule for proposing a configuration again."""
        return self._proposer.repetition

    @repetition.setter
    def repetition(self, value: Repetition) -> None:
        if value != self._proposer.repetition:
            self._drop_prefetched()
        self._proposer.repetition = value

    def trial(self, number: int) -> FrozenTrial:
        """Return one trial. Do not change it."""
        return self.memory.get_trial(number)

    @property
    def enqueued(self) -> int:
        """Number of trials that wait to be asked for."""
        return len(self._waiting)

    def warm_up(self) -> None:
        """Enqueue the best trials of earlier studies, and record what is transferred.

        Call it once, for a study without trials.
        """
        if self._warm_start is None:
            return
        counts = self._warm_start.counts
        self.memory.note(None, self._warm_start.reason, {"carried": counts})
        for one in self._warm_start.first():
            number = self.enqueue(
                one.params,
                f"trial {one.number} of {one.study}, which had {one.value:.6g}",
            )
            self.memory.set_trial_system_attr(
                number,
                ENQUEUED_FROM,
                [one.study, one.number],
            )

    def enqueue(
        self,
        params: Mapping[str, ParamValue],
        origin: str = "",
    ) -> int:
        """Add a trial with given values, to be asked for before any other.

        The sampler fills in the parameters that are not given.

        Args:
            origin: where the values come from; part of the reason when the trial is asked for.

        Raises:
            SpecError: a parameter does not exist, does not exist beside the others, or its value is
                outside its range.
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
        """Cancel an enqueued trial that was not asked for yet.

        It ends as failed and counts for nothing.
        """
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
        """Continue in a wider space with a new sampler and pruner, as after a restart."""
        self._drop_prefetched()
        self.space, self._trials_max = space, trials_max
        self._size = space.size if space.parameters else None
        self.study.sampler, self.study.pruner = sampler, pruner
        self.memory.update_distributions(space)
        reread(self.study)
        self._proposer.widen(space)
        undo_stop(self.study)

    def ask(self) -> Proposal:
        """Return a new trial with all its parameters.

        If the sampler raises, this one trial is drawn at random.
        """
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

    def next_move(self, *, asks: bool) -> Move | None:
        """Return what a free worker of a population does; None if it waits.

        Args:
            asks: True if a new trial may be asked for.
        """
        if self.population is None:
            raise AssertionError("the study has no population")
        if asks and self._waiting:
            return NewMember()
        return self.population.next_move(self._pruning.paused, asks=asks)

    def kept_checkpoints(self, number: int) -> tuple[str, ...]:
        """Return the checkpoints of a trial that copies may need from now on."""
        return () if self.population is None else self.population.kept(number, self._pruning.paused)

    def ask_copy(self, copy: Copy) -> Proposal:
        """Return a new trial that continues another one's training."""
        number = self.memory.create_new_trial(self.memory.study_id)
        self.memory.set_trial_system_attr(number, PARENT, copy.parent.stored())
        proposal = self._proposer.propose(number, enqueued=False, finished=self._finished)
        self._tried.add(configuration(proposal.params))
        return proposal

    @property
    def recorded(self) -> TrialChanges:
        """Changes recorded so far; see `record_into`."""
        return self.memory.recorded

    def record_into(self, changes: TrialChanges) -> None:
        """Record changes into `changes` from now on."""
        self.memory.record_into(changes)

    @property
    def prefetched(self) -> int:
        """Number of proposals that are ready."""
        return len(self._prefetched)

    def prefetch(self, step_time: str | None, lasting: int) -> bool:
        """Prepare one more proposal; return False if there cannot be one.

        Args:
            step_time: time of the last committed step, for replay: see `DRAWN_AT`. None while that
                step is being committed; `stamp_prefetched` must follow then.
            lasting: number of results after which the proposal is stale.
        """
        sampler = self.study.sampler
        repeatable = isinstance(sampler, Reproducible) and sampler.repeatable
        if not repeatable or not self.space.parameters or self._waiting or self.exhausted:
            return False
        with self.memory.recording_apart() as changes:
            proposal = self._propose()
        stale_from = self._finished + lasting
        self._prefetched.append(
            PrefetchedProposal(
                proposal,
                changes,
                stale_from,
                step_time,
            )
        )
        return True

    def stamp_prefetched(self, step_time: str) -> None:
        """Date proposals made during the commit of a step, or drop them without a time.

        The time is empty if the answer to the commit was lost.
        """
        if not self._prefetched or self._prefetched[-1].step_time is not None:
            return
        for index, proposal in enumerate(self._prefetched):
            if not proposal.step_time:
                self._prefetched[index] = replace(proposal, step_time=step_time)
        if not step_time:
            self._drop_prefetched()

    def _drop_prefetched(self) -> None:
        """Drop the proposals that are ready. The next ask starts cold, as after a restart.

        Otherwise models could keep something that they learned for a dropped proposal.
        """
        for drawn in self._prefetched:
            self._proposer.forget(drawn.proposal.number)
        if self._prefetched:
            self.memory.pop_last(len(self._prefetched))
            self._prefetched.clear()
            self._proposer.is_cold_start = True

    def _propose(self) -> Proposal:
        if self._waiting:
            number = self._next_waiting()
            return self._proposer.propose(
                number,
                enqueued=True,
                finished=self._finished,
            )
        number = self.memory.create_new_trial(self.memory.study_id)
        return self._proposer.propose(
            number,
            enqueued=False,
            finished=self._finished,
        )

    def suggest(self, number: int, name: str, distribution: str) -> ParamValue:
        """Return a value for a parameter that the objective declares. See `Proposer.suggest`."""
        return self._proposer.suggest(number, name, distribution)

    def set_user_attr(
        self,
        number: int,
        name: str,
        value: str,
        kind: str = "user",
    ) -> None:
        """Store an attribute of a trial; note one that is invalid, and leave it out.

        Args:
            value: as JSON.
            kind: `user` or `system`.
        """
        is_constraint = kind == "system" and name.startswith(CONSTRAINT)
        is_valid = is_name(name) and _is_json(value)
        if is_valid and is_constraint:
            is_valid = _is_number(json.loads(value))
        if not is_valid:
            self.memory.note(
                number,
                f"attribute {name!r} is left out: it cannot be {value[:100]!r}",
            )
            return
        write = self.memory.set_trial_user_attr
        if kind == "system":
            write = self.memory.set_trial_system_attr
        write(number, name, json.loads(value))

    def packed_study(self) -> bytes:
        """Return pickled attributes and trials, for Optuna objectives that read `trial.study`."""
        memory, study_id = self.memory, self.memory.study_id
        trials = memory.get_all_trials(study_id, deepcopy=False)
        user = memory.get_study_user_attrs(study_id)
        system = memory.get_study_system_attrs(study_id)
        return pickle.dumps((user, system, trials))

    def report(
        self,
        number: int,
        step: int,
        value: float,
        *others: float | None,
    ) -> None:
        """Add a point to the trial's curve, in place of an earlier attempt's at the same step.

        Args:
            value: of the first objective.
            others: of the other objectives; None if the report lacks one.
        """
        self.memory.set_trial_intermediate_value(number, step, value)
        if others:
            self.memory.set_others(number, step, others)

    def verdict(
        self,
        number: int,
        steps: Sequence[int] | None = None,
    ) -> PruneDecision | None:
        """Return the pruner's decision to stop the trial, if it has one.

        See `PruningPolicy.verdict`.
        """
        return self._pruning.verdict(number, steps)

    def pause(self, number: int, after_step: int, checkpoint: str | None = None) -> None:
        """Pause a trial, which releases its worker. See `PruningPolicy.pause`.

        Args:
            number: of the trial.
            after_step: step after which it would resume.
            checkpoint: location of the checkpoint from which it would.
        """
        self._is_up_to_date = False
        if self.population is not None and checkpoint is not None:
            self.population.arrive(Arrival(number, after_step, checkpoint))
        self._pruning.pause(number, after_step)

    def promotion(self, *, asks: bool) -> Promotion | None:
        """Return the paused trial to resume now, if the pruner prefers that to the alternative.

        Args:
            asks: True if a new trial may be asked for instead.
        """
        if not asks:
            alternative = Alternative.NOTHING
        elif self._covered:
            alternative = Alternative.REPEAT
        else:
            alternative = Alternative.NEW
        return self._pruning.promotion(alternative)

    def promote(self, number: int, details: Mapping[str, Any]) -> None:
        """Resume a paused trial. See `PruningPolicy.promote`."""
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
            values: one per objective; for a pruned trial its last intermediate value, if any.
            constraints: outcome constraints by name, feasible if <= 0.
            attrs: further metrics, stored as user attributes.
            failure: class of what ended a failed trial. Samplers learn from failures that the
                trial's parameters caused.
        """
        if failure is not None:
            self.memory.set_trial_system_attr(number, FAILURE, failure)
        for name, value in (attrs or {}).items():
            self.memory.set_trial_user_attr(number, name, value)
        for name, excess in (constraints or {}).items():
            self.memory.set_trial_system_attr(number, CONSTRAINT + name, excess)
        self._pruning.on_trial_end(number)
        self._proposer.on_trial_end(number, state, values)
        self.memory.set_trial_state_values(number, state, values)
        self._finished += 1
        self._is_up_to_date = False

    def on_step_end(self) -> None:
        """Update models by the trials that finished or paused in a step."""
        if self._is_up_to_date:
            return
        self._is_up_to_date = True
        clear_trial_cache(self.study)
        refit_models(self.study)

    @property
    def _covered(self) -> bool:
        """True if every configuration has been tried."""
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


def queued(
    params: Mapping[str, ParamValue],
    origin: str = "",
) -> dict[str, Any]:
    """Return the system attributes of a trial that is enqueued with these values."""
    return {FIXED_PARAMS: dict(params), **({ORIGIN: origin} if origin else {})}
