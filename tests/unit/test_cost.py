"""Prices: one formula for the cost of trials and studies, budgets in money, and their errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.specs import make_spec
from tunesvc.errors import SpecError
from tunesvc.policy import Finish, Halt, StopCause, Usage, forecast, fraction_spent, next_move
from tunesvc.preview import describe_cost, preview
from tunesvc.spec import Budget, Prices
from tunesvc.spec.sections.budget import StopWhen
from tunesvc.spec.yaml.document import parse
from tunesvc.util.formatting import money

PRICE = st.floats(0, 1e4)
HOURS = st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)), max_size=20)


@given(gpu_hour=PRICE, cpu_hour=PRICE, attempts=HOURS)
def test_cost_is_additive_over_attempts_and_never_negative(
    gpu_hour: float, cpu_hour: float, attempts: list[tuple[float, float]]
) -> None:
    prices = Prices(gpu_hour=gpu_hour, cpu_hour=cpu_hour)
    costs = [prices.cost(cpu_hours, gpu_hours) for cpu_hours, gpu_hours in attempts]
    assert min(costs, default=0.0) >= 0
    total = prices.cost(sum(cpu for cpu, _ in attempts), sum(gpu for _, gpu in attempts))
    assert sum(costs) == pytest.approx(total, rel=1e-9, abs=1e-6)


def test_amounts_are_short_and_small_ones_keep_their_digits() -> None:
    assert money(4.2, "EUR") == "4.20 EUR"
    assert money(12345.678) == "12,345.68"
    assert money(0.0123456, "$") == "0.0123 $"
    assert money(0.0, "EUR") == "0.00 EUR"
    assert money(0.0000064, "EUR") == "under 0.0001 EUR"


def test_a_spent_budget_of_money_stops_running_trials_and_ends_the_study() -> None:
    budget = Budget(cost=50.0)
    spent = Usage(5, 2, 60.0, 0.0, 50.0, "EUR")
    move = next_move(budget, spent, 2)
    assert isinstance(move, Halt)
    assert move.cause is StopCause.BUDGET
    assert move.reason == "the budget of 50.00 EUR is spent"
    assert isinstance(next_move(budget, Usage(5, 0, 60.0, 0.0, 51.0, "EUR"), 2), Finish)
    assert fraction_spent(budget, Usage(5, 2, 60.0, 0.0, 12.5)) == 0.25


def test_the_price_of_improvement_is_per_unit_of_cost() -> None:
    values = [1.0] * 10 + [0.8] * 10
    stop = StopWhen(improvement_below=0.1, per="cost")
    expected = forecast(stop, values, Usage(20, 0, 60.0, 0.0, 4.0, "EUR"))
    assert expected is not None
    assert expected.improvement == pytest.approx(0.2 / 4)
    assert expected.text == "expected improvement 0.05 per EUR, less than 0.1"
    assert forecast(stop, values, Usage(20, 0, 60.0, 0.0, 0.0)) is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("cost: {gpu_hour: -1}", "cost.gpu_hour"),
        ("cost: {gpu_hours: 1}", "unknown key `gpu_hours`, did you mean `gpu_hour`?"),
        ("cost: {}", "cost: needs `gpu_hour`, `cpu_hour` or both above 0"),
        ("cost: {gpu_hour: 2}", "every trial is free: `resources` requests no GPU"),
        (
            "cost: {cpu_hour: 2}\nresources: {cpu: 0, gpu: 1}",
            "every trial is free: `resources` requests no core",
        ),
        (
            "budget: {cost: 50}",
            "budget: `cost` needs prices: write `cost: {gpu_hour: ..., cpu_hour: ...}`",
        ),
        (
            "budget: {trials: 9, stop_when: {improvement_below: 1, per: cost}}",
            "budget.stop_when.per: needs prices",
        ),
    ],
)
def test_prices_that_make_no_sense_are_refused_with_the_remedy(lines: str, message: str) -> None:
    budget = "" if "budget" in lines else "budget: 1\n"
    with pytest.raises(SpecError) as caught:
        parse(f"name: x\nentrypoint: a:b\nmetric: a\n{budget}{lines}\n")
    assert message in str(caught.value)


def test_a_preview_says_what_an_hour_costs_and_the_most_that_may_be_spent() -> None:
    spec = make_spec(
        cost={"gpu_hour": 2.0, "cpu_hour": 0.5, "currency": "EUR"},
        resources={"cpu": 2, "gpu": 1, "workers": 2},
        limits={"wall": 3600},
        budget={"trials": 10, "cost": 80},
    )
    lines = list(describe_cost(spec, preview(spec).cost))
    assert lines[0] == "ends after 10 trials or 80.00 EUR, whichever comes first"
    assert lines[-1].startswith("an hour of a trial costs 6.00 EUR, the study at most 60")
    cheap = make_spec(cost={"cpu_hour": 1.0}, budget={"cost": 3.0})
    assert list(describe_cost(cheap, preview(cheap).cost))[-1].endswith(
        "costs 1.00, the study at most 3.00"
    )
