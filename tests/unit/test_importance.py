"""Which parameters matter, and how sure that is."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from tunesvc.search.analysis.importance import importances

RNG = np.random.default_rng(3)


def test_the_parameter_that_matters_is_found_and_shares_sum_up() -> None:
    x, y, kind = RNG.random(400), RNG.random(400), RNG.integers(0, 3, 400).astype(float)
    found = importances(
        ["x", "y", "kind"], [x, y, kind], [0, 0, 3], (x - 0.3) ** 2 + 0.02 * (kind == 1)
    )
    shares = {one.name: one.share for one in found}
    assert shares["x"] > shares["kind"] > 0
    assert shares["x"] > 5 * shares["y"]
    assert sum(shares.values()) == pytest.approx(1.0)


def test_the_interval_narrows_with_more_trials() -> None:
    widths = []
    for n in (40, 1000):
        x, y = RNG.random(n), RNG.random(n)
        (one, _) = importances(["x", "y"], [x, y], [0, 0], x + 0.3 * y)
        assert one.low <= one.share <= one.high
        widths.append(one.high - one.low)
    assert widths[1] < widths[0]


def test_too_few_trials_tell_nothing() -> None:
    assert importances(["x"], [np.linspace(0, 1, 9)], [0], np.arange(9.0)) == ()


def test_a_parameter_that_few_trials_have_counts_by_those() -> None:
    x, y = RNG.random(300), RNG.random(300)
    rare = np.where(RNG.random(300) < 0.02, y, np.nan)
    found = {one.name: one.share for one in importances(["x", "rare"], [x, rare], [0, 0], x)}
    assert found["x"] > 0.8


def test_the_order_is_that_of_optunas_own() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    names = ["a", "b", "c"]
    study.optimize(
        lambda t: sum(
            w * (t.suggest_float(name, 0, 1) - 0.5) ** 2
            for w, name in zip((8, 3, 0.1), names, strict=True)
        ),
        n_trials=400,
    )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    theirs = optuna.importance.get_param_importances(study, evaluator=evaluator)
    columns = [np.array([trial.params[name] for trial in study.trials]) for name in names]
    ours = importances(names, columns, [0, 0, 0], np.array([trial.value for trial in study.trials]))
    assert [one.name for one in sorted(ours, key=lambda one: -one.share)] == list(theirs)
