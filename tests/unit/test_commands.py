"""What may be asked of a study."""

from __future__ import annotations

from typing import Any

import pytest

from tests.specs import make_spec
from tunesvc.coordinator.commands import extended
from tunesvc.errors import SpecError


def test_extending_adds_to_the_limits_that_the_budget_has() -> None:
    spec = make_spec(budget={"trials": 10, "wall": 60.0})
    grown = extended(spec, {"trials": 5, "wall": 30.0})
    assert (grown.budget.trials, grown.budget.wall, grown.budget.gpu_hours) == (15, 90.0, None)


def test_a_limit_that_the_budget_has_not_stays_absent() -> None:
    assert extended(make_spec(), {"gpu_hours": 3.0, "trials": 1}).budget.gpu_hours is None


def test_an_extension_that_would_change_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match="no limit on trials.*one on wall"):
        extended(make_spec(budget={"wall": 60.0}), {"trials": 5})


@pytest.mark.parametrize("more", [{}, {"trails": 3}, {"trials": 0}, {"trials": -1}, {"trials": True}, {"trials": "5"}])
def test_an_extension_that_makes_no_sense_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="extend"):
        extended(make_spec(), more)


def test_half_a_trial_is_refused() -> None:
    with pytest.raises(SpecError, match="extend"):
        extended(make_spec(), {"trials": 1.5})
