"""Ray Tune's `Tuner` arguments as options of a study, and those that have no counterpart."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from ray import tune as ray_tune
from ray.tune import schedulers
from ray.tune.schedulers.pb2 import PB2
from ray.tune.search import ConcurrencyLimiter, Repeater
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch
from ray.tune.stopper import MaximumIterationStopper, TimeoutStopper, TrialPlateauStopper

from tunesvc import ray_tune as tune
from tunesvc import tunable
from tunesvc.errors import SpecError
from tunesvc.search.registry.component_check import check

SPACE = {
    "lr": ray_tune.loguniform(1e-4, 1e-1),
    "model": {"width": ray_tune.choice([8, 16])},
    "epochs": 3,
}
LOSS = {"metric": "loss", "mode": "min"}


def train(config: dict[str, Any]) -> None:
    """Nothing: only its options are looked at."""


def options(space: dict[str, Any] = SPACE, run: dict[str, Any] | None = None, **tuning: Any) -> Any:
    tuner = tune.Tuner(
        train,
        param_space=space,
        tune_config=ray_tune.TuneConfig(**(LOSS | tuning)),
        run_config=ray_tune.RunConfig(**(run or {})),
    )
    found = dict(tuner._options)
    study = {key: value for key, value in found.items() if key not in ("progress", "enqueue")}
    is_object = isinstance(study.get("sampler"), optuna.samplers.BaseSampler)
    check(tunable(train).spec(**study | {"sampler": "auto"} if is_object else study))
    return found


def population(**options: Any) -> Any:
    return schedulers.PopulationBasedTraining("training_iteration", **options)


def test_a_plain_tuner_is_a_study_of_its_samples() -> None:
    found = options(
        num_samples=20,
        max_concurrent_trials=4,
        run={"name": "first", "stop": {"training_iteration": 9}},
    )
    assert found["name"] == "first"
    assert found["metrics"] == [{"name": "loss", "goal": "minimize"}]
    assert list(found["parameters"]) == ["lr", "model/width"]
    assert found["constants"] == {"epochs": 3, "stop": {"training_iteration": 9}}
    assert (found["trials"], found["parallelism"], found["sampler"]) == (20, 4, "auto")
    assert found["pruner"] == {"name": "none"}, "Ray stops nothing without a scheduler"
    assert found["retries"] == {"error": 0}


def test_names_that_are_not_ours_are_rays() -> None:
    assert tune.uniform is ray_tune.uniform
    assert tune.TuneConfig is ray_tune.TuneConfig
    assert {"Tuner", "choice", "with_parameters"} <= set(dir(tune))
    with pytest.raises(AttributeError, match=r"has no 'run': use Tuner\(...\).fit\(\)"):
        _ = tune.run
    with pytest.raises(AttributeError, match="loguniforn"):
        _ = tune.loguniforn


@pytest.mark.parametrize(
    ("scheduler", "pruner", "last"),
    [
        (schedulers.FIFOScheduler(), {"name": "none"}, None),
        (
            schedulers.ASHAScheduler(grace_period=2, max_t=54, reduction_factor=3),
            {"name": "asha", "min": 2, "max": 54, "eta": 3},
            54,
        ),
        (
            schedulers.HyperBandScheduler(max_t=27, reduction_factor=3),
            {"name": "hyperband", "min": 1, "max": 27, "eta": 3},
            27,
        ),
        (
            schedulers.MedianStoppingRule(
                "training_iteration", grace_period=5, min_samples_required=4
            ),
            {"name": "median", "n_startup_trials": 4, "n_warmup_steps": 5},
            None,
        ),
    ],
)
def test_schedulers_that_stop_trials_are_pruners(
    scheduler: Any, pruner: dict[str, Any], last: int | None
) -> None:
    found = options(scheduler=scheduler)
    assert found["pruner"] == pruner
    assert found["constants"].get("stop") == (
        None if last is None else {"training_iteration": last}
    )
    sooner = options(scheduler=scheduler, run={"stop": {"training_iteration": 1}})
    assert sooner["constants"]["stop"] == {"training_iteration": 1}


def test_population_based_training_changes_its_mutations_only() -> None:
    pbt = population(
        perturbation_interval=5,
        hyperparam_mutations={"lr": ray_tune.uniform(1e-4, 2e-2), "model": {"width": [8, 16]}},
        quantile_fraction=0.5,
        resample_probability=0.1,
    )
    space = {"lr": 0.001, "model": {"width": 8, "depth": 2}}
    found = options(
        space, {"stop": {"training_iteration": 100, "done": True}}, scheduler=pbt, num_samples=8
    )
    assert found["search"] == {
        "method": "pbt",
        "population": 8,
        "interval": 5,
        "steps": 100,
        "quantile": 0.5,
        "resample": 0.1,
        "factor": 1.2,
    }
    assert list(found["parameters"]) == ["lr", "model/width"]
    assert found["constants"] == {"model/depth": 2, "stop": {"done": True}}
    assert not {"pruner", "sampler", "trials"} & found.keys()


def test_pb2_searches_within_its_bounds() -> None:
    pb2 = PB2("training_iteration", perturbation_interval=4, hyperparam_bounds={"lr": [1e-4, 1e-2]})
    found = options(
        {"lr": 0.001}, {"stop": {"training_iteration": 40}}, scheduler=pb2, num_samples=4
    )
    assert (found["search"]["method"], found["search"]["steps"]) == ("pb2", 40)
    assert found["parameters"]["lr"]["max"] == 1e-2


def test_optunas_sampler_is_taken_as_it_is_and_its_default_is_ours() -> None:
    assert options(search_alg=OptunaSearch())["sampler"] == "tpe"
    cmaes = optuna.samplers.CmaEsSampler()
    limited = options(search_alg=ConcurrencyLimiter(OptunaSearch(sampler=cmaes), max_concurrent=3))
    assert (limited["sampler"], limited["parallelism"]) == (cmaes, 3)
    assert options(search_alg=BasicVariantGenerator(max_concurrent=2))["sampler"] == "random"


def test_first_points_are_enqueued_flat_and_without_constants() -> None:
    points = [{"lr": 0.01, "model": {"width": 8}, "epochs": 3}, {"model/width": 16}]
    expected = [{"lr": 0.01, "model/width": 8}, {"model/width": 16}]
    limited = ConcurrencyLimiter(OptunaSearch(points_to_evaluate=points), 2)
    for algorithm in (BasicVariantGenerator(points_to_evaluate=points), limited):
        assert options(search_alg=algorithm)["enqueue"] == expected
    assert "enqueue" not in options(search_alg=OptunaSearch())


def test_several_metrics_are_those_of_the_search_algorithm() -> None:
    search = OptunaSearch(metric=["loss", "gain"], mode=["min", "max"])
    found = options(search_alg=search, metric=None, mode=None)
    assert found["metrics"] == [
        {"name": "loss", "goal": "minimize"},
        {"name": "gain", "goal": "maximize"},
    ]


@pytest.mark.parametrize(
    ("space", "samples", "trials", "sampler"),
    [
        (
            {"a": ray_tune.grid_search([1, 2, 3]), "b": {"c": ray_tune.grid_search([4, 5])}},
            1,
            6,
            "grid",
        ),
        ({"a": ray_tune.grid_search([1, 2, 3])}, 4, 12, "auto"),
        ({"a": ray_tune.grid_search([1, 2, 3]), "b": ray_tune.uniform(0, 1)}, 2, 6, "auto"),
    ],
)
def test_a_grid_has_as_many_trials_as_in_ray(
    space: dict[str, Any], samples: int, trials: int, sampler: str
) -> None:
    found = options(space, num_samples=samples)
    assert (found["trials"], found["sampler"]) == (trials, sampler)


def test_budgets_and_failures() -> None:
    endless = options(num_samples=-1, time_budget_s=datetime.timedelta(minutes=2))
    assert endless["wall"] == 120
    assert "trials" not in endless
    assert options(run={"stop": TimeoutStopper(60)}, time_budget_s=90)["wall"] == 60
    assert options(run={"stop": MaximumIterationStopper(7)})["constants"]["stop"] == {
        "training_iteration": 7
    }
    failing = ray_tune.FailureConfig(max_failures=2)
    assert options(run={"failure_config": failing})["retries"] == {"error": 2}
    fast = ray_tune.FailureConfig(fail_fast=True)
    assert options(run={"failure_config": fast})["limits"] == {"failures": 1}
    kept = ray_tune.CheckpointConfig(num_to_keep=3)
    assert options(run={"checkpoint_config": kept})["keep"] == {"best": 1, "last": 2}
    assert options(run={"verbose": 0})["progress"] is False
    assert "progress" not in options()


class WandbLoggerCallback(ray_tune.Callback):
    """Named as Ray's, whose module needs wandb."""


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no metric": (lambda: options(metric=None, mode=None), 'TuneConfig(metric="loss", mode="min")'),
    "no mode": (lambda: options(mode=None), 'say mode="min" or mode="max"'),
    "no end": (lambda: options(num_samples=-1), "TuneConfig(time_budget_s=3600)"),
    "seconds": (
        lambda: options(scheduler=schedulers.ASHAScheduler(time_attr="time_total_s")),
        'AsyncHyperBandScheduler counts time_total_s, and ours counts reports: set time_attr="training_iteration"',
    ),
    "brackets": (
        lambda: options(scheduler=schedulers.ASHAScheduler(brackets=2)),
        "several brackets: use one",
    ),
    "bohb": (
        lambda: options(scheduler=schedulers.HyperBandForBOHB()),
        "HyperBandForBOHB is Ray Tune's alone: use HyperBandScheduler",
    ),
    "population without end": (
        lambda: options(
            {},
            scheduler=population(hyperparam_mutations={"lr": ray_tune.uniform(0, 1)}),
        ),
        'RunConfig(stop={"training_iteration": ...})',
    ),
    "mutation by code": (
        lambda: options(
            {},
            {"stop": {"training_iteration": 9}},
            scheduler=population(hyperparam_mutations={"lr": lambda: 0.1}),
        ),
        "hyperparam_mutations of `lr` is a function, whose range is unknown: give the range itself",
    ),
    "a range that no mutation changes": (
        lambda: options(
            {"lr": 0.1, "width": ray_tune.choice([1, 2])},
            {"stop": {"training_iteration": 9}},
            scheduler=population(hyperparam_mutations={"lr": ray_tune.uniform(0, 1)}),
        ),
        "`width`: a population searches what it changes only: move the range to hyperparam_mutations",
    ),
    "repeater": (
        lambda: options(search_alg=Repeater(OptunaSearch(), 3)),
        "by `evaluation: {repeats: 3}`, or `tune confirm`",
    ),
    "restore without": (
        lambda: tune.Tuner.restore("it", train, resume_unfinished=False),
        "`tune stop STUDY TRIAL` ends single trials",
    ),
    "restore errors": (
        lambda: tune.Tuner.restore("it", train, resume_errored=True),
        "restart_errored=True tries their parameters again",
    ),
    "known points": (
        lambda: options(
            search_alg=OptunaSearch(points_to_evaluate=[{"lr": 0.1}], evaluated_rewards=[0.5])
        ),
        'study_options={"warm_start": "earlier"}',
    ),
    "define by run": (
        lambda: options(
            search_alg=OptunaSearch(space=lambda trial: None, metric="loss", mode="min")
        ),
        "make it the objective itself",
    ),
    "stopper": (
        lambda: options(run={"stop": TrialPlateauStopper("loss")}),
        "RunConfig(stop=TrialPlateauStopper): ours ends a trial by metrics",
    ),
    "callbacks with actors": (
        lambda: options(run={"callbacks": [WandbLoggerCallback()]}),
        'log with ours, study_options={"loggers": ["wandb"]}',
    ),
    "no callbacks": (
        lambda: options(run={"callbacks": [print]}),
        "derive it from ray.tune.Callback",
    ),
    "unknown name": (
        lambda: tune.Tuner("no-such-trainable"),
        "tune.register_trainable('no-such-trainable', ...) first",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_carried_over_is_refused_with_the_name_of_ours(case: str) -> None:
    make, text = REFUSED[case]
    with pytest.raises(SpecError, match=re.escape(text)):
        make()


def test_a_registered_trainable_is_found_by_its_name() -> None:
    ray_tune.register_trainable("a-registered-one", train)
    assert tune.Tuner("a-registered-one", tune_config=ray_tune.TuneConfig(**LOSS))._options[
        "metrics"
    ]
