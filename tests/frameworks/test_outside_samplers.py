"""Ax, SMAC and Nevergrad behind our ask and tell: spaces, failures, several objectives, resume."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from tests.support.simulation import Simulation, curve
from tests.support.specs import make_spec
from tunesvc.db.engine.database import Database
from tunesvc.execution.executor import Finished, Launch, Payload
from tunesvc.queries.recording import load_recording
from tunesvc.queries.studies import get_study
from tunesvc.runtime.imported_searchers import import_searchers, machine_check
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.search.replay import redraw
from tunesvc.search.seeding import seeded
from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec
from tunesvc.spec.yaml.document import spec_from_dict

LIBRARIES = {"AxSampler": "ax", "SmacSampler": "smac", "NevergradSampler": "nevergrad"}
SPACE = {
    "kind": {"type": "categorical", "values": ["plain", "curved", [1, 2]]},
    "rate": {"type": "float", "min": 1e-4, "max": 1.0, "log": True},
    "size": {"type": "int", "min": 1, "max": 64, "log": True},
    "share": {"type": "float", "min": 0.0, "max": 1.0, "step": 0.25},
    "bend": {"type": "float", "min": 0.0, "max": 1.0, "when": {"kind": "curved"}},
}
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]


@pytest.fixture(params=LIBRARIES)
def sampler(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(LIBRARIES[request.param])
    return str(request.param)


def loss(params: Any) -> float:
    far = (math.log10(params["rate"]) + 2) ** 2 / 4 + (params["share"] - 0.5) ** 2
    far += (math.log2(params["size"]) - 3) ** 2 / 9
    return float(far + (params["bend"] if params["kind"] == "curved" else 0.3))


def spec_of(sampler: str, **changes: Any) -> StudySpec:
    name = f"tunesvc.integrations:{sampler}"
    base = {"parameters": SPACE, "sampler": {"name": name}, "seed": 3, "budget": {"trials": 12}}
    return make_spec(**{**base, "parallelism": 2, **changes})


def trained(launch: Launch) -> Iterable[tuple[float, Payload]]:
    if launch.trial_number == 4:
        return [(1.0, Finished({"loss": math.nan}))]
    return curve(loss(launch.params) + 1, loss(launch.params), every_s=1 + launch.trial_number % 3)


def test_a_study_survives_a_crash_and_proposes_what_it_would_have_proposed(
    database: Database, sampler: str, tmp_path: Path
) -> None:
    spec = spec_of(sampler, pruner={"name": "threshold", "upper": 4.0})
    searchers = import_searchers(spec, tmp_path)
    simulation = Simulation(database, spec, trained)
    coordinator = simulation.start(searchers=searchers)
    while simulation.states().get("complete", 0) < 5:
        coordinator.step()
    simulation.crash()
    simulation.start(searchers=searchers).run()
    states = simulation.states()
    assert states["fail"] == 1
    assert states["complete"] + states.get("pruned", 0) == 11

    recording = load_recording(database, get_study(database, "test"))
    trials = recording.trials.values()
    kinds = {trial.params["kind"] for trial in trials}
    assert len(kinds) > 1
    assert kinds <= {"plain", "curved", "[1, 2]"}
    assert all(("bend" in trial.params) == (trial.params["kind"] == "curved") for trial in trials)
    assert not simulation.sql("SELECT 1 FROM decisions WHERE reason LIKE '%at random%'")
    asks, *_ = redraw(
        recording,
        lambda seed: make_sampler(seeded(spec, seed), Space(spec.parameters), searchers.sampler),
        spec.sampler.name,
        None,
        "",
        None,
    )
    assert (asks.agreeing, asks.compared) == (12, 12), asks.first


def test_several_objectives(database: Database, sampler: str, tmp_path: Path) -> None:
    spec = spec_of(
        sampler,
        metrics=[{"name": "loss"}, {"name": "gain", "goal": "maximize"}],
        pruner={"name": "none"},
        budget={"trials": 9},
    )

    def both(launch: Launch) -> Iterable[tuple[float, Payload]]:
        gain = -abs(float(launch.params["share"]) - 1)  # type: ignore[arg-type]
        return [(1.0, Finished({"loss": loss(launch.params), "gain": gain}))]

    simulation = Simulation(database, spec, both)
    simulation.start(searchers=import_searchers(spec, tmp_path)).run()
    assert simulation.states() == {"complete": 9}
    assert not simulation.sql("SELECT 1 FROM decisions WHERE reason LIKE '%at random%'")


def test_a_mistake_in_an_option_and_a_space_that_cannot_be_searched_are_reported(
    sampler: str, tmp_path: Path
) -> None:
    def issues(**changes: Any) -> list[str]:
        data = {
            "name": "s",
            "command": ["run"],
            "metric": "loss",
            "budget": 3,
            "parameters": {"x": {"min": 0.0, "max": 1.0}},
        }
        spec = spec_from_dict({**data, **changes})
        return [str(one) for one in machine_check(tmp_path)(spec)]

    name = {"class": f"tunesvc.integrations:{sampler}"}
    assert issues(sampler=name) == []
    (unknown,) = issues(sampler={**name, "sead": 3})
    assert "has no option 'sead', did you mean 'seed'?" in unknown
    (single,) = issues(sampler=name, parameters={"x": {"values": [1]}})
    assert "declares no parameter with more than one value" in single


def test_nevergrad_names_an_optimizer_that_it_lacks() -> None:
    pytest.importorskip("nevergrad")
    module = importlib.import_module("tunesvc.integrations.samplers.nevergrad")
    space = Space(make_spec().parameters).distributions
    with pytest.raises(ValueError, match=r"'NoSuch' is not in `nevergrad\.optimizers\.registry`"):
        module.NevergradSampler(space, optimizer="NoSuch")
    for optimizer in ("OnePlusOne", "TwoPointsDE", "PSO", "CMA"):
        module.NevergradSampler(space, optimizer=optimizer)


@pytest.mark.parametrize("sampler", ["AxSampler", "SmacSampler"])
def test_the_library_asks_its_model_and_not_its_initial_design(sampler: str) -> None:
    pytest.importorskip(LIBRARIES[sampler])
    space = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    made = getattr(importlib.import_module("tunesvc.integrations"), sampler)
    study = optuna.create_study(sampler=made(space, seed=1))
    for i in range(25):
        point = {"x": i % 5 / 4, "y": i // 5 / 4}
        value = (point["x"] - 0.3) ** 2 + (point["y"] - 0.3) ** 2
        study.add_trial(create_trial(params=point, distributions=space, value=value))
    asked = study.ask(space)
    assert math.dist(asked.params.values(), (0.3, 0.3)) < 0.2
