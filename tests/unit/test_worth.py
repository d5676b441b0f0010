"""Checks of cost: when more trials are not worth it, failures that were paid for, parallelism."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from tests.unit.test_health import NOW, bowl, check, evidence_of, rows_of
from tunesvc.queries.cost.outlook import describe_outlook
from tunesvc.queries.cost.spending import EffortUnit, FailureSpending
from tunesvc.queries.health.evidence import OccupiedTime
from tunesvc.spec import Prices
from tunesvc.spec.sections.components import Sampler

EUR = Prices(gpu_hour=2.0, currency="EUR")


def test_gains_that_drown_in_noise_are_not_worth_more_trials() -> None:
    rows, rng = rows_of(120), np.random.default_rng(1)
    noisy = [0.05 * bowl(row) + 0.5 + 0.2 * rng.normal() for row in rows]
    evidence = evidence_of(rows, noisy)
    (finding,) = check(evidence, "worth").findings
    assert "More trials are not worth their cost" in finding.text
    assert "more than that gain" in finding.text
    assert "tune confirm" in finding.advice


def test_a_study_that_has_converged_gains_little() -> None:
    rows, rng = rows_of(80), np.random.default_rng(0)
    for row in rows[50:]:
        row |= {"x": float(rng.normal(1, 0.003)), "lr": 0.01, "layers": 4}
    (finding,) = check(evidence_of(rows, [bowl(row) + 1.0 for row in rows]), "worth").findings
    assert "of the difference between a middling trial and the best one" in finding.text
    assert finding.action is not None
    assert finding.action.kind == "stop"


def test_a_study_that_still_improves_gets_a_forecast_and_no_advice() -> None:
    rows = rows_of(60)
    found = check(evidence_of(rows, map(bowl, rows)), "worth")
    assert found.silence is not None
    assert found.silence.text.startswith("Another 20 trials would take about")
    assert "(90 %: 0 to" in found.silence.text


def test_too_few_trials_get_no_advice() -> None:
    rows = rows_of(30)
    for name in ("worth", "wasted"):
        found = check(evidence_of(rows, [0.5] * 30), name)
        assert found.silence is not None
        assert found.silence.is_early


@pytest.mark.parametrize(
    ("failure", "advice"),
    [
        ("gpu_oom", "more memory"),
        ("lost", "checkpoints"),
        ("error", "tune show"),
        ("timeout", "limit"),
    ],
)
def test_failures_that_took_most_are_named_with_the_remedy(failure: str, advice: str) -> None:
    spent = (FailureSpending(failure, 5, 6.0), FailureSpending(None, 20, 9.0))
    evidence = evidence_of([], [], spent=spent)
    priced = replace(evidence.study, prices=EUR, cost=15.0)
    (finding,) = check(evidence_of([], [], spent=spent), "wasted").findings
    assert advice in finding.advice
    assert "40% was paid for failures" in finding.text
    (in_money,) = check(replace(evidence, study=priced), "wasted").findings
    assert "5 failed attempts took 6.00 EUR of 15.00 EUR" in in_money.text


def test_few_failures_are_no_finding() -> None:
    spent = (FailureSpending("error", 2, 9.0), FailureSpending(None, 20, 9.0))
    assert not check(evidence_of([], [], spent=spent), "wasted").findings


def _attempts(slots: int) -> list[OccupiedTime]:
    began = [NOW - timedelta(seconds=60 + number) for number in range(slots)]
    return [OccupiedTime(at, at, NOW) for at in began]


@pytest.mark.parametrize(
    ("slots", "trials", "sampler", "is_found"),
    [
        (16, 50, "tpe", True),
        (16, 200, "tpe", False),
        (16, 50, "random", False),
        (2, 8, "tpe", False),
    ],
)
def test_parallelism_that_leaves_few_rounds_is_found(
    slots: int, trials: int, sampler: str, is_found: bool
) -> None:
    evidence: Any = evidence_of([], [], attempts=_attempts(slots))
    spec = evidence.study.spec
    changed = spec.model_copy(
        update={
            "budget": spec.budget.model_copy(update={"trials": trials}),
            "sampler": Sampler(name=sampler),
        }
    )
    found = check(replace(evidence, study=replace(evidence.study, spec=changed)), "parallel")
    assert bool(found.findings) is is_found
    if is_found:
        assert found.findings[0].action is not None
        assert found.findings[0].action.payload == {"trials": 5}


def test_an_outlook_says_what_is_missing() -> None:
    rows = rows_of(10)
    outlook = describe_outlook(evidence_of(rows, [0.5] * 10).study, np.full(10, 0.5))
    assert outlook is not None
    assert "it needs 20 finished trials, and there are 10" in outlook.text
    rows = rows_of(40)
    equal = describe_outlook(evidence_of(rows, [0.5] * 40).study, np.full(40, 0.5))
    assert equal is not None
    assert "the 6 best results are equal" in equal.text


def test_an_outlook_is_in_money_if_there_are_prices_and_in_hours_otherwise() -> None:
    rows = rows_of(40)
    view, losses = evidence_of(rows, [0.5] * 40).study, np.linspace(0.1, 1, 40)
    priced = describe_outlook(replace(view, prices=EUR, cost=8.0), losses)
    assert priced is not None
    assert "Another 10 trials would take about 2.00 EUR and improve error by about" in str(priced)
    gpus = describe_outlook(replace(view, gpu_hours=2.0), losses, 20)
    assert gpus is not None
    assert "about 1 GPU hours" in str(gpus)
    assert "about 25s" in str(describe_outlook(view, losses))
    assert EffortUnit(EUR).name == "cost in EUR"
