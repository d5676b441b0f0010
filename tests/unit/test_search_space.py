"""The search space: order, conditions, size, distributions."""

from __future__ import annotations

import itertools
import re
import warnings
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from tunesvc.errors import SpecError
from tunesvc.space.search_space import (
    Space,
    all_values,
    canonical,
    sample,
    to_distribution,
    widened,
)
from tunesvc.spec import CategoricalParameter, FloatParameter, IntParameter
from tunesvc.spec.conditions import as_written, contains
from tunesvc.spec.sections.parameter_types import Parameter

OPTIMIZER = CategoricalParameter(values=("sgd", "adam"))
MOMENTUM = FloatParameter(type="float", min=0.0, max=0.99, when={"optimizer": "sgd"})
NESTEROV = CategoricalParameter(values=(True, False), when={"momentum": 0.5})
LAYERS = IntParameter(type="int", min=1, max=4)


def test_parents_are_drawn_before_their_children_and_the_rest_as_written() -> None:
    space = Space({"layers": LAYERS, "momentum": MOMENTUM, "last": LAYERS, "optimizer": OPTIMIZER})
    assert list(space.distributions) == ["layers", "optimizer", "momentum", "last"]


def test_a_child_of_an_inactive_parent_is_inactive_even_when_a_value_is_at_hand() -> None:
    space = Space({"optimizer": OPTIMIZER, "momentum": MOMENTUM, "nesterov": NESTEROV})
    assert space.active("nesterov", {"optimizer": "sgd", "momentum": 0.5})
    assert not space.active("nesterov", {"optimizer": "adam", "momentum": 0.5})
    assert space.select({"nesterov": True, "momentum": 0.5, "optimizer": "adam"}) == {
        "optimizer": "adam"
    }


def test_parameters_that_wait_for_each_other_are_named() -> None:
    a = FloatParameter(type="float", min=0.0, max=1.0, when={"b": 1})
    b = FloatParameter(type="float", min=0.0, max=1.0, when={"a": 1})
    with pytest.raises(SpecError, match="a -> b -> a"):
        Space({"a": a, "b": b})


def test_a_missing_parent_is_named() -> None:
    with pytest.raises(SpecError, match="`momentum`: `when` names `optimizer`"):
        Space({"momentum": MOMENTUM})


def test_distributions_are_those_optuna_would_make() -> None:
    assert to_distribution(
        FloatParameter(type="float", min=1e-4, max=1.0, log=True)
    ) == FloatDistribution(1e-4, 1.0, log=True)
    assert to_distribution(IntParameter(type="int", min=1, max=64, log=True)) == IntDistribution(
        1, 64, log=True
    )
    assert to_distribution(CategoricalParameter(values=("a", None, 2))) == CategoricalDistribution(
        ("a", None, 2)
    )


@given(
    low=st.integers(-1000, 1000),
    span=st.integers(0, 1000),
    step=st.integers(1, 300),
    scale=st.integers(0, 4),
)
def test_a_step_that_does_not_divide_the_range_ends_where_optuna_ends_it_without_a_warning(
    low: int, span: int, step: int, scale: int
) -> None:
    unit = 10**scale
    parameter = FloatParameter(
        type="float", min=low / unit, max=(low + span) / unit, step=step / unit
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = to_distribution(parameter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = FloatDistribution(low / unit, (low + span) / unit, step=step / unit)
    assert ours == theirs
    assert Space({"x": parameter}).size == span // step + 1


def test_a_whole_number_step_ends_at_the_last_value_reached() -> None:
    assert to_distribution(IntParameter(type="int", min=1, max=10, step=4)) == IntDistribution(
        1, 9, step=4
    )


def test_the_size_of_a_conditional_space_counts_only_what_exists() -> None:
    # adam, or sgd with one of five momenta, of which 0.5 alone asks for nesterov: (1 + 4 + 2) * 4
    # layers
    momentum = FloatParameter(type="float", min=0.3, max=0.7, step=0.1, when={"optimizer": "sgd"})
    space = Space(
        {"optimizer": OPTIMIZER, "momentum": momentum, "nesterov": NESTEROV, "layers": LAYERS}
    )
    assert space.size == 28


def test_a_continuous_space_has_no_size() -> None:
    assert Space({"x": FloatParameter(type="float", min=0.0, max=1.0)}).size is None
    assert Space({"x": FloatParameter(type="float", min=1.0, max=1.0)}).size == 1
    assert Space({}).size == 1


PARENTS = st.lists(st.integers(2, 4), min_size=1, max_size=4)


@st.composite
def finite_spaces(draw: st.DrawFn) -> Space:
    """Up to four parameters, each of which may depend on any before it."""
    parameters: dict[str, CategoricalParameter] = {}
    for index, count in enumerate(draw(PARENTS)):
        when = {
            name: tuple(draw(st.sets(st.integers(0, 4), min_size=1, max_size=2)))
            for name in parameters
            if draw(st.booleans())
        }
        parameters[f"p{index}"] = CategoricalParameter(
            values=tuple(range(count)), when=when or None
        )
    return Space(parameters)


@given(space=finite_spaces())
def test_the_size_is_the_number_of_distinct_configurations(space: Space) -> None:
    configurations: list[dict[str, object]] = [{}]
    for name, distribution in space.distributions.items():
        assert isinstance(distribution, CategoricalDistribution)
        configurations = [
            {**params, **extra}
            for params in configurations
            for extra in (
                [{name: v} for v in distribution.choices] if space.active(name, params) else [{}]
            )
        ]
    assert space.size == len(configurations)


@given(space=finite_spaces(), seed=st.integers(0, 1000))
def test_a_sample_holds_exactly_the_active_parameters(space: Space, seed: int) -> None:
    params = sample(space, Random(seed))
    assert set(params) == {name for name in space.parameters if space.active(name, params)}


@pytest.mark.parametrize(
    "parameter",
    [
        FloatParameter(type="float", min=1e-5, max=1.0, log=True),
        FloatParameter(type="float", min=-0.3, max=0.5, step=0.1),
        FloatParameter(type="float", min=-2.0, max=3.0),
        IntParameter(type="int", min=1, max=3, log=True),
        IntParameter(type="int", min=-5, max=9, step=7),
    ],
)
def test_samples_lie_in_their_distribution(parameter: FloatParameter | IntParameter) -> None:
    space = Space({"x": parameter})
    rng = Random(0)
    for _ in range(200):
        value = sample(space, rng)["x"]
        assert contains(parameter, value), value
        assert space.distributions["x"]._contains(value)  # type: ignore[arg-type]


def test_containment_is_strict_about_kinds() -> None:
    assert not contains(LAYERS, True)
    assert not contains(LAYERS, 1.5)
    assert not contains(LAYERS, "1")
    assert contains(FloatParameter(type="float", min=0.0, max=1.0, step=0.1), 0.3)


MIXED = Space(
    {
        "lr": FloatParameter(type="float", min=1e-4, max=1.0, log=True),
        "layers": LAYERS,
        "optimizer": OPTIMIZER,
        "momentum": MOMENTUM,
    }
)


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_distance_is_a_share_that_does_not_depend_on_the_order(one: int, other: int) -> None:
    first, second = sample(MIXED, Random(one)), sample(MIXED, Random(other))
    assert 0 <= MIXED.distance(first, second) <= 1
    assert MIXED.distance(first, second) == MIXED.distance(second, first)
    assert MIXED.distance(first, first) == 0


def test_a_distance_is_taken_on_the_scale_of_the_parameter() -> None:
    here = {"lr": 1e-4, "layers": 1, "optimizer": "adam"}
    assert MIXED.distance(here, {**here, "lr": 1e-2}) == pytest.approx(0.5 / 3)
    assert MIXED.distance(here, {**here, "layers": 4}) == pytest.approx(1 / 3)
    assert MIXED.distance(here, {**here, "optimizer": "sgd", "momentum": 0.0}) == pytest.approx(
        2 / 4
    )


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (LAYERS, LAYERS.model_copy(update={"max": 9}), ""),
        (LAYERS, LAYERS.model_copy(update={"max": 3}), "may grow, not shrink"),
        (OPTIMIZER, CategoricalParameter(values=("lion", "adam", "sgd")), ""),
        (OPTIMIZER, CategoricalParameter(values=("adam",)), "'sgd'"),
        (
            CategoricalParameter(values=(1,)),
            CategoricalParameter(values=(True, 2)),
            "choices may be added",
        ),
        (
            LAYERS.model_copy(update={"step": 2}),
            LAYERS.model_copy(update={"min": -1, "step": 2}),
            "",
        ),
        (
            LAYERS.model_copy(update={"step": 2}),
            LAYERS.model_copy(update={"min": 0, "step": 2}),
            "whole number of steps",
        ),
        (MOMENTUM, MOMENTUM.model_copy(update={"when": None}), "`when` cannot change"),
    ],
)
def test_a_space_may_grow_and_nothing_else(
    before: Parameter, now: Parameter, expected: str
) -> None:
    problems = list(widened({"p": before}, {"p": now}))
    assert [expected in problem for problem in problems] == ([True] if expected else [])


def test_a_stored_trial_means_the_same_in_a_wider_space() -> None:
    narrow = {
        "optimizer": CategoricalDistribution(["sgd", "adam"]),
        "gone": FloatDistribution(0, 1),
    }
    trial = create_trial(params={"optimizer": "adam", "gone": 0.5}, distributions=narrow, value=1.0)
    wide = Space({"optimizer": CategoricalParameter(values=("lion", "sgd", "adam"))})
    restated = wide.with_distributions(trial)
    assert restated.params == trial.params
    assert restated.distributions == {**narrow, **wide.distributions}
    assert trial.distributions == narrow


TENTHS = FloatParameter(type="float", min=0.1, max=0.5, step=0.1)
EXTRA = IntParameter(type="int", min=1, max=3, when={"x": 0.3})


@pytest.mark.parametrize(
    ("low", "steps", "step"), [(0.0, 100, 0.1), (0.1, 4, 0.1), (1e-3, 999, 1e-3), (-2.0, 40, 0.05)]
)
def test_a_step_has_one_value_however_it_is_computed(low: float, steps: int, step: float) -> None:
    """Case S1: of 0..10 by 0.1, 35 of 101 values were refused."""
    high = float(f"{low + steps * step:.6f}")
    parameter = FloatParameter(type="float", min=low, max=high, step=step)
    distribution = to_distribution(parameter)
    for k in range(steps + 1):
        computed, written = low + k * step, float(f"{low + k * step:.6f}")
        assert contains(parameter, computed)
        assert canonical(distribution, computed) == as_written(parameter, computed) == written
    assert all_values(distribution) == [float(f"{low + k * step:.6f}") for k in range(steps + 1)]


def test_a_value_between_two_steps_is_none_of_them() -> None:
    assert not contains(TENTHS, 0.34)
    assert canonical(to_distribution(TENTHS), 0.34) == 0.34


@pytest.mark.parametrize("wanted", [0.3, 0.1 + 2 * 0.1])
def test_a_condition_on_a_step_holds_however_the_step_was_computed(wanted: float) -> None:
    space = Space({"x": TENTHS, "extra": EXTRA.model_copy(update={"when": {"x": wanted}})})
    computed = {"x": 0.1 + 2 * 0.1, "extra": 2}
    assert space.active("extra", computed)
    assert space.select(computed) == space.checked(computed) == {"x": 0.3, "extra": 2}


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        (
            {"optimizer": "adam", "momentum": 0.5},
            "exists only where optimizer is 'sgd', and is 'adam' here",
        ),
        ({"momentum": 0.5}, "exists only where optimizer is 'sgd', so give that too"),
        (
            {"optimizer": "sgd", "nesterov": True},
            "exists only where momentum is 0.5, so give that too",
        ),
        ({"flag": True}, "flag = True is outside of 0, 1, 'x'"),
        ({"flag": False}, "flag = False is outside of 0, 1, 'x'"),
    ],
)
def test_what_would_be_dropped_or_taken_for_another_value_is_refused(
    params: dict[str, object], reason: str
) -> None:
    """Case S8."""
    flag = CategoricalParameter(values=(0, 1, "x"))
    space = Space(
        {"optimizer": OPTIMIZER, "momentum": MOMENTUM, "nesterov": NESTEROV, "flag": flag}
    )
    with pytest.raises(SpecError, match=re.escape(reason)):
        space.checked(params)  # type: ignore[arg-type]


def test_a_number_is_the_same_choice_with_and_without_a_point() -> None:
    assert contains(CategoricalParameter(values=(0, 1, "x")), 1.0)


def layered(layers: int) -> Space:
    """As `gen_layers.py` writes it: each layer has a norm, and a batch norm has a momentum."""
    parameters: dict[str, Parameter] = {"n_layers": IntParameter(type="int", min=1, max=layers)}
    for i in range(1, layers + 1):
        there = {"n_layers": tuple(range(i, layers + 1))}
        parameters[f"norm_{i}"] = CategoricalParameter(
            values=("none", "batch", "layer"), when=there
        )
        batch = {f"norm_{i}": "batch"}
        parameters[f"momentum_{i}"] = IntParameter(type="int", min=1, max=9, when=batch)
    return Space(parameters)


@pytest.mark.parametrize("layers", [3, 20, 60])
def test_the_size_of_a_space_of_many_layers_is_counted_at_once(layers: int) -> None:
    """Case S5: it took minutes from twenty layers on, for the count was exponential."""
    assert layered(layers).size == sum(11**n for n in range(1, layers + 1))


def test_the_order_in_which_conditions_are_written_does_not_matter_for_counting() -> None:
    """Parents first, then all children: that many parents' values at once cannot be remembered."""
    parents = {
        f"{side}{i}": CategoricalParameter(values=(0, 1, 2)) for side in "ab" for i in range(30)
    }
    children = {
        f"c{i}": LAYERS.model_copy(update={"when": {f"a{i}": 1, f"b{i}": 2}}) for i in range(30)
    }
    assert Space({**parents, **children}).size == 12**30


def test_a_space_that_is_too_entangled_is_bounded_instead_of_counted() -> None:
    parents = {f"a{i}": CategoricalParameter(values=(0, 1, 2)) for i in range(18)}
    pairs = itertools.combinations(parents, 2)
    children = {f"{a}{b}": CategoricalParameter(values=(0, 1), when={a: 1, b: 1}) for a, b in pairs}
    space = Space({**parents, **children})
    assert space.size is None
    assert space.size_at_most == 3**18 * 2 ** len(children)


def test_conditions_upon_conditions_are_looked_at_once() -> None:
    """Each level asks for both of the level above: followed one by one, that were two to the
    power of forty ways."""
    parameters: dict[str, Parameter] = {"a0": OPTIMIZER, "b0": OPTIMIZER}
    for i in range(1, 40):
        above = {f"a{i - 1}": "sgd", f"b{i - 1}": "sgd"}
        parameters |= {side + str(i): OPTIMIZER.model_copy(update={"when": above}) for side in "ab"}
    assert Space(parameters).active("a39", dict.fromkeys(parameters, "sgd"))
