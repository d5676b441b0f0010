from __future__ import annotations

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from scipy.optimize import approx_fprime
from scipy.stats import norm

from tunesvc.search.samplers.auto_sampler import SKILL_MIN
from tunesvc.search.samplers.gp.model import gp_model
from tunesvc.search.samplers.gp.model.domain import ABSENT, Domain
from tunesvc.search.samplers.gp.model.gp_model import Hyperparameters, Posterior, fit
from tunesvc.search.samplers.gp.model.warping import Warping

CHOICES = np.array([0, 0, 3])


def some_points(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.random((n, 2)), rng.integers(3, size=n)])


def standardised(values: np.ndarray) -> np.ndarray:
    out: np.ndarray = (values - values.mean()) / values.std()
    return out


@pytest.mark.parametrize(
    "seeds", [np.arange(15), np.arange(15) % 4], ids=["each its own", "four in turns"]
)
def test_the_gradient_is_that_of_the_function(seeds: np.ndarray) -> None:
    points = np.vstack([some_points(12), some_points(3)])  # three points occur twice
    values, variances = (
        standardised(np.sin(5 * points[:, 0]) + points[:, 2]),
        np.linspace(0, 0.2, 15),
    )
    points[0, 0], points[1, 1], points[2, 0], points[3, 2] = 0.0, 1.0, ABSENT, ABSENT
    data = gp_model._Data.of(points, values, variances, CHOICES, seeds)
    size = 8 + len(data.flat)
    priors = np.column_stack(
        [np.linspace(low, high, size) for low, high in ((-1, 0.5), (0.5, 2), (1, 3))]
    )
    of_flat = [-2.0, -3.0, -2.5, -4.0][: len(data.flat)]
    theta = np.array([1.0, -0.5, 0.3, 0.2, *of_flat, 0.3, -0.4, -0.2, 0.5])

    def value(at: np.ndarray) -> float:
        return gp_model._negative_log_posterior(at, data, priors)[0]

    numeric = approx_fprime(theta, value, 1e-6)
    _, gradient = gp_model._negative_log_posterior(theta, data, priors)
    assert gradient == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_what_does_not_matter_is_found_out() -> None:
    points = some_points(60)
    values = standardised(np.sin(6 * points[:, 0]) + np.random.default_rng(1).normal(0, 0.05, 60))
    known = fit(points, values, np.zeros(60), CHOICES)
    assert known.weights[0] > 20 * max(known.weights[1], known.weights[2])
    assert known.noise < 0.05


def test_noise_is_separated_from_signal_by_repeated_measurements() -> None:
    rng = np.random.default_rng(2)
    points = np.repeat(some_points(25), 4, axis=0)
    loud = standardised(np.sin(3 * points[:, 0]) + rng.normal(0, 0.7, 100))
    quiet = standardised(np.sin(3 * points[:, 0]) + rng.normal(0, 0.01, 100))
    assert fit(points, loud, np.zeros(100), CHOICES).noise > 0.3
    assert fit(points, quiet, np.zeros(100), CHOICES).noise < 0.01


def test_points_that_all_but_coincide_do_no_harm() -> None:
    """A sampler that has converged proposes them: each equals its neighbours but not the one
    after them."""
    points = np.vstack(
        [
            some_points(40),
            np.column_stack([0.5 + 1e-6 * np.arange(60), np.full(60, 0.5), np.zeros(60)]),
        ]
    )
    known = Hyperparameters(np.array([100.0, 1.0, 1.0]), signal=1.0, own=1.0, noise=1e-9)
    mean, variance = Posterior(known, CHOICES, points, np.zeros(100), np.zeros(100)).predict(points)
    assert np.isfinite(mean).all()
    assert np.isfinite(variance).all()


def test_predictions_are_those_of_the_textbook() -> None:
    """Against the formulas written down without any shortcut (Rasmussen and Williams, 2.23 and
    2.24)."""
    known = Hyperparameters(np.array([4.0, 1.0, 2.0]), signal=0.8, own=0.1, noise=0.05)
    points, new = some_points(10), some_points(4, seed=1)
    values, variances = np.arange(10.0) / 10, np.linspace(0, 0.3, 10)

    def covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        out = np.empty((len(a), len(b)))
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                r2 = 4 * (x[0] - y[0]) ** 2 + (x[1] - y[1]) ** 2 + 2 * (x[2] != y[2])
                r = np.sqrt(5 * r2)
                out[i, j] = 0.8 * (1 + r + r**2 / 3) * np.exp(-r) + 0.1 * (x == y).all()
        return out

    gram = covariance(points, points) + np.diag(0.05 + variances + gp_model.JITTER)
    cross = covariance(new, points)
    posterior = Posterior(known, CHOICES, points, values, variances)
    mean, variance = posterior.predict(new)
    assert mean == pytest.approx(cross @ np.linalg.solve(gram, values))
    assert variance == pytest.approx(0.9 - np.diag(cross @ np.linalg.solve(gram, cross.T)))
    assert posterior.mean(new) == pytest.approx(mean)


def test_a_doubtful_value_counts_less() -> None:
    known = Hyperparameters(np.array([4.0]), signal=1.0, own=0.0, noise=0.01)
    points, values = np.array([[0.4], [0.6]]), np.array([-1.0, 1.0])
    at = np.array([[0.5]])
    assert Posterior(known, np.zeros(1), points, values, np.array([0.0, 5.0])).mean(at)[0] < -0.5
    assert Posterior(known, np.zeros(1), points, values, np.array([5.0, 0.0])).mean(at)[0] > 0.5


def test_what_a_seed_does_to_all_points_alike_is_found_out() -> None:
    points, seeds = some_points(60), np.arange(60) % 5
    does = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    smooth = np.sin(4 * points[:, 0])
    values = smooth + does[seeds] + np.random.default_rng(3).normal(0, 0.05, 60)
    known = fit(points, values, np.zeros(60), CHOICES, seeds)
    assert known.shift > 10 * known.noise
    posterior = Posterior(known, CHOICES, points, values, np.zeros(60), seeds)
    assert posterior.shifts(np.arange(5)) == pytest.approx(does, abs=0.1)
    assert np.corrcoef(posterior.mean(points), smooth)[0, 1] > 0.99
    assert np.abs(posterior.mean(points, seeds) - values).max() < 0.3
    blind = Posterior(
        fit(points, values, np.zeros(60), CHOICES), CHOICES, points, values, np.zeros(60)
    )
    assert np.corrcoef(blind.mean(points), smooth)[0, 1] < 0.95


def test_a_lookahead_is_what_an_observation_does_to_the_mean() -> None:
    """The variance that an observation takes away is that by which the mean will vary."""
    known = Hyperparameters(
        np.array([4.0, 1.0, 2.0]), signal=0.8, own=0.1, noise=0.2, shift=0.5, rest=0.01
    )
    points, seeds = some_points(10), np.arange(10) % 3
    posterior = Posterior(known, CHOICES, points, np.linspace(-1, 1, 10), np.zeros(10), seeds)
    candidates = np.vstack([points[:1], some_points(2, seed=1)])
    for seed in (0, 1, 7):  # that of the first point, another one, and a new one
        mean, change = posterior.lookahead(candidates, seed)
        assert mean == pytest.approx(posterior.mean(candidates))
        for candidate, predicted in zip(candidates, change, strict=True):
            more = np.vstack([points, candidate])
            after = Posterior(
                known, CHOICES, more, np.zeros(11), np.zeros(11), np.append(seeds, seed)
            )
            before_variance, after_variance = (
                p.predict(candidate[None])[1][0] for p in (posterior, after)
            )
            assert predicted**2 == pytest.approx(before_variance - after_variance, rel=1e-4)


def test_the_same_point_with_the_same_seed_tells_next_to_nothing_new() -> None:
    known = Hyperparameters(np.array([4.0]), signal=1.0, own=0.1, noise=0.3, shift=0.2, rest=1e-5)
    points = np.array([[0.2], [0.5], [0.8]])
    posterior = Posterior(known, np.zeros(1), points, np.zeros(3), np.zeros(3), np.array([0, 1, 2]))
    (again,) = posterior.lookahead(points[:1], 0)[1]
    (another,) = posterior.lookahead(points[:1], 1)[1]
    assert again < 0.05 * another


def test_the_same_point_and_seed_with_another_value_does_no_harm() -> None:
    """An objective need not use its seed."""
    rng = np.random.default_rng(4)
    points, seeds = np.repeat(some_points(10), 6, axis=0), np.tile([0, 1, 2], 20)
    values = standardised(np.sin(4 * points[:, 0]) + rng.normal(0, 0.5, 60))
    known = fit(points, values, np.zeros(60), CHOICES, seeds)
    assert known.rest > 5 * known.shift
    mean = Posterior(known, CHOICES, points, values, np.zeros(60), seeds).mean(points)
    assert np.abs(mean).max() < np.abs(values).max()


def test_one_seed_for_all_is_taken_out_too() -> None:
    points, seeds = some_points(30), np.zeros(30, dtype=int)
    values = standardised(np.sin(4 * points[:, 0]))
    known = fit(points, values, np.zeros(30), CHOICES, seeds)
    mean = Posterior(known, CHOICES, points, values, np.zeros(30), seeds).mean(points)
    assert np.corrcoef(mean, values)[0, 1] > 0.95


def test_configurations_that_differ_in_some_choices_tell_of_each_other() -> None:
    """Six choices of five, each with an effect of its own: 25 of 15,625 configurations say much
    about the others."""

    def foretold(seed: int) -> float:
        rng = np.random.default_rng(seed)
        effects = rng.normal(size=(6, 5))
        points = rng.integers(0, 5, (525, 6)).astype(float)
        values = standardised(effects[np.arange(6), points.astype(int)].sum(axis=1))
        sizes, zeros = np.full(6, 5), np.zeros(25)
        known = fit(points[:25], values[:25], zeros, sizes)
        predicted = Posterior(known, sizes, points[:25], values[:25], zeros).mean(points[25:])
        return float(np.corrcoef(predicted, values[25:])[0, 1])

    assert (
        np.mean([foretold(seed) for seed in range(6)]) > 0.75
    )  # with the length scales of numbers it was 0.58


def test_a_smooth_function_without_noise_is_believed_to_be_one() -> None:
    """So that its optimum is found to more than a hundredth of how far its values lie apart."""
    points = np.random.default_rng(3).random((50, 4))
    values = standardised(((points - 0.6) ** 2).sum(axis=1))
    known = fit(points, values, np.zeros(50), np.zeros(4, dtype=int))
    assert known.own + known.noise < 5e-4  # with as much of either as the other way it was 23e-4


def test_both_parts_of_the_model_agree_on_distances() -> None:
    points = some_points(6)
    points[0, 0], points[1, 2], points[2] = ABSENT, ABSENT, ABSENT
    weights, zeros = np.array([2.0, 0.5, 3.0]), np.zeros(6)
    warping = Warping(np.array([0.4, 2.0, 1.0]), np.array([1.5, 0.7, 1.0]))
    posterior = Posterior(
        Hyperparameters(weights, 1.0, 0.1, 0.1, warping=warping), CHOICES, points, zeros, zeros
    )
    data = gp_model._Data.of(points, zeros, zeros, CHOICES, None)
    coordinates = np.hstack(gp_model.coordinates_of(data.numbers, warping.of(CHOICES == 0)))
    fitted = gp_model._squared_distances(coordinates, weights, data)
    found = np.array([posterior.distances(point, points) for point in points])
    assert np.allclose(found**2, fitted)


def test_an_absent_number_is_almost_equally_far_from_all_values() -> None:
    known = Hyperparameters(np.array([1.0]), 1.0, 0.1, 0.1)
    line = np.array([[ABSENT], [0.0], [0.5], [1.0]])
    posterior = Posterior(known, np.zeros(1, dtype=int), line, np.zeros(4), np.zeros(4))
    squares = posterior.distances(line[0], line[1:]) ** 2
    assert squares.min() > 0.2
    assert squares.max() < 2.5 * squares.min()


def test_a_logarithmic_axis_that_was_declared_linear_is_warped() -> None:
    points = np.random.default_rng(5).random((40, 2)) ** [4.0, 1.0]
    values = standardised(np.abs(np.log10(points[:, 0] + 1e-4) + 2) + points[:, 1])
    known = fit(points, values, np.zeros(40), np.zeros(2, dtype=int))
    assert known.warping is not None
    assert known.warping.a[0] < 0.5
    assert 0.5 < known.warping.a[1] < 2


def test_well_chosen_axes_are_not_warped() -> None:
    points = np.random.default_rng(6).random((40, 3))
    noise = np.random.default_rng(6).normal(0, 0.3, 40)
    values = standardised(np.sin(4 * points).sum(axis=1) + noise)
    known = fit(points, values, np.zeros(40), np.zeros(3, dtype=int))
    assert known.warping is not None
    assert known.warping.is_identity


def test_the_skill_is_that_of_leaving_each_observation_out() -> None:
    points, known = some_points(9), Hyperparameters(np.array([4.0, 1.0, 2.0]), 0.8, 0.1, 0.05)
    values = standardised(np.sin(5 * points[:, 0]))
    gain = 0.0
    for left_out in range(9):
        others = np.arange(9) != left_out
        posterior = Posterior(known, CHOICES, points[others], values[others], np.zeros(8))
        (mean,), (variance,) = posterior.predict(points[~others])
        by_model = norm.logpdf(values[left_out], mean, np.sqrt(variance + 0.05))
        spread = np.std(values, ddof=1)
        gain += by_model - norm.logpdf(values[left_out], values[others].mean(), spread)
    skill = Posterior(known, CHOICES, points, values, np.zeros(9)).skill()
    assert skill == pytest.approx(gain, rel=1e-3)


def test_a_model_of_noise_has_no_skill_and_one_of_a_smooth_function_has() -> None:
    def skill(values: np.ndarray) -> float:
        known = fit(points, values, np.zeros(30), CHOICES)
        return Posterior(known, CHOICES, points, values, np.zeros(30)).skill()

    points = some_points(30)
    assert skill(standardised(np.random.default_rng(7).normal(size=30))) < SKILL_MIN
    assert skill(standardised(np.sin(3 * points[:, 0]) + points[:, 2])) > 4 * SKILL_MIN
    assert skill(np.zeros(30)) == 0.0


def test_little_is_concluded_from_one_choice_about_another_that_has_other_parameters() -> None:
    points = some_points(6)
    points[:, 2] = [0, 0, 0, 0, 0, 1]
    values = standardised(np.array([0.1, 0.4, 0.2, 0.3, 0.5, 0.3]))
    deviations = []
    for decides in (None, np.array([False, False, True])):
        known = fit(points, values, np.zeros(6), CHOICES, decides=decides)
        posterior = Posterior(known, CHOICES, points, values, np.zeros(6))
        other = np.array([[*points[0, :2], 1.0]])
        deviations.append(float(np.sqrt(posterior.predict(other)[1][0] / known.prior)))
    assert deviations[1] > 1.1 * deviations[0]


@pytest.mark.parametrize(("optimum", "least", "most"), [(0.3, 0.9, 1.0), (0.9, 0.0, 0.7)])
def test_an_earlier_study_counts_as_much_as_it_agrees(
    optimum: float, least: float, most: float
) -> None:
    """The earlier one has its optimum at 0.3, this one there or elsewhere."""
    domain = Domain({"x": FloatDistribution(0.0, 1.0)}, ["before"])
    rng = np.random.default_rng(0)
    earlier = np.column_stack([rng.random(30), np.zeros(30)])
    own = np.column_stack([rng.random(12), np.full(12, ABSENT)])
    points = np.vstack([earlier, own])
    optima = np.where(points[:, 1] == ABSENT, optimum, 0.3)
    values = standardised((points[:, 0] - optima) ** 2)
    known = fit(points, values, np.zeros(len(points)), domain.choices, is_source=domain.is_source)
    posterior = Posterior(known, domain.choices, points, values, np.zeros(len(points)))
    assert least <= posterior.correlation(domain.differing("before")) <= most


def test_earlier_studies_that_agree_with_each_other_may_disagree_with_this_one() -> None:
    """Two have their optimum at 0.2, this one has it at 0.8."""
    domain = Domain({"x": FloatDistribution(0.0, 1.0)}, ["april", "march"])
    rng = np.random.default_rng(0)
    entries = [[0.0, ABSENT, ABSENT]] * 30 + [[ABSENT, 0.0, ABSENT]] * 30
    entries += [[ABSENT, ABSENT, 0.0]] * 10
    points = np.column_stack([rng.random(70), entries])
    optima = np.where(points[:, 3] == ABSENT, 0.2, 0.8)
    values = standardised((points[:, 0] - optima) ** 2)
    known = fit(points, values, np.zeros(70), domain.choices, is_source=domain.is_source)
    posterior = Posterior(known, domain.choices, points, values, np.zeros(70))
    between = posterior.correlation(np.array([False, True, True, False]))
    assert posterior.correlation(domain.differing("march")) < 0.8 < between
