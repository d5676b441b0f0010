"""Moves of a population, its samplers, and the stretch of training that an attempt runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from tunesvc.errors import BadReport
from tunesvc.execution.attempt.stretch_progress import StretchProgress
from tunesvc.execution.executor import Stretch
from tunesvc.search.population.pb2_sampler import Pb2Sampler
from tunesvc.search.population.pbt_sampler import PbtSampler
from tunesvc.search.population.population import (
    Arrival,
    Continuation,
    Copy,
    NewMember,
    Population,
)
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.tracking.lineage import PARENT, Parent, ancestors
from tunesvc.spec.sections.population_keys import Search

SEARCH = Search(method="pbt", population=4, interval=5, steps=20, quantile=0.25)


class Members:
    """A population of members that the test moves."""

    def __init__(self, search: Search = SEARCH) -> None:
        self.memory = RecordingStorage("test", [StudyDirection.MINIMIZE])
        self.population = Population(self.memory, search, orientation=1.0, seed=1)
        self.paused: set[int] = set()

    def begin(self, parent: Parent | None = None, **params: float) -> int:
        number = self.memory.create_new_trial(self.memory.study_id)
        if parent is not None:
            self.memory.set_trial_system_attr(number, PARENT, parent.stored())
        for name, value in params.items():
            kind = FloatDistribution(0.0, 1.0)
            self.memory.set_trial_param(number, name, value, kind)
        return number

    def arrive(self, number: int, step: int, loss: float) -> None:
        self.memory.set_trial_intermediate_value(number, step, loss)
        self.population.arrive(Arrival(number, step, f"/{number}/{step}"))
        self.paused.add(number)

    def end(self, number: int, state: TrialState) -> None:
        self.paused.discard(number)
        self.memory.set_trial_state_values(
            number, state, [0.0] if state == TrialState.COMPLETE else None
        )

    def move(self, *, asks: bool = True) -> Any:
        return self.population.next_move(self.paused, asks=asks)


def full(losses: Mapping[int, float], step: int = 5) -> Members:
    members = Members()
    for _ in range(4):
        members.begin()
    for number, loss in losses.items():
        members.arrive(number, step, loss)
    return members


def test_members_begin_until_the_population_is_full() -> None:
    members = Members()
    for _ in range(4):
        assert members.move() == NewMember()
        members.begin()
    assert members.move() is None
    assert members.population.is_full


def test_no_member_is_judged_before_half_of_them_have_arrived() -> None:
    members = full({0: 9.0})
    assert members.move() is None
    members.arrive(1, 5, 1.0)
    move = members.move()
    assert isinstance(move, Continuation), "two arrivals are too few to replace any"
    assert move.number == 0


def test_the_worst_is_replaced_by_a_copy_of_the_best_at_its_stop() -> None:
    members = full({0: 9.0, 1: 1.0, 2: 2.0, 3: 3.0})
    move = members.move()
    assert isinstance(move, Copy)
    assert move.parent == Parent(1, 5, "/1/5")
    assert move.replaces == 0
    assert "replaced by a copy of trial 1 at step 5: rank 4 of 4 at step 5, with 9" in move.reason


def test_one_that_is_as_good_as_the_best_is_not_replaced() -> None:
    members = full(dict.fromkeys(range(4), 1.0))
    assert isinstance(members.move(), Continuation)
    assert isinstance(full({0: math.nan, 1: 1.0, 2: 2.0, 3: 3.0}).move(), Copy)


def test_the_member_that_is_furthest_behind_moves_first() -> None:
    members = full({0: 1.0, 1: 2.0, 2: 3.0, 3: 0.5})
    members.arrive(3, 10, 0.1)
    move = members.move()
    assert isinstance(move, Continuation)
    assert move.number == 0


def test_without_budget_for_trials_members_continue_as_they_are() -> None:
    members = full({0: 9.0})
    move = members.move(asks=False)
    assert isinstance(move, Continuation)
    assert "the budget allows no more trials" in move.reason


def test_a_failed_member_is_replaced_by_a_copy_at_the_first_kept_stop() -> None:
    members = full({0: 1.0, 1: 2.0, 2: 3.0})
    members.end(3, TrialState.FAIL)
    move = members.move()
    assert isinstance(move, Copy)
    assert move.replaces is None
    assert move.parent.trial == 0
    assert move.parent.step == 5


def test_one_that_fails_before_anything_is_recorded_is_replaced_by_a_new_one() -> None:
    members = full({})
    members.end(3, TrialState.FAIL)
    assert members.move() == NewMember()


def test_checkpoints_are_kept_until_no_member_can_need_them() -> None:
    members = full({0: 1.0, 1: 2.0})
    assert members.population.kept(0, members.paused) == ("/0/5",), "two are still before step 5"
    members.arrive(0, 10, 0.5)
    assert members.population.kept(0, members.paused) == ("/0/5", "/0/10")
    for number in (1, 2, 3):
        members.arrive(number, 10, 1.0)
    assert members.population.kept(0, members.paused) == ("/0/10",)
    copy = members.begin(Parent(0, 10, "/0/10"))
    members.end(1, TrialState.PRUNED)
    members.arrive(0, 15, 0.5)
    assert "/0/10" in members.population.kept(0, members.paused), f"{copy} may start again from it"


def test_a_population_without_a_living_member_continues_from_the_last_stop() -> None:
    members = full({0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0})
    members.arrive(2, 10, 3.0)
    for number in range(4):
        members.end(number, TrialState.PRUNED)
    move = members.move()
    assert isinstance(move, Copy)
    assert move.parent == Parent(2, 10, "/2/10")


def test_a_population_is_finished_when_all_members_are_complete() -> None:
    members = full({})
    for number in range(4):
        assert members.population.finished == ""
        members.end(number, TrialState.COMPLETE)
    assert "all 4 members" in members.population.finished


def test_stops_of_a_schedule_are_the_ends_of_its_stages() -> None:
    search = Search.model_validate(
        {
            "method": "schedule",
            "stages": [{"until": 3, "parameters": {"x": 1}}, {"until": 8, "parameters": {"x": 2}}],
        }
    )
    assert [search.next_stop(step) for step in (-1, 2, 3, 7)] == [3, 3, 8, 8]
    assert [search.stop_at(step) for step in (-1, 2, 3, 9)] == [0, 0, 3, 8]
    members = Members(search)
    members.begin()
    members.arrive(0, 3, 1.0)
    move = members.move()
    assert isinstance(move, Copy)
    assert (move.parent.trial, move.replaces) == (0, 0)


@pytest.mark.parametrize("step", range(-1, 22))
def test_the_next_stop_is_the_first_multiple_after_a_step(step: int) -> None:
    stop = SEARCH.next_stop(step)
    assert stop == min((one for one in (5, 10, 15, 20) if one > step), default=20)


def test_ancestors_come_oldest_first() -> None:
    parents = {5: Parent(2, 10, ""), 2: Parent(0, 5, "")}
    assert ancestors(5, parents) == [0, 2, 5]


# --- samplers ---


SPACE = {
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "dropout": FloatDistribution(0.0, 1.0),
    "width": IntDistribution(1, 8),
    "batch": CategoricalDistribution([64, 16, 32]),
    "kind": CategoricalDistribution(["a", "b"]),
}


def pbt(resample: float) -> Search:
    return Search(method="pbt", population=8, interval=5, steps=20, resample=resample)


def explored(sampler: PbtSampler, number: int, params: Mapping[str, Any]) -> Mapping[str, Any]:
    study = optuna.create_study(sampler=sampler)
    study.add_trial(optuna.create_trial(params=dict(params), distributions=SPACE, value=1.0))
    trial = optuna.trial.create_trial(
        state=TrialState.RUNNING, system_attrs={PARENT: Parent(0, 5, "/0/5").stored()}
    )
    trial.number = number
    return sampler.sample_relative(study, trial, dict(SPACE))


def test_pbt_multiplies_or_divides_and_stays_within_the_range() -> None:
    sampler = PbtSampler(1, search_space=SPACE, search=pbt(resample=0.0))
    params = {"lr": 0.1, "dropout": 0.5, "width": 4, "batch": 32, "kind": "a"}
    drawn = [explored(sampler, number, params) for number in range(1, 40)]
    assert {round(one["lr"], 6) for one in drawn} == {0.12, round(0.1 / 1.2, 6)}
    assert {round(one["dropout"], 6) for one in drawn} == {0.4, 0.6}
    assert {one["width"] for one in drawn} == {3, 5}
    assert {one["batch"] for one in drawn} == {16, 64}
    assert {one["kind"] for one in drawn} == {"a"}
    edge = {"lr": 1.0, "dropout": 0.0, "width": 8, "batch": 64, "kind": "b"}
    for number in range(1, 20):
        for name, value in explored(sampler, number, edge).items():
            assert SPACE[name]._contains(SPACE[name].to_internal_repr(value))
    assert drawn[3] == explored(sampler, 4, params), "a function of seed, number and parent"
    reason = sampler.explain(4)
    assert reason is not None
    assert reason.text.startswith("copy of trial 0 at step 5, with lr 0.1 → ")


def test_pbt_resamples_parameters() -> None:
    sampler = PbtSampler(1, search_space=SPACE, search=pbt(resample=1.0))
    params = {"lr": 0.1, "dropout": 0.5, "width": 4, "batch": 32, "kind": "a"}
    drawn = [explored(sampler, number, params)["lr"] for number in range(1, 60)]
    assert len({round(math.log10(lr)) for lr in drawn}) >= 4


def test_pb2_selects_parameters_with_which_members_have_improved() -> None:
    """Before step 10 members improve most near x = 0.8, after it near 0.2."""
    search = Search(method="pb2", population=8, interval=5, steps=20)
    members, rng = Members(search), np.random.default_rng(0)
    for _ in range(16):
        x, loss = float(rng.random()), 10.0
        number = members.begin(x=x)
        members.memory.set_trial_intermediate_value(number, 5, loss)
        for step in (10, 15, 20):
            loss -= 1.0 - abs(x - (0.8 if step <= 10 else 0.2))
            members.memory.set_trial_intermediate_value(number, step, loss)
    study = optuna.load_study(study_name="test", storage=members.memory)
    chosen = []
    for step in (5, 15):
        sampler = Pb2Sampler(3, search_space={"x": FloatDistribution(0.0, 1.0)}, search=search)
        number = members.begin(Parent(0, step, ""))
        trial = members.memory.get_trial(number)
        space = sampler.infer_relative_search_space(study, trial)
        chosen.append(sampler.sample_relative(study, trial, dict(space))["x"])
        assert sampler.sample_relative(study, trial, dict(space))["x"] == chosen[-1]
        reason = sampler.explain(number)
        assert reason is not None
        assert "expected to improve by" in reason.text
        members.end(number, TrialState.FAIL)
    assert chosen[0] > 0.6
    assert chosen[1] < 0.4


# --- a stretch ---


def test_a_stretch_is_over_once_its_end_is_reported_and_saved() -> None:
    for first_saves in (False, True):
        progress = StretchProgress(Stretch(until=5))
        for step in range(1, 6):
            assert not progress.is_over
            if first_saves:
                progress.save(step)
            assert progress.starts(step)
            progress.report(step)
            if not first_saves:
                progress.save(step)
        assert progress.is_over
        assert not progress.starts(6)


def test_a_stretch_without_a_checkpoint_at_its_end_is_an_error_that_names_the_remedy() -> None:
    progress = StretchProgress(Stretch(until=5))
    progress.save(4)
    progress.report(5)
    assert not progress.is_over
    with pytest.raises(BadReport, match=r"no checkpoint of step 5.*trial.checkpoint\(path\) after"):
        progress.starts(6)


def test_the_last_stretch_ends_without_a_checkpoint_too() -> None:
    progress = StretchProgress(Stretch(until=5, is_last=True))
    progress.report(5)
    assert not progress.is_over
    assert not progress.starts(6)
    assert progress.is_over


def test_without_a_stretch_nothing_ends() -> None:
    progress = StretchProgress(None)
    progress.report(10**9)
    progress.save(10**9)
    assert progress.starts(10**9 + 1)
    assert not progress.is_over
