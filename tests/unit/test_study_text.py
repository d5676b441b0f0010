"""Text for the terminal about a study's recommendation, its replay and its finalists."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console, RenderableType

from tests.support.specs import make_spec
from tunesvc.cli.exits import ExitCode
from tunesvc.cli.views import replay_text, summary
from tunesvc.db.schema.states import StudyState
from tunesvc.queries.confirmation import Confirmation
from tunesvc.queries.explain.explanation import Explanation, Statement
from tunesvc.queries.rows import (
    Counts,
    Objective,
    ReportCurve,
    StudyStatus,
    StudyView,
    TrialDetail,
    TrialRow,
)
from tunesvc.queries.study_replay import StudyReplay
from tunesvc.search.analysis.finalists import compare
from tunesvc.search.analysis.recommend import Recommendation
from tunesvc.search.replay import Mismatch, PrunerComparison, ReplayCount, ReplayedStop
from tunesvc.views import study_text
from tunesvc.web.available_actions import unavailable_actions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VIEW = StudyView(
    1, "bowl", StudyState.FINISHED, "", (Objective("loss", "minimize"),), Counts(complete=2), 0.1, None, 1.0, 1.0, 0.0,
    None, None, None, NOW, NOW, "ada", "", ("vision",), "a note", None, None, make_spec(), None, None,
)  # fmt: skip


def row(number: int, value: float) -> TrialRow:
    return TrialRow(
        number, number, "complete", (value,), {"x": 0.5}, True, 3, value, 1, None, NOW, NOW, 1.0
    )


def shown(made: RenderableType, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(made)
    return console.export_text()


def test_the_recommended_trial_comes_before_the_lucky_one() -> None:
    text = shown(
        study_text.best(VIEW, [row(4, 0.2), row(9, 0.1)], 80, Recommendation(4, 0.21, 0.02, 9))
    )
    assert text.index("Recommended  loss = 0.21 ± 0.02  trial 4, observed 0.2") < text.index(
        "Best  loss = 0.1  trial 9"
    )
    assert "Trial 9, below, has the best observed value, which is probably a lucky draw" in text
    near = Recommendation(4, 0.21, 0.02, 9, is_apart=False)
    text = shown(study_text.best(VIEW, [row(4, 0.2), row(9, 0.1)], 120, near))
    assert "Trial 9, below, has the best observed value, but the two cannot be told apart" in text


def test_where_both_are_one_trial_it_is_shown_once() -> None:
    text = shown(study_text.best(VIEW, [row(4, 0.2)], 80, Recommendation(4, 0.21, 0.02, 4)))
    assert "Best  loss = 0.2  trial 4, expected 0.21 ± 0.02" in text
    assert "Recommended" not in text


def test_what_continues_a_study_is_what_can_run_its_objective() -> None:
    left = replace(VIEW, state=StudyStatus.INTERRUPTED)
    assert "`tune resume bowl` continues it" in shown(study_text.facts(left))
    in_python = replace(left, spec=make_spec(entrypoint=None, name="bowl"))
    assert "`tunesvc.load_study('bowl').resume(function=your_function)`" in shown(
        study_text.facts(in_python), 120
    )


def test_a_study_without_anything_left_to_try_is_widened_or_confirmed_not_extended() -> None:
    spec = make_spec(parameters={"a": {"type": "int", "min": 1, "max": 2}}, name="bowl")
    commands = [
        command
        for command, _ in summary.next_commands(
            replace(VIEW, spec=spec), ExitCode.DONE, has_best=True
        )
    ]
    assert commands[:2] == ["tune widen bowl NAME=MIN..MAX", "tune confirm bowl"]
    assert "widen the space first" in unavailable_actions(replace(VIEW, spec=spec))["extend"]
    commands = [command for command, _ in summary.next_commands(VIEW, ExitCode.DONE, has_best=True)]
    assert commands[0] == "tune extend bowl --trials 20"
    assert "extend" not in unavailable_actions(VIEW)


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    differing = Mismatch(7, "x " * 80, "y " * 80, "it was " * 30)
    redrawn = ReplayCount(10, 9, {"because " * 20: 3}, differing)
    stopped = tuple(ReplayedStop(i, 3, 5, 0.1 * i, i + 1) for i in range(30))
    judged = PrunerComparison(stopped, 1000, 150, 40, stopped[:2], 3)
    explanation = Explanation(
        "bowl", 3, tuple(Statement("why", "because " * 40) for _ in range(3)), ()
    )
    finalists = compare({1: 0.1, 2: 0.2}, {1: {5: 0.1, 6: 0.2}, 2: {5: 0.3}}, {2: 1}, "minimize")
    for made in (
        replay_text.replayed(StudyReplay(redrawn, redrawn, redrawn)),
        replay_text.pruner("{name: asha, min: 1}", judged),
        study_text.explanation(explanation),
        study_text.confirmation(Confirmation("bowl:confirm", "minimize", "loss", finalists, None)),
    ):
        assert max(map(len, shown(made, width).splitlines())) <= width


def test_a_study_text_moves_no_cursor() -> None:
    explanation = Explanation("bo\x1bwl", None, (Statement("why", "be\x1b[2Jcause"),), ())
    assert "\x1b" not in shown(study_text.explanation(explanation))


def test_the_budget_names_the_early_end() -> None:
    spec = make_spec(budget={"trials": 9, "stop_when": {"improvement_below": 0.5}})
    assert "or less than 0.5 to expect per trial" in study_text.budget(
        replace(VIEW, budget=spec.budget)
    )


def test_attributes_of_a_trial_are_shown_with_it() -> None:
    detail = TrialDetail(
        replace(row(3, 0.5), attrs={"note": "warm", "sizes": [1, 2]}), (), (), {}, {}
    )
    text = shown(study_text.trial(VIEW, detail, ReportCurve(3, ())))
    assert re.search(r"note +warm", text)
    assert re.search(r"sizes +\[1, 2\]", text)
