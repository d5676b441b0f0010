"""The forecast of further improvement: covered gains, refusals, scale and repeatability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesvc.search.analysis.gain_forecast import forecast_gain


@pytest.mark.parametrize(("done", "more"), [(20, 10), (40, 20)])
def test_nine_in_ten_gains_of_an_exponential_tail_lie_in_the_interval(done: int, more: int) -> None:
    rng = np.random.default_rng(done)
    inside, forecasts, gains = 0, [], []
    for _ in range(300):
        losses = -np.log(rng.random(done + more)) * -0.3 + 5.0  # a tail towards small values
        forecast = forecast_gain(losses[:done], done, more)
        assert forecast is not None
        gain = max(0.0, losses[:done].min() - losses[done:].min())
        inside += forecast.low <= gain <= forecast.high
        forecasts.append(forecast.mean)
        gains.append(gain)
    assert 0.89 <= inside / 300 <= 0.99, "the lower bound is 0 where no gain is likely"
    # five distances leave the scale uncertain, which raises the mean by a quarter
    assert 0.9 <= np.mean(forecasts) / np.mean(gains) <= 1.6


def test_too_few_or_equal_results_forecast_nothing() -> None:
    losses = np.linspace(0.1, 0.9, 30)
    assert forecast_gain(losses, 19, 10) is None
    assert forecast_gain(losses[:5], 30, 10) is None
    assert forecast_gain(np.full(30, 0.2), 30, 10) is None
    assert forecast_gain(np.r_[np.full(30, np.inf), losses[:4]], 34, 10) is None
    assert forecast_gain(np.array([1e308, -1e308] * 20), 40, 10) is None


@given(
    losses=st.lists(st.floats(-1e3, 1e3), min_size=20, max_size=60),
    more=st.integers(1, 100),
    factor=st.floats(1e-3, 1e3),
)
def test_a_forecast_is_repeatable_ordered_and_in_the_metrics_units(
    losses: list[float], more: int, factor: float
) -> None:
    values = np.array(losses)
    found = forecast_gain(values, len(values), more)
    assert found == forecast_gain(values, len(values), more)
    if found is None or np.ptp(np.sort(values)[:6]) < 1e-6:
        return
    assert 0 <= found.low <= found.high
    assert found.mean > 0
    scaled = forecast_gain(values * factor, len(values), more)
    assert scaled is not None
    assert scaled.mean == pytest.approx(found.mean * factor, rel=1e-3)


def test_more_trials_gain_more_and_pruned_ones_make_records_rarer() -> None:
    losses = np.geomspace(0.1, 3.0, 40)
    few, many = forecast_gain(losses, 40, 10), forecast_gain(losses, 40, 40)
    pruned = forecast_gain(losses, 80, 10)
    assert few is not None
    assert many is not None
    assert pruned is not None
    assert pruned.mean < few.mean < many.mean
    assert few.high < many.high
