"""The first page of a report: plain sentences for each state that a study can be in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tests.unit.test_health import evidence_of, rows_of
from tunesvc.charts.report.first_page import FirstPage
from tunesvc.queries.cost.outlook import describe_outlook
from tunesvc.queries.cost.spending import FailureSpending
from tunesvc.queries.health import Health, HealthFinding
from tunesvc.queries.health.finding import Check
from tunesvc.queries.rows import TrialRow
from tunesvc.search.analysis.recommend import Recommendation
from tunesvc.spec import Prices

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STUDY = replace(
    evidence_of(rows_of(40), [0.5] * 40).study, prices=Prices(gpu_hour=2, currency="EUR"), cost=8.0
)
BEST = TrialRow(7, 7, "complete", (0.25,), {"x": 0.5}, True, 3, 0.25, 1, None, NOW, NOW, 1.0)


def page(*findings: tuple[str, HealthFinding], **changes: Any) -> dict[str, str]:
    checks = tuple(Check(name, "?", (finding,), None) for name, finding in findings)
    made = FirstPage(
        STUDY,
        Recommendation(7, 0.25, None, 7),
        BEST,
        describe_outlook(STUDY, np.linspace(0.25, 1, 40)),
        Health(checks),
        (FailureSpending(None, 40, 8.0),),
    )
    return dict(replace(made, **changes).sentences())


def test_a_manager_reads_what_was_tuned_what_it_cost_and_what_more_would_bring() -> None:
    found = page()
    assert (
        "to make error as low as possible. 40 combinations of them were tried."
        in found["What was tuned"]
    )
    assert found["The answer"] == "x = 0.5. This gave error 0.25 (trial 7)."
    assert "no sign of chance" in found["How sure"]
    assert found["What it cost"].startswith("8.00 EUR, in 1m 40s. That is 0.20 EUR for each")
    assert "another 10 combinations, for about 2.00 EUR" in found["What more would bring"]
    assert "With 90 % certainty" in found["What more would bring"]
    assert found["Recommendation"].startswith("Go on if an improvement of about")


def test_without_prices_the_page_counts_hours() -> None:
    study = replace(STUDY, prices=None, cost=None)
    found = page(study=study, outlook=describe_outlook(study, np.linspace(0.25, 1, 40)))
    assert found["What it cost"] == "1m 40s of running time."
    assert "for about 25s" in found["What more would bring"]
    gpus = page(study=replace(study, gpu_hours=3.0))
    assert gpus["What it cost"].startswith("3 GPU hours")


def test_the_recommendation_is_stop_or_fix_where_checks_say_so() -> None:
    waste = HealthFinding("warn", "40% was paid for failures.", "Request more `memory`.")
    enough = HealthFinding("note", "More trials are not worth it.", "Use `tune confirm`.")
    assert page(("worth", enough))["Recommendation"].startswith("Stop.")
    both = page(("worth", enough), ("wasted", waste))["Recommendation"]
    assert both == "Fix first. 40% was paid for failures. Request more memory."
    narrow = HealthFinding("warn", "lr: at the end.", "")
    assert page(("narrow", narrow))["Recommendation"].startswith("Go on, with wider ranges.")
    assert page(outlook=None)["Recommendation"].startswith("Too early")


def test_a_study_without_a_result_says_so() -> None:
    found = page(best=None, answer=None)
    assert found["The answer"].startswith("There is none yet")
    assert found["Recommendation"].startswith("Fix first")
    assert "How sure" not in found


def test_chance_and_failures_are_named() -> None:
    noisy = page(answer=Recommendation(7, 0.27, 0.02, 7))
    assert "0.27 ± 0.02" in noisy["How sure"]
    assert "luck" in noisy["What more would bring"]
    spent = (FailureSpending(None, 30, 6.0), FailureSpending("error", 10, 2.0))
    assert "25% of it (2.00 EUR) went into failures." in page(spent=spent)["What it cost"]
