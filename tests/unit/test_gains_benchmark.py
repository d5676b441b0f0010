"""The benchmark of forecast gains judges what it says it judges."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gains import by_records, judge


def test_a_gain_is_judged_against_the_interval_and_by_its_score() -> None:
    gains = np.linspace(0.0, 1.0, 1001)
    above, below, forecast, gain, score = judge(gains, 0.97, 1.0)
    assert (above, below) == (1.0, 0.0)
    assert judge(gains, 0.01, 1.0)[:2] == (0.0, 1.0)
    assert judge(gains, 0.5, 1.0)[:2] == (0.0, 0.0)
    assert (forecast, gain) == (pytest.approx(0.5), 0.97)
    # of a uniform forecast, by hand: the integral of (F(x) - 1{x >= gain})² over x
    assert score == pytest.approx(0.97**3 / 3 + 0.03**3 / 3, abs=1e-3)


def test_gains_are_in_units_of_the_improvement_so_far() -> None:
    values = np.linspace(1.0, 3.0, 40)
    gains = by_records(values, 10)
    assert gains is not None
    assert judge(gains, 0.5, 1.0)[2] == pytest.approx(2 * judge(gains, 0.5, 2.0)[2])
    assert by_records(np.full(40, 1.0), 10) is None
