"""Ask, report, prune and tell, on memory alone."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tests.support.recorded_changes import take_changes
from tests.support.specs import make_spec
from tunesvc.errors import BadReport, SpecError
from tunesvc.search.explanations import Reason
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.registry.pruner_registry import last_step, make_pruner
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.search.strategy import Strategy
from tunesvc.search.study_storage import POINTS_MAX, RecordingStorage
from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec

CONDITIONAL = {
    "model": {"type": "categorical", "values": ["tree", "net"]},
    "depth": {"type": "int", "min": 1, "max": 9, "when": {"model": "tree"}},
    "lr": {"type": "float", "min": 1e-4, "max": 1.0, "log": True, "when": {"model": "net"}},
    "optimizer": {"type": "categorical", "values": ["sgd", "adam"], "when": {"model": "net"}},
    "momentum": {"type": "float", "min": 0.0, "max": 0.9, "when": {"optimizer": "sgd"}},
}


def make_optimizer(
    spec: StudySpec,
    sampler: optuna.samplers.BaseSampler | None = None,
    *,
    pruner: optuna.pruners.BasePruner | None = None,
    trials: Sequence[FrozenTrial] = (),
) -> Optimizer:
    directions = [
        StudyDirection.MINIMIZE if goal == "minimize" else StudyDirection.MAXIMIZE
        for goal in spec.directions
    ]
    space = Space(spec.parameters)
    strategy = Strategy(
        sampler or make_sampler(spec, space),
        pruner or make_pruner(spec),
        spec.sampler.name,
        spec.pruner.name,
        spec.seed if spec.sampler.seed is None else spec.sampler.seed,
    )
    memory = RecordingStorage(spec.name, directions, trials)
    return Optimizer(memory, space, strategy, prune_before_step=last_step(spec))


def run_trials(optimizer: Optimizer, n: int) -> list[dict[str, Any]]:
    drawn = []
    for _ in range(n):
        proposal = optimizer.ask()
        assert proposal.sampler_error is None
        drawn.append(dict(proposal.params))
        optimizer.tell(
            proposal.number,
            TrialState.COMPLETE,
            [float(len(proposal.params))] * len(optimizer.study.directions),
        )
    return drawn


@pytest.mark.parametrize("name", ["auto", "tpe", "random", "qmc", "nsga2", "nsga3"])
def test_every_sampler_draws_a_conditional_space(name: str) -> None:
    spec = make_spec(sampler={"name": name, "seed": 3}, parameters=CONDITIONAL)
    for params in run_trials(make_optimizer(spec), 25):
        assert ("depth" in params) == (params["model"] == "tree")
        assert ("momentum" in params) == (params.get("optimizer") == "sgd")


@pytest.mark.parametrize("name", ["grid", "brute"])
def test_grid_samplers_draw_every_configuration_once(name: str) -> None:
    parameters = {"a": {"values": ["x", "y", "z"]}, "b": {"type": "int", "min": 1, "max": 2}}
    parameters["a"] = {"type": "categorical", **parameters["a"]}
    optimizer = make_optimizer(make_spec(sampler={"name": name, "seed": 0}, parameters=parameters))
    drawn = run_trials(optimizer, 6)
    assert optimizer.exhausted
    assert {(p["a"], p["b"]) for p in drawn} == set(itertools.product("xyz", (1, 2)))


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "cmaes", "nsga2"])
def test_a_seed_makes_proposals_repeatable(name: str) -> None:
    spec = make_spec(sampler={"name": name, "seed": 7})
    assert run_trials(make_optimizer(spec), 15) == run_trials(make_optimizer(spec), 15)


def test_the_studys_seed_serves_a_sampler_without_one() -> None:
    one, two = (make_spec(sampler={"name": "random"}, seed=seed) for seed in (1, 2))
    assert run_trials(make_optimizer(one), 3) == run_trials(make_optimizer(one), 3)
    assert run_trials(make_optimizer(one), 3) != run_trials(make_optimizer(two), 3)


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "nsga2"])
def test_a_restart_proposes_what_the_first_run_would_have_proposed(name: str) -> None:
    spec = make_spec(sampler={"name": name, "seed": 7})
    whole = run_trials(make_optimizer(spec), 14)
    first = make_optimizer(spec)
    drawn = run_trials(first, 6)
    resumed = make_optimizer(spec, trials=first.trials)
    resumed.memory.restore_attrs({}, first.memory.get_study_system_attrs(first.memory.study_id))
    assert drawn + run_trials(resumed, 8) == whole


def test_an_enqueued_trial_is_asked_first_and_filled_up() -> None:
    optimizer = make_optimizer(make_spec())
    optimizer.enqueue({"x": 0.25})
    proposal = optimizer.ask()
    assert proposal.params["x"] == 0.25
    assert "n" in proposal.params
    assert proposal.reason == "enqueued"


@pytest.mark.parametrize("params", [{"y": 1}, {"x": 2.0}, {"x": "a"}, {"n": 100}])
def test_an_enqueued_value_that_the_space_does_not_hold_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(params))):
        make_optimizer(make_spec()).enqueue(params)


class BrokenSampler(optuna.samplers.RandomSampler):
    """Raises at every ask."""

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        raise RuntimeError("singular matrix")


def test_a_sampler_that_raises_is_replaced_by_a_random_draw_and_the_proposal_says_so() -> None:
    """Fault 41."""
    proposal = make_optimizer(make_spec(), BrokenSampler()).ask()
    assert set(proposal.params) == {"x", "n"}
    assert proposal.sampler_error == "RuntimeError: singular matrix"
    assert "at random" in proposal.reason


def test_a_pruner_verdict_says_what_it_rests_on() -> None:
    optimizer = make_optimizer(make_spec(pruner={"name": "median", "n_startup_trials": 2}))
    for loss in (0.1, 0.2, 0.3):
        number = optimizer.ask().number
        optimizer.report(number, 0, loss)
        assert optimizer.verdict(number) is None or loss == 0.3
        optimizer.tell(number, TrialState.COMPLETE, [loss])
    bad = optimizer.ask().number
    optimizer.report(bad, 0, 0.9)
    verdict = optimizer.verdict(bad)
    assert verdict is not None
    assert verdict.details["rank"] == 4
    assert verdict.details["best"] == 0.1
    assert (
        "where 3 of 3 finished trials were better, and 3 of all 3 others (pruner" in verdict.reason
    )


def test_reports_that_arrive_together_are_judged_like_reports_that_arrive_one_by_one() -> None:
    verdicts = []
    for together in (True, False):
        optimizer = make_optimizer(make_spec(pruner={"name": "asha", "min": 1, "eta": 2}))
        rival, number = optimizer.ask().number, optimizer.ask().number
        for step in (1, 2, 4):
            optimizer.report(rival, step, 1.0)
        found = []
        for step, loss in ((1, 0.5), (2, 2.0), (4, 0.5)):
            optimizer.report(number, step, loss)
            if not together:
                found.append(optimizer.verdict(number, [step]))
        verdicts.append(
            optimizer.verdict(number, [4, 1, 2]) if together else next(v for v in found if v)
        )
    assert verdicts[0] == verdicts[1]
    assert verdicts[0] is not None
    assert verdicts[0].details["rung"] == 2
    assert (
        verdicts[0].reason
        == "rank 2 of 2 at the rung of step 2, with 2; only the best one continues (1)"
    )


class BrokenPruner(optuna.pruners.BasePruner):
    """Raises at every question."""

    def prune(self, study: Any, trial: Any) -> bool:
        raise ZeroDivisionError("no rung")


def test_a_pruner_that_raises_prunes_nothing_and_it_is_recorded() -> None:
    """Fault 41."""
    optimizer = make_optimizer(make_spec())
    optimizer.study.pruner = BrokenPruner()
    number = optimizer.ask().number
    optimizer.report(number, 0, 0.5)
    assert optimizer.verdict(number) is None
    assert "ZeroDivisionError: no rung" in optimizer.memory.recorded.decisions[-1].reason


class ForgetfulSampler(optuna.samplers.RandomSampler):
    """Raises when a trial ends."""

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        raise KeyError("grid_id")


def test_a_sampler_that_raises_at_the_end_of_a_trial_loses_no_outcome() -> None:
    """Fault 41."""
    optimizer = make_optimizer(make_spec(), ForgetfulSampler())
    number = optimizer.ask().number
    optimizer.tell(number, TrialState.COMPLETE, [0.5])
    assert optimizer.trial(number).state == TrialState.COMPLETE
    assert "grid_id" in optimizer.memory.recorded.decisions[-1].reason


def test_a_grid_continues_in_its_order_after_a_resume_and_runs_what_was_enqueued() -> None:
    parameters = {"n": {"type": "int", "min": 1, "max": 9}}
    spec = make_spec(sampler={"name": "grid", "seed": 5}, parameters=parameters)
    space = Space(spec.parameters)
    optimizer = make_optimizer(spec)
    drawn = run_trials(optimizer, 4)
    optimizer.study.sampler = make_sampler(spec, space)
    optimizer.enqueue({"n": drawn[0]["n"]})
    assert run_trials(optimizer, 1) == [drawn[0]]
    while not optimizer.exhausted:
        drawn += run_trials(optimizer, 1)
    assert sorted(params["n"] for params in drawn) == list(range(1, 10))


def test_parameters_that_are_asked_for_one_by_one_come_from_one_joint_sample() -> None:
    spec = make_spec(sampler={"name": "qmc", "seed": 2}, parameters={})
    optimizer = make_optimizer(spec)
    declared = optuna.distributions.distribution_to_json(
        optuna.distributions.FloatDistribution(0, 1)
    )
    points = []
    for _ in range(5):
        number = optimizer.ask().number
        points.append(
            (optimizer.suggest(number, "x", declared), optimizer.suggest(number, "y", declared))
        )
        optimizer.tell(number, TrialState.COMPLETE, [0.0])
    declared_up_front = make_spec(
        sampler={"name": "qmc", "seed": 2},
        parameters={name: {"type": "float", "min": 0.0, "max": 1.0} for name in "xy"},
    )
    together = [
        (params["x"], params["y"]) for params in run_trials(make_optimizer(declared_up_front), 5)
    ]
    assert points[1:] == together[1:]


def test_a_parameter_that_trials_declare_differently_is_refused_in_words() -> None:
    optimizer = make_optimizer(make_spec(parameters={}))
    for number, declared in enumerate(
        [optuna.distributions.FloatDistribution(0, 1), optuna.distributions.IntDistribution(0, 1)]
    ):
        optimizer.ask()
        written = optuna.distributions.distribution_to_json(declared)
        if number == 0:
            optimizer.suggest(number, "x", written)
        else:
            with pytest.raises(BadReport, match="'x' is declared in different ways"):
                optimizer.suggest(number, "x", written)


def test_a_trial_at_the_pruners_max_is_left_to_finish() -> None:
    optimizer = make_optimizer(make_spec(pruner={"name": "asha", "min": 1, "max": 4, "eta": 2}))
    for loss in (0.1, 0.2, 0.3, 0.9):
        number = optimizer.ask().number
        for step in range(1, 5):
            optimizer.report(number, step, loss)
        assert optimizer.verdict(number) is None


@settings(max_examples=30, deadline=None)
@given(
    order=st.permutations(range(6)),
    curves=st.lists(st.lists(st.floats(0, 1), min_size=6, max_size=6), min_size=4),
)
def test_pruning_does_not_depend_on_the_order_of_the_reports(
    order: list[int], curves: list[list[float]]
) -> None:
    """Fault 26."""
    verdicts = []
    for steps in (range(6), order):
        optimizer = make_optimizer(make_spec(pruner={"name": "median", "n_startup_trials": 1}))
        for curve in curves[:-1]:
            number = optimizer.ask().number
            for step in range(6):
                optimizer.report(number, step, curve[step])
            optimizer.tell(number, TrialState.COMPLETE, [curve[-1]])
        last = optimizer.ask().number
        for step in steps:
            optimizer.report(last, step, curves[-1][step])
        verdicts.append(optimizer.verdict(last))
    assert verdicts[0] == verdicts[1]


def test_a_parameter_that_the_objective_declares_is_drawn_once() -> None:
    optimizer = make_optimizer(make_spec(parameters={}))
    number = optimizer.ask().number
    declared = optuna.distributions.distribution_to_json(
        optuna.distributions.FloatDistribution(0, 1)
    )
    value = optimizer.suggest(number, "x", declared)
    assert optimizer.suggest(number, "x", declared) == value
    assert optimizer.trial(number).params == {"x": value}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": {"name": "tep"}}, "did you mean 'tpe'"),
        ({"sampler": {"name": "tpe", "n_startup": 3}}, "did you mean 'n_startup_trials'"),
        ({"sampler": {"name": "grid"}}, "discrete"),
        (
            {
                "sampler": {"name": "brute"},
                "parameters": {"n": {"type": "int", "min": 0, "max": 10**9}},
            },
            "at most 10,000",
        ),
        ({"pruner": {"name": "hyperbnad"}}, "did you mean 'hyperband'"),
        ({"pruner": {"name": "hyperband"}}, "needs the option max"),
        ({"pruner": {"name": "asha", "min": 9, "max": 3}}, "max .3. is below min"),
        ({"pruner": {"name": "hyperband", "min": 0, "max": 9}}, "at least 1"),
        ({"pruner": {"name": "hyperband", "max": 9, "eta": 1}}, "at least 2"),
        ({"pruner": {"name": "median"}, "metrics": [{"name": "a"}, {"name": "b"}]}, "one metric"),
        ({"sampler": {"name": "cmaes"}, "metrics": [{"name": "a"}, {"name": "b"}]}, "one metric"),
    ],
)
def test_a_sampler_or_pruner_that_cannot_be_is_refused_in_words_to_act_on(
    changes: dict[str, Any], message: str
) -> None:
    spec = make_spec(**changes)
    with pytest.raises(SpecError, match=message):
        make_sampler(spec, Space(spec.parameters))
        make_pruner(spec)


@pytest.mark.parametrize(
    "pruner",
    [
        {"name": "asha", "min": 1, "max": 81, "eta": 3},
        {"name": "hyperband", "min": 1, "max": 81, "eta": 3},
        {"name": "median"},
        {"name": "percentile", "percentile": 25.0},
        {"name": "threshold", "upper": 3.0},
        {"name": "patient", "patience": 3, "wrapped": {"name": "median"}},
        {"name": "wilcoxon"},
        {"name": "auto"},
        {"name": "curve", "chance": 0.1, "audit": 0.0, "startup": 8},
        {"name": "none"},
    ],
)
def test_every_pruner_can_be_named(pruner: dict[str, Any]) -> None:
    optimizer = make_optimizer(make_spec(pruner=pruner))
    number = optimizer.ask().number
    optimizer.report(number, 1, 0.5)
    assert optimizer.verdict(number) is None


@given(first=st.integers(0, 3), every=st.sampled_from([1, 3, 1000]), points=st.integers(1, 30_000))
@settings(max_examples=15, deadline=None)
def test_a_long_curve_is_kept_at_half_its_resolution_and_alike_for_alike_trials(
    first: int, every: int, points: int
) -> None:
    """Fault 24: memory is bounded however many reports come."""
    memory = RecordingStorage("test", [StudyDirection.MINIMIZE])
    numbers = [memory.create_new_trial(memory.study_id) for _ in range(2)]
    for i in range(points):
        for number in numbers:
            memory.set_trial_intermediate_value(number, first + i * every, float(i))
    one, other = (memory.get_trial(number).intermediate_values for number in numbers)
    assert one == other
    assert min(points, POINTS_MAX // 2) <= len(one) <= POINTS_MAX
    assert next(iter(one)) == first
    assert all(value == (step - first) / every for step, value in one.items())
    again = RecordingStorage(
        "again", [StudyDirection.MINIMIZE], memory.get_all_trials(memory.study_id)
    )
    assert again.get_trial(0).intermediate_values == one


def test_a_report_between_the_points_of_a_long_curve_is_not_judged() -> None:
    optimizer = make_optimizer(make_spec(pruner={"name": "threshold", "upper": 0.5}))
    number = optimizer.ask().number
    for step in range(POINTS_MAX + 1):
        optimizer.report(number, step, 0.0)
    optimizer.report(number, POINTS_MAX + 1, 1.0)
    optimizer.report(number, POINTS_MAX + 2, 1.0)
    assert optimizer.verdict(number, [POINTS_MAX + 1]) is None
    assert optimizer.verdict(number, [POINTS_MAX + 2]) is not None


def failures_late(failure: str, seed: int) -> int:
    """Count failures among the last 30 of 60 trials, where the best lie at the edge of memory."""
    optimizer = make_optimizer(make_spec(sampler={"name": "tpe", "seed": seed}))
    failed = 0
    for i in range(60):
        proposal = optimizer.ask()
        size = float(proposal.params["x"] or 0) * float(proposal.params["n"] or 0)
        if size > 3.0:
            failed += i >= 30
            optimizer.tell(proposal.number, TrialState.FAIL, failure=failure)
        else:
            optimizer.tell(proposal.number, TrialState.COMPLETE, [1 - size / 3])
    return failed


def test_samplers_learn_where_memory_ends_but_nothing_from_lost_nodes() -> None:
    learned = sum(failures_late("gpu_oom", seed) for seed in range(4))
    unlearned = sum(failures_late("node", seed) for seed in range(4))
    assert learned < unlearned / 2


def test_a_failure_by_parameters_is_infeasible_to_samplers_after_a_restart_too() -> None:
    optimizer = make_optimizer(make_spec())
    for failure in ("nan", "node", "gpu_oom"):
        optimizer.tell(optimizer.ask().number, TrialState.FAIL, failure=failure)
    again = RecordingStorage("again", [StudyDirection.MINIMIZE], optimizer.trials)
    for memory in (optimizer.memory, again):
        shown = memory.get_all_trials(
            memory.study_id, states=(TrialState.COMPLETE, TrialState.PRUNED)
        )
        assert [trial.number for trial in shown] == [0, 2]
        assert all(max(trial.constraints.values()) > 0 for trial in shown)
        assert {trial.state for trial in memory.get_all_trials(memory.study_id)} == {
            TrialState.FAIL
        }


@pytest.mark.parametrize("name", ["tpe", "nsga2", "random"])
def test_failures_are_learned_from_with_several_metrics_too(name: str) -> None:
    metrics = [{"name": "loss"}, {"name": "size"}]
    optimizer = make_optimizer(make_spec(metrics=metrics, sampler={"name": name, "seed": 1}))
    for i in range(40):
        proposal = optimizer.ask()
        assert proposal.sampler_error is None
        if i % 3:
            optimizer.tell(proposal.number, TrialState.COMPLETE, [float(i), 1.0])
        else:
            optimizer.tell(proposal.number, TrialState.FAIL, failure="gpu_oom")


class Talkative(optuna.samplers.RandomSampler):
    """A sampler that says why."""

    def explain(self, number: int) -> Reason | None:
        return Reason(f"trial {number} looks fine", {"phase": "explore", "mean": 0.5})


class Strict(optuna.pruners.BasePruner):
    """Stops everything, and lets odd trials go on to see what would have become of them."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return trial.number % 2 == 0

    def explain(self, number: int) -> Reason | None:
        return Reason("too poor", {"rung": 1, "audit": number % 2 == 1})


def test_a_sampler_that_gives_reasons_is_quoted_with_its_numbers() -> None:
    proposal = make_optimizer(make_spec(), Talkative()).ask()
    assert proposal.reason == "trial 0 looks fine"
    assert proposal.details["phase"] == "explore"
    assert proposal.details["seed"] == 1


def test_a_pruners_reasons_are_quoted_and_an_audit_is_recorded_once() -> None:
    optimizer = make_optimizer(make_spec(), pruner=Strict())
    stopped, audited = optimizer.ask().number, optimizer.ask().number
    for number in (stopped, audited):
        optimizer.report(number, 1, 0.5)
    verdict = optimizer.verdict(stopped)
    assert verdict is not None
    assert (verdict.stop, verdict.reason, verdict.details["rung"], verdict.details["of"]) == (
        True,
        "too poor",
        1,
        2,
    )
    kept = optimizer.verdict(audited)
    assert kept is not None
    assert not kept.stop
    assert optimizer.verdict(audited) is None


def test_what_tpe_tells_other_processes_is_neither_recorded_nor_kept() -> None:
    optimizer = make_optimizer(make_spec(sampler={"name": "tpe", "seed": 1}))
    run_trials(optimizer, 15)
    assert not [attr for attr in optimizer.memory.recorded.attrs if "relative" in attr.name]
    assert {key for trial in optimizer.trials for key in trial.system_attrs} == set()
    assert optimizer.trial(optimizer.ask().number).system_attrs, (
        "while it runs, the next ask looks at it"
    )


@pytest.mark.parametrize(
    "name", ["auto", "gp", "tpe", "random", "qmc", "cmaes", "nsga2", "grid", "brute"]
)
def test_every_sampler_proposes_steps_as_they_are_written(name: str) -> None:
    """Case S1: `extra` exists where x is 0.3, which was proposed as 0.30000000000000004."""
    x = {"type": "float", "min": 0.1, "max": 0.5, "step": 0.1}
    parameters: dict[str, Any] = {
        "x": x,
        "z": {"type": "float", "min": 0.0, "max": 10.0, "step": 0.1},
    }
    if name == "grid":
        parameters = {"x": x}
    else:
        parameters["extra"] = {"type": "int", "min": 1, "max": 3, "when": {"x": 0.3}}
    optimizer = make_optimizer(make_spec(sampler={"name": name, "seed": 3}, parameters=parameters))
    drawn = run_trials(optimizer, 5 if name == "grid" else 30)
    assert {params["x"] for params in drawn} <= {0.1, 0.2, 0.3, 0.4, 0.5}
    assert {params.get("z", 0.0) for params in drawn} <= {tenths / 10 for tenths in range(101)}
    assert all(("extra" in params) == (params["x"] == 0.3) for params in drawn if name != "grid")
    assert any(params["x"] == 0.3 for params in drawn)


@pytest.mark.parametrize("name", ["auto", "gp", "tpe", "random", "qmc", "cmaes", "nsga2"])
def test_every_sampler_keeps_within_bounds_and_hits_them_exactly(name: str) -> None:
    """`exp(log(1e-6))` is 1.0000000000000004e-06, and `exp(log(0.1))` may lie beyond 0.1."""
    bounds = {"low": (1e-6, 0.1), "high": (3e-7, 0.7), "flat": (0.1, 0.3)}
    ranges = {
        key: {"type": "float", "min": a, "max": b, "log": key != "flat"}
        for key, (a, b) in bounds.items()
    }
    optimizer = make_optimizer(make_spec(sampler={"name": name, "seed": 3}, parameters=ranges))
    for _ in range(30):
        proposal = optimizer.ask()
        for key, (low, high) in bounds.items():
            value = float(proposal.params[key])
            assert low <= value <= high
            assert value in (low, high) or (
                value > low * (1 + 1e-12) and value < high * (1 - 1e-12)
            )
        pull = (
            math.log(proposal.params["low"])
            - math.log(proposal.params["high"])
            + proposal.params["flat"]
        )
        optimizer.tell(proposal.number, TrialState.COMPLETE, [pull])


def test_a_sampler_that_misses_a_bound_by_rounding_is_not_replaced_by_chance() -> None:
    class Rounds(optuna.samplers.RandomSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {"x": optuna.distributions.FloatDistribution(1e-6, 1.0, log=True)}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return {"x": 9.999999999999995e-07}

    parameters = {"x": {"type": "float", "min": 1e-6, "max": 1.0, "log": True}}
    optimizer = make_optimizer(
        make_spec(sampler={"name": "random"}, parameters=parameters), Rounds()
    )
    assert optimizer.ask().params == {"x": 1e-6}


def test_an_enqueued_step_is_the_written_one_however_it_was_computed() -> None:
    parameters = {"x": {"type": "float", "min": 0.1, "max": 0.5, "step": 0.1}}
    optimizer = make_optimizer(make_spec(sampler={"name": "random"}, parameters=parameters))
    optimizer.enqueue({"x": 0.1 + 2 * 0.1})
    assert optimizer.ask().params == {"x": 0.3}


def test_an_enqueued_value_that_the_objective_does_not_offer_is_reported() -> None:
    """Case S8: where the objective declares its parameters, true is not taken for 1, nor dropped
    in silence."""
    optimizer = make_optimizer(make_spec(sampler={"name": "random"}, parameters={}))
    optimizer.enqueue({"flag": True})
    number = optimizer.ask().number
    declared = optuna.distributions.distribution_to_json(
        optuna.distributions.CategoricalDistribution((0, 1, "x"))
    )
    assert optimizer.suggest(number, "flag", declared) in (0, 1, "x")
    (said,) = [one.reason for one in take_changes(optimizer.memory).decisions]
    assert "enqueued with flag = True, which is none of" in said


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (optuna.distributions.IntDistribution(2**60 + 1, 2**60 + 3), "goes beyond 2\\*\\*53"),
        ('{"name": "GammaDistribution", "attributes": {}}', "no distribution that can be read"),
        ("no JSON", "no distribution that can be read"),
        (
            '{"name": "IntDistribution", "attributes": {"low": "a", "high": 3}}',
            "no distribution that can be read",
        ),
    ],
)
def test_what_an_objective_cannot_be_given_is_a_mistake_of_its_trial(
    distribution: Any, expected: str
) -> None:
    """Cases S6 and S11: no request of an objective ends the coordinator, and no value lies
    outside of its range."""
    optimizer = make_optimizer(make_spec(sampler={"name": "random"}, parameters={}))
    if not isinstance(distribution, str):
        distribution = optuna.distributions.distribution_to_json(distribution)
    with pytest.raises(BadReport, match=expected):
        optimizer.suggest(optimizer.ask().number, "n", distribution)


@pytest.mark.parametrize("name", ["auto", "gp", "tpe", "random", "qmc", "nsga2", "cmaes"])
def test_choices_may_be_lists_for_every_sampler_where_the_objective_declares_them(
    name: str,
) -> None:
    """Case S6: the coordinator crashed on `suggest_categorical("u", [(32, 16), (64, 32)])`, and
    at every resume."""
    optimizer = make_optimizer(make_spec(sampler={"name": name, "seed": 2}, parameters={}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls such choices discouraged
        declared = optuna.distributions.CategoricalDistribution([(32, 16), (64, 32)])
        text = optuna.distributions.distribution_to_json(declared)
        for _ in range(14):
            number = optimizer.ask().number
            assert list(optimizer.suggest(number, "u", text)) in ([32, 16], [64, 32])  # type: ignore[arg-type]
            optimizer.tell(number, TrialState.COMPLETE, [0.5])
            optimizer.on_step_end()
        resumed = make_optimizer(
            make_spec(sampler={"name": name}, parameters={}), trials=optimizer.trials
        )
        resumed.suggest(resumed.ask().number, "u", text)


def test_an_attribute_that_would_break_the_search_is_left_out_and_reported() -> None:
    optimizer = make_optimizer(make_spec())
    number = optimizer.ask().number
    take_changes(optimizer.memory)
    for name, value, kind in (
        ("constraints:memory", '"much"', "system"),
        ("note", "{", "user"),
        ("", "1", "user"),
    ):
        optimizer.set_user_attr(number, name, value, kind)
    optimizer.set_user_attr(number, "constraints:memory", "0.5", "system")
    assert optimizer.trial(number).constraints == {"memory": 0.5}
    assert len(take_changes(optimizer.memory).decisions) == 3


@pytest.mark.parametrize(
    "parameters",
    [
        CONDITIONAL,
        {name: {"type": "categorical", "values": [1, 2]} for name in "abc"},
        {
            "x": {"type": "float", "min": 0.0, "max": 1.0},
            "a": {"type": "categorical", "values": [1, 2]},
        },
    ],
)
def test_cmaes_is_refused_where_it_would_draw_at_random(parameters: dict[str, Any]) -> None:
    """Case S7: on three choices it drew what `random` draws, and called that its own."""
    spec = make_spec(sampler={"name": "cmaes", "seed": 1}, parameters=parameters)
    with pytest.raises(SpecError, match="needs two int or float parameters without `when`"):
        make_sampler(spec, Space(spec.parameters))


def test_what_a_sampler_leaves_to_chance_is_not_called_its_own() -> None:
    numbers = {name: {"type": "float", "min": 0.0, "max": 1.0} for name in "xy"}
    parameters = {**numbers, "kind": {"type": "categorical", "values": ["a", "b"]}}
    optimizer = make_optimizer(
        make_spec(sampler={"name": "cmaes", "seed": 1}, parameters=parameters)
    )
    reasons, details = [], []
    for _ in range(6):
        proposal = optimizer.ask()
        reasons.append(proposal.reason)
        details.append(proposal.details)
        optimizer.tell(proposal.number, TrialState.COMPLETE, [0.5])
    assert reasons[0] == "drawn at random, because cmaes has nothing to propose yet"
    assert details[0]["by"] == "random"
    assert reasons[-1] == "proposed by cmaes from 5 finished trials, except kind, drawn at random"
    assert details[-1]["drawn_at_random"] == ["kind"]
