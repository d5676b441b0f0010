"""Base of samplers of other libraries: axes, and trials as such a library is shown them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from tunesvc.integrations.samplers.foreign_sampler import Axis, ForeignSampler, KnownTrial, Point

SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-4, 1, log=True),
    "share": FloatDistribution(0, 1, step=0.25),
    "layers": IntDistribution(1, 64, log=True),
    "even": IntDistribution(2, 8, step=2),
    "huge": IntDistribution(-(2**40), 2**40),
    "kind": CategoricalDistribution(["a", True, None]),
    "fixed": IntDistribution(3, 3),
}


class Recorded(ForeignSampler):
    """Proposes the middle, and keeps what it was shown."""

    shown: Sequence[KnownTrial] = ()

    def _propose(self, study: Any, trial: Any, known: Sequence[KnownTrial]) -> Point:
        self.shown = known
        return self._complete({})


@given(st.sampled_from([name for name in SPACE if name != "fixed"]), st.floats(0, 1))
def test_every_number_of_an_axis_is_a_value_of_the_range_and_comes_back(
    name: str, share: float
) -> None:
    axis = Axis.of(SPACE[name])
    number = axis.at(share)
    value = axis.value(number)
    assert SPACE[name]._contains(SPACE[name].to_internal_repr(value))
    assert axis.number(value) == pytest.approx(number)


def test_each_index_of_steps_and_choices_has_the_same_share() -> None:
    axis = Axis.of(SPACE["even"])
    found = [axis.value(axis.at((i + 0.5) / 400)) for i in range(400)]
    assert [found.count(value) for value in (2, 4, 6, 8)] == [100] * 4
    axis = Axis.of(SPACE["kind"])
    found = [axis.value(axis.at((i + 0.5) / 300)) for i in range(300)]
    assert [found.count(value) for value in ("a", True, None)] == [100] * 3


def test_trials_are_shown_as_losses_and_infeasible_ones_with_the_worst() -> None:
    sampler = Recorded(SPACE, seed=1)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    axis = {"rate": SPACE["rate"]}

    def add(rate: float, value: float | None, state: Any, **attrs: Any) -> None:
        params = {"rate": rate}
        study.add_trial(
            create_trial(
                params=params, distributions=axis, value=value, state=state, system_attrs=attrs
            )
        )

    add(0.1, 3.0, TrialState.COMPLETE)
    add(0.2, 1.0, TrialState.PRUNED)
    add(0.3, 9.0, TrialState.COMPLETE, **{"constraints:memory": 1.0})
    add(0.4, None, TrialState.FAIL)
    add(0.5, None, TrialState.RUNNING)
    study.ask(SPACE)
    assert [(one.point["rate"], one.losses) for one in sampler.shown] == [
        (0.1, (-3.0,)),
        (0.2, (-1.0,)),
        (0.3, (-1.0,)),
        (0.5, None),
    ]


def test_a_trial_of_another_range_is_left_out_and_a_space_of_single_values_refused() -> None:
    sampler = Recorded({"rate": FloatDistribution(0.5, 1)}, seed=1)
    study = optuna.create_study(sampler=sampler)
    wide = {"rate": FloatDistribution(0, 1)}
    study.add_trial(create_trial(params={"rate": 0.1}, distributions=wide, value=1.0))
    trial = study.ask({"rate": FloatDistribution(0.5, 1), "fixed": SPACE["fixed"]})
    assert sampler.shown == []
    assert trial.params == {"rate": 0.75, "fixed": 3}
    with pytest.raises(ValueError, match="no parameter with more than one value"):
        Recorded({"fixed": SPACE["fixed"]}, seed=1)


def test_the_first_points_spread_out_and_follow_from_the_seed() -> None:
    sampler, same = Recorded(SPACE, seed=1), Recorded(SPACE, seed=1)
    points = [sampler._spread(number) for number in range(16)]
    assert points == [same._spread(number) for number in range(16)]
    assert {point["kind"] for point in points} == {0, 1, 2}
    assert len({point["share"] for point in points}) == 5
