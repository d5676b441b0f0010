from __future__ import annotations

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, create_trial

from tunesvc.search.samplers.gp.gp_sampler import GPSampler
from tunesvc.search.samplers.gp.model.domain import Domain
from tunesvc.search.samplers.gp.model.feasibility import Feasibility
from tunesvc.search.samplers.gp.model.gp_model import Hyperparameters, fit

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}
DOMAIN = Domain(dict(SPACE))


def learn(points: np.ndarray, values: np.ndarray) -> Hyperparameters:
    return fit(points, values, np.zeros(len(points)), DOMAIN.choices, jumps=True)


def with_constraints(x: float, y: float, constraints: dict[str, float]) -> FrozenTrial:
    trial = create_trial(params={"x": x, "y": y}, distributions=dict(SPACE), value=0.0)
    for name, excess in constraints.items():
        trial.set_constraint(name, excess)
    return trial


def drawn(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 2))


def separates(feasibility: Feasibility | None, is_kept: np.ndarray, points: np.ndarray) -> float:
    """Return the share of points that the model takes for what they are."""
    assert feasibility is not None
    likely = feasibility.log_factor(points)
    return float(np.mean((likely > np.quantile(likely, 1 - is_kept.mean())) == is_kept))


def test_each_constraint_has_a_model_of_its_own() -> None:
    trials = [with_constraints(x, y, {"a": x - 0.6, "b": 1e3 * (y - 0.4)}) for x, y in drawn(30)]
    points = np.random.default_rng(1).random((300, 2))
    is_kept = (points[:, 0] <= 0.6) & (points[:, 1] <= 0.4)
    assert separates(Feasibility.of(trials, DOMAIN, learn), is_kept, points) > 0.95


def test_a_constraint_that_says_yes_or_no_is_classified() -> None:
    trials = [with_constraints(x, y, {"a": 1.0 if x + y > 0.8 else 0.0}) for x, y in drawn(40)]
    points = np.random.default_rng(1).random((300, 2))
    is_kept = points.sum(axis=1) <= 0.8
    feasibility = Feasibility.of(trials, DOMAIN, learn)
    assert separates(feasibility, is_kept, points) > 0.85
    assert feasibility is not None
    far_inside, border, outside = feasibility.log_factor(np.array([[0.1, 0.1], [0.4, 0.4], [1, 1]]))
    assert far_inside > border > outside
    assert far_inside > -1


def test_constraints_that_were_always_kept_need_no_model() -> None:
    trials = [with_constraints(x, y, {"a": -1.0}) for x, y in drawn(5)]
    assert Feasibility.of(trials, DOMAIN, learn) is None


def test_it_looks_for_what_is_feasible_while_nothing_is() -> None:
    """One thousandth of the space: even spread finds it once in five hundred trials."""

    def objective(trial: optuna.Trial) -> float:
        point = np.array([trial.suggest_float(name, 0, 1) for name in "abc"])
        trial.set_constraint("distance", float(np.abs(point - 0.83).max()) - 0.05)
        return float(point[0])

    study = optuna.create_study(sampler=GPSampler(seed=0))
    study.optimize(objective, n_trials=30)
    assert min(trial.constraints["distance"] for trial in study.trials) <= 0
