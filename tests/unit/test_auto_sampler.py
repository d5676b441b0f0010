from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tests.support.specs import make_spec
from tunesvc.search.analysis.recommend import recommend
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.search.samplers.auto_sampler import (
    GP_MAX,
    LOCAL_MAX,
    OBJECTIVES_MAX,
    PARAMETERS_MAX,
    AutoSampler,
)
from tunesvc.search.strategy import Strategy
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.space.search_space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)

UNIT = FloatDistribution(0.0, 1.0)


def explained(study: optuna.Study, parameters: int = 1) -> str:
    """Ask for one trial in the unit cube; return the sampler and why, where it is not the usual
    one."""
    return explained_in(study, {f"x{i}": UNIT for i in range(parameters)})


def explained_in(study: optuna.Study, space: Mapping[str, BaseDistribution]) -> str:
    trial = study.ask(dict(space))
    assert isinstance(study.sampler, AutoSampler)
    reason = study.sampler.explain(trial.number)
    assert reason is not None
    chosen: str = reason.details.get("chosen", "")
    assert reason.text.endswith(f" (drawn by {chosen})" if chosen else "")
    return chosen


def fill(study: optuna.Study, trials: int, parameters: int = 1) -> None:
    for number in range(trials):
        params = {f"x{i}": ((number + i) * 0.618) % 1 for i in range(parameters)}
        values = [params["x0"]] * len(study.directions)
        study.add_trial(
            create_trial(params=params, distributions=dict.fromkeys(params, UNIT), values=values)
        )


@pytest.mark.parametrize(
    ("trials", "parameters", "objectives", "chosen"),
    [
        (0, 1, 1, ""),
        (GP_MAX, 1, 1, ""),
        (GP_MAX + 1, 1, 1, "a Gaussian process of the best trial's neighbourhood"),
        (
            GP_MAX + 2,
            1,
            1,
            "TPE, in turn with a Gaussian process of the best trial's neighbourhood",
        ),
        (LOCAL_MAX + 1, 1, 1, "TPE, because 2,001 trials would slow a Gaussian process down"),
        (20, PARAMETERS_MAX, 1, ""),
        (20, PARAMETERS_MAX + 1, 1, "TPE, because the space has 101 parameters"),
        (20, 1, OBJECTIVES_MAX, ""),
        (20, 1, OBJECTIVES_MAX + 1, "TPE, because the study has 5 objectives"),
    ],
)
def test_it_says_which_sampler_it_chose_and_why(
    trials: int, parameters: int, objectives: int, chosen: str
) -> None:
    study = optuna.create_study(sampler=AutoSampler(seed=1), directions=["minimize"] * objectives)
    fill(study, trials, parameters)
    assert explained(study, parameters) == chosen


GRID = {"a": IntDistribution(0, 7), "b": IntDistribution(0, 7)}


def study_that_prunes(
    best: tuple[int, int] = (3, 5), shared_blocks: int | None = None
) -> optuna.Study:
    """Forty trials on a grid, of which most were stopped after the first of three reports."""
    study = optuna.create_study(
        sampler=AutoSampler(seed=1, search_space=dict(GRID), shared_blocks=shared_blocks)
    )
    for number in range(40):
        a, b = best if number == 12 else (number % 8, (3 * number) % 8)
        loss = (a - best[0]) ** 2 + (b - best[1]) ** 2
        curve = {step: float(loss + 8 - 4 * step) for step in range(3 if number < 13 else 1)}
        state = TrialState.COMPLETE if number < 13 else TrialState.PRUNED
        value = loss if state == TrialState.COMPLETE else None
        params = {"a": a, "b": b}
        trial = create_trial(
            params=params,
            distributions=dict(GRID),
            value=value,
            intermediate_values=curve,
            state=state,
        )
        study.add_trial(trial)
    return study


def test_where_trials_are_pruned_both_samplers_take_turns() -> None:
    study = study_that_prunes()
    reasons = [explained_in(study, GRID) for _ in range(6)]
    assert [text.startswith("TPE, in turn") for text in reasons] == [True, False] * 3
    assert all(
        " in turn with TPE" in text or " would repeat trial " in text for text in reasons[1::2]
    )


def test_where_trials_are_pruned_none_is_measured_again_as_long_as_there_is_something_new() -> None:
    """The best of the grid is known: a Gaussian process that had learned of noise would look at
    it once more."""
    study = study_that_prunes()
    seen = {(trial.params["a"], trial.params["b"]) for trial in study.trials}
    asked = []
    for _ in range(20):
        trial = study.ask(GRID)
        asked.append((trial.params["a"], trial.params["b"]))
        study.tell(trial, float((trial.params["a"] - 3) ** 2 + (trial.params["b"] - 5) ** 2))
    assert len(set(asked)) == 20
    assert not seen & set(asked)


def test_what_the_gaussian_process_would_repeat_tpe_replaces_and_says_so() -> None:
    """Of two choices one is far better, and both are known."""
    study = optuna.create_study(sampler=AutoSampler(seed=1))
    kind = IntDistribution(0, 1)
    for number in range(24):
        state = TrialState.PRUNED if number == 20 else TrialState.COMPLETE
        value = None if state == TrialState.PRUNED else float(number % 2) + 0.1 * (number % 5)
        study.add_trial(
            create_trial(
                params={"k": number % 2}, distributions={"k": kind}, value=value, state=state
            )
        )
    reasons = [explained_in(study, {"k": kind}) for _ in range(2)]
    assert reasons[1].startswith("TPE, because the Gaussian process would repeat trial ")


def test_every_eighth_trial_is_proposed_by_tpe_whatever_the_model_predicts() -> None:
    study = optuna.create_study(sampler=AutoSampler(seed=1))
    fill(study, 24)
    reasons = [explained(study) for _ in range(16)]
    told = "TPE, as every eighth trial, in case the model is wrong"
    assert [bool(text) for text in reasons] == [number % 8 == 7 for number in range(24, 40)]
    assert set(reasons) == {"", told}


def test_tpe_proposes_half_of_the_trials_while_the_model_knows_nothing() -> None:
    study = optuna.create_study(sampler=AutoSampler(seed=1))
    for number in range(24):
        params, kinds = {"x0": number * 0.618 % 1}, {"x0": UNIT}
        value = (number * 7 % 5) / 5  # unrelated to the parameter
        study.add_trial(create_trial(params=params, distributions=kinds, value=value))
    reasons = [explained(study) for _ in range(8)]
    told = "TPE, because the Gaussian process predicts trials no better than their mean does"
    assert reasons[::2] == [told] * 4
    assert told not in reasons[1::2]


@pytest.mark.parametrize("has_conditions", [True, False])
def test_where_no_improvement_is_expected_tpe_looks_for_one_among_conditional_parameters(
    has_conditions: bool,
) -> None:
    study = optuna.create_study(sampler=AutoSampler(seed=1))
    model = CategoricalDistribution(["tree", "line"])
    for number in range(40):
        place = (number // 2) / 20
        params: dict[str, Any] = {"model": "tree", "x": place}
        if number % 2 and has_conditions:
            params = {"model": "line", "y": place}
        elif number % 2:
            params["model"] = "line"
        kinds = {name: model if name == "model" else UNIT for name in params}
        value = (place - 0.35) ** 2 + number % 2
        study.add_trial(create_trial(params=params, distributions=kinds, value=value))
    space = {"model": model, "x": UNIT, **({"y": UNIT} if has_conditions else {})}
    reasons = [explained_in(study, space) for _ in range(6)]
    expected = "TPE, because the Gaussian process expects no improvement"
    assert (expected in reasons) == has_conditions
    assert expected not in reasons[::2]


def test_while_all_values_are_equal_trials_are_spread_evenly() -> None:
    study = optuna.create_study(sampler=AutoSampler(seed=1))
    for number in range(24):
        params, kinds = {"x0": number * 0.618 % 1}, {"x0": UNIT}
        study.add_trial(create_trial(params=params, distributions=kinds, value=1.0))
    trial = study.ask({"x0": UNIT})
    assert isinstance(study.sampler, AutoSampler)
    reason = study.sampler.explain(trial.number)
    assert reason is not None
    assert reason.text.startswith(
        "start: spread evenly over the space, because the finished trials"
    )


def test_a_search_of_many_trials_still_improves() -> None:
    """A model of all trials sees no differences among the best ones."""

    def loss(point: Sequence[float]) -> float:
        return sum((x - 0.37) ** 2 for x in point)

    rng = np.random.default_rng(0)
    study = optuna.create_study(sampler=AutoSampler(seed=1))
    space = {f"x{i}": UNIT for i in range(5)}
    for point in rng.random((GP_MAX + 10, 5)).tolist():
        params = dict(zip(space, point, strict=True))
        study.add_trial(create_trial(params=params, distributions=space, value=loss(point)))
    before = study.best_value
    for _ in range(12):
        trial = study.ask(space)
        study.tell(trial, loss(list(trial.params.values())))
    assert study.best_value < before / 20


def test_a_hole_in_a_plateau_is_found() -> None:
    """A model of equal values would look only where it knows least, at the borders."""
    for seed in range(2):
        study = optuna.create_study(sampler=AutoSampler(seed=seed))

        def plateau(trial: optuna.Trial) -> float:
            x, y = (trial.suggest_float(name, 0.0, 1.0) for name in "xy")
            return min(1.0, 8 * max(abs(x - 0.3), abs(y - 0.64)))

        study.optimize(plateau, n_trials=70)
        assert study.best_value < 0.5


def test_a_trial_that_was_begun_by_one_sampler_is_ended_by_it() -> None:
    study = optuna.create_study(sampler=AutoSampler(seed=1))
    fill(study, GP_MAX)
    trial = study.ask()
    x0 = trial.suggest_float("x0", 0, 1)
    fill(study, 11)
    assert 0 <= trial.suggest_float("new", 0, 1) <= 1
    study.tell(trial, x0)
    assert isinstance(study.sampler, AutoSampler)
    begun = study.sampler.explain(trial.number)
    assert begun is not None
    assert begun.details["sampler"] == "gp"
    assert explained(study).startswith("TPE")


def test_its_first_trials_are_spread_evenly() -> None:
    study = optuna.create_study(sampler=AutoSampler(seed=3, search_space={"x0": UNIT}))
    asked = []
    for _ in range(8):
        trial = study.ask({"x0": UNIT})
        asked.append(trial.params["x0"])
        study.tell(trial, asked[-1])
    assert sorted(int(8 * x) for x in asked) == list(range(8))


def test_a_trial_that_it_did_not_propose_is_ended_without_choosing_for_it() -> None:
    """After a restart hundreds of paused trials may end at once."""
    study = optuna.create_study(sampler=AutoSampler(seed=1))
    fill(study, 20)
    trial = study.ask({"x0": UNIT})
    study.sampler = restarted = AutoSampler(seed=1)
    study.tell(trial, 0.5)
    assert not restarted._selected


def test_each_sampler_meets_every_seed() -> None:
    """With two seeds in turns, and samplers in turns, each sampler would always have the same
    one."""
    study = study_that_prunes(shared_blocks=2)
    reasons = [explained_in(study, GRID) for _ in range(8)]
    assert [text.startswith("TPE, in turn") for text in reasons] == [True, False, False, True] * 2


def searched(
    parameters: dict[str, Any],
    objective: Callable[..., float],
    trials: int,
    seed: int,
    goal: str = "minimize",
) -> Sequence[FrozenTrial]:
    """A study as the coordinator drives it: what is not finite has failed because of its
    parameters."""
    metrics = [{"name": "loss", "goal": goal}]
    spec = make_spec(parameters=parameters, sampler={"name": "auto", "seed": seed}, metrics=metrics)
    space = Space(spec.parameters)
    memory = RecordingStorage("memory", [StudyDirection[goal.upper()]])
    sampler, pruner = make_sampler(spec, space), optuna.pruners.NopPruner()
    optimizer = Optimizer(memory, space, Strategy(sampler, pruner, "auto", "none", seed))
    for _ in range(trials):
        proposal = optimizer.ask()
        value = objective(**proposal.params)
        if math.isfinite(value):
            optimizer.tell(proposal.number, TrialState.COMPLETE, [value])
        else:
            optimizer.tell(proposal.number, TrialState.FAIL, failure="nan")
    return optimizer.trials


PLANE = {name: {"type": "float", "min": 0.0, "max": 1.0} for name in "xy"}


def hill(x: float, y: float) -> float:
    return 5 - (x - 0.3) ** 2 - (y - 0.7) ** 2


@pytest.mark.parametrize(
    ("penalty", "border"), [(-1e100, 0.6), (-1e6, 0.6), (-50.0, 0.6), (-1e9, 0.35)]
)
def test_a_penalty_hides_nothing_from_the_search_nor_from_what_is_recommended(
    penalty: float, border: float
) -> None:
    """Case S2: 3.9e+95 ± 8.7e+95 was recommended, and the best called a lucky draw."""
    trials = searched(PLANE, lambda x, y: penalty if x > border else hill(x, y), 40, 0, "maximize")
    best = max(trials, key=lambda trial: trial.values[0])
    recommendation = recommend(trials, "maximize")
    assert recommendation is not None
    assert best.values[0] > 4.999
    assert (recommendation.number, recommendation.luckiest) == (best.number, best.number)
    assert recommendation.mean == best.values[0]
    assert recommendation.describe() == "", "no doubt: nothing of this is noise"


def test_how_large_a_penalty_is_does_not_matter() -> None:
    runs = [
        searched(PLANE, lambda x, y, p=p: p if x > 0.6 else hill(x, y), 25, 1, "maximize")
        for p in (-1e3, -1e30)
    ]
    assert [trial.params for trial in runs[0]] == [trial.params for trial in runs[1]]


def test_what_is_known_is_not_run_again_where_there_is_no_noise() -> None:
    """Case S3: of ninety trials fifty-one were the same, beside a border beyond which nothing
    runs."""
    ranges = {
        "width": {"type": "int", "min": 8, "max": 2048},
        "depth": {"type": "int", "min": 1, "max": 12},
    }

    def objective(width: int, depth: int) -> float:
        return math.nan if width * depth > 400 else float(abs(width - 40) + abs(depth - 3))

    trials = searched(ranges, objective, 90, 1)
    counts = Counter(tuple(trial.params.values()) for trial in trials)
    assert counts.most_common(1)[0][1] <= 4
    assert (40, 3) in counts


@pytest.mark.parametrize(
    "loss",
    [lambda x, y: 1000 * (x**2 + y**2), lambda x, y: 100 * abs(x - y) + (x - 0.7) ** 2],
    ids=["an optimum in a corner", "a ridge"],
)
def test_repetitions_that_agree_are_the_last(loss: Callable[[float, float], float]) -> None:
    study = optuna.create_study(sampler=AutoSampler(seed=0))
    space = {"x": UNIT, "y": UNIT}
    asked: Counter[tuple[float, float]] = Counter()
    for _ in range(50):
        trial = study.ask(space)
        point = (trial.params["x"], trial.params["y"])
        asked[point] += 1
        study.tell(trial, loss(*point))
    assert sum(asked.values()) - len(asked) <= 3


@pytest.mark.parametrize("seed", [4, 8, 9, 16])
def test_a_loss_that_reaches_zero_is_searched_as_it_is_and_not_by_its_logarithm(seed: int) -> None:
    """Case S4, with the seeds that ended far away: the logarithm of a squared distance has a
    hole at its minimum."""
    trials = searched(
        {"w": {"type": "int", "min": 0, "max": 1000}}, lambda w: float((w - 40) ** 2), 40, seed
    )
    assert min(trial.values[0] for trial in trials) == 0
    assert len({trial.params["w"] for trial in trials}) == 40
