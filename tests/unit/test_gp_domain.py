from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, create_trial

from tunesvc.search.samplers.gp.initial_design import spread
from tunesvc.search.samplers.gp.model.domain import ABSENT, Domain
from tunesvc.search.tracking.transferred import SOURCE

KINDS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "drop": FloatDistribution(0.0, 0.5, step=0.1),
    "width": IntDistribution(8, 1024, log=True),
    "depth": IntDistribution(1, 9, step=2),
    "opt": CategoricalDistribution(["sgd", "adam", None]),
}


@given(seed=st.integers(0, 2**32 - 1), number=st.integers(0, 200))
def test_every_point_is_a_configuration_and_comes_back(seed: int, number: int) -> None:
    domain = Domain(KINDS)
    rng = np.random.default_rng(seed)
    points = np.vstack([domain.random(5, rng), spread(domain, number, seed)[None]])
    points = np.vstack([points, domain.near(points, 3, 0.3, rng)])
    for point in points:
        params = domain.decode(point)
        for name, kind in KINDS.items():
            assert kind._contains(kind.to_internal_repr(params[name])), (name, params[name])
        assert np.allclose(domain.encode(params), point, atol=1e-9)


def test_neighbours_differ() -> None:
    domain = Domain(KINDS)
    point = domain.encode({"lr": 0.01, "drop": 0.2, "width": 64, "depth": 5, "opt": "adam"})
    near = domain.near(point[None], 200, 0.001, np.random.default_rng(0))
    differing = (near != point).sum(axis=1)
    assert (differing <= 2).all()
    assert (differing > 0).mean() > 0.7  # a choice may be drawn again
    assert {(row != point).argmax() for row in near} == set(range(len(KINDS)))


def test_the_choice_that_decides_over_a_parameter_is_learned() -> None:
    domain = Domain(
        {"opt": CategoricalDistribution(["sgd", "adam"]), "momentum": FloatDistribution(0.0, 1.0)}
    )
    both, one = domain.distributions, {"opt": domain.distributions["opt"]}
    trials = [
        create_trial(params={"opt": "sgd", "momentum": 0.9}, distributions=both, value=0.0),
        create_trial(params={"opt": "adam"}, distributions=one, value=0.0),
    ]
    domain.learn_conditions(trials)
    points = domain.random(50, np.random.default_rng(0))
    is_adam = points[:, 0] == 1.0
    assert (points[is_adam, 1] == ABSENT).all()
    assert len(set(points[~is_adam, 1])) > 10


def _trial(domain: Domain, **params: object) -> FrozenTrial:
    kinds = {name: domain.distributions[name] for name in params}
    return create_trial(params=params, distributions=kinds, value=0.0)


def _nested() -> Domain:
    """A choice of models, one of which has a kernel, one of which has a scale."""
    domain = Domain(
        {
            "gamma": FloatDistribution(1e-3, 1.0, log=True),
            "model": CategoricalDistribution(["knn", "svm"]),
            "kernel": CategoricalDistribution(["linear", "rbf"]),
            "shrinking": CategoricalDistribution([True, False]),
        }
    )
    domain.learn_conditions(
        [
            _trial(domain, model="knn"),
            _trial(domain, model="svm", kernel="linear", shrinking=True),
            _trial(domain, model="svm", kernel="rbf", shrinking=False, gamma=0.1),
        ]
    )
    return domain


def test_a_parameter_is_absent_where_its_absent_parent_decides() -> None:
    points = _nested().random(100, np.random.default_rng(0))
    gamma, model, kernel, shrinking = points.T
    assert ((kernel == ABSENT) == (model == 0.0)).all()
    assert ((shrinking == ABSENT) == (model == 0.0)).all(), "its sibling does not decide"
    assert ((gamma == ABSENT) == (kernel != 1.0)).all()
    assert _nested().decides.tolist() == [False, True, True, False]


def test_neighbours_of_a_point_without_a_parameter_have_all_its_values() -> None:
    domain = _nested()
    point = domain.encode({"model": "knn"})
    near = domain.near(point[None], 300, 0.01, np.random.default_rng(0))
    gammas = near[near[:, 2] == 1.0, 0]
    assert gammas.min() < 0.1
    assert gammas.max() > 0.9, "spread over the range"


def test_only_active_parameters_of_a_point_are_changed() -> None:
    domain = _nested()
    point = domain.encode({"model": "svm", "kernel": "rbf", "shrinking": True, "gamma": 0.1})
    absent = domain.encode({"model": "knn"})
    near = domain.near(np.stack([point, absent]), 400, 0.1, np.random.default_rng(0))
    moved = (near[400:] != absent).any(axis=1)
    assert 0.4 < moved.mean() < 0.85, "the only active choice is drawn again, once or twice"


def test_spread_points_fill_the_space_evenly() -> None:
    domain = Domain(KINDS)
    points = np.stack([spread(domain, number, 3) for number in range(64)])
    assert np.histogram(points[:, 0], bins=8, range=(0, 1))[0].tolist() == [8] * 8
    assert sorted(np.unique(points[:, 4], return_counts=True)[1].tolist()) == [21, 21, 22]


def test_trials_of_earlier_studies_have_points_of_their_own() -> None:
    domain = Domain(KINDS, ["april", "march"])
    params = {"lr": 0.01, "drop": 0.2, "width": 64, "depth": 5, "opt": "adam"}
    own = create_trial(params=params, distributions=KINDS, value=0.0)
    earlier = create_trial(
        params=params, distributions=KINDS, value=0.0, system_attrs={SOURCE: "april"}
    )
    points = np.stack([domain.locate(own), domain.locate(earlier)])
    # april, march, this study
    assert points[:, domain.is_source].tolist() == [[ABSENT, ABSENT, 0.0], [0.0, ABSENT, ABSENT]]
    assert domain.differing("march").tolist() == [False] * 5 + [False, True, True]
    assert (domain.as_own(points) == points[0]).all()
    assert domain.decode(points[1]) == domain.decode(points[0])


def test_only_points_of_this_study_are_proposed() -> None:
    domain = Domain(KINDS, ["march"])
    rng = np.random.default_rng(0)
    points = domain.near(domain.random(20, rng), 5, 0.3, rng)
    assert (points[:, domain.is_source] == ABSENT).all()
    assert (points[:, ~domain.is_source] != ABSENT).all()
