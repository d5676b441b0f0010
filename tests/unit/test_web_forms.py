"""Input of the forms of actions, and the actions available in each state."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.specs import make_spec
from tunesvc.errors import SpecError
from tunesvc.queries.rows import Counts, Objective, StudyStatus, StudyView, TrialRow
from tunesvc.web.available_actions import unavailable_actions
from tunesvc.web.forms import Fields, FormQuestion, request_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = make_spec(
    parameters={
        "lr": {"type": "float", "min": 0.001, "max": 1.0, "log": True},
        "n": {"type": "int", "min": 1, "max": 8},
        "c": {"type": "categorical", "values": ["a", 1, None]},
    }
)
STUDY = StudyView(
    1, "bowl", StudyStatus.RUNNING, "", (Objective("loss", "minimize"),), Counts(running=1), None, None, 0.0, 1.0, 0.0, None, None,
    "box:1", NOW, None, "ada", "", (), "", None, None, SPEC, None, None,
)  # fmt: skip


def asked(ask: FormQuestion, **fields: Any) -> tuple[str, Any]:
    return request_of(ask, Fields(**fields), STUDY)


def test_forms_are_read_as_what_the_study_is_asked() -> None:
    assert asked(FormQuestion.PAUSE) == ("pause", {})
    assert asked(FormQuestion.EXTEND, trials="20", wall="1h30m") == (
        "extend",
        {"trials": 20, "wall": 5400.0},
    )
    assert asked(FormQuestion.PARALLELISM, trials=" ") == ("parallelism", {"trials": None})
    assert asked(FormQuestion.PARALLELISM, trials="3") == ("parallelism", {"trials": 3})
    assert asked(FormQuestion.NEAR, trial=7) == ("enqueue", {"near": 7})
    assert asked(FormQuestion.RETRY, trial=7) == ("retry", {"number": 7})
    assert asked(FormQuestion.STOP_TRIAL, trial=7) == ("stop_trial", {"number": 7})


def test_values_of_an_enqueued_trial_have_their_types_and_empty_ones_are_left_out() -> None:
    names = ["lr", "n", "c"]
    assert asked(FormQuestion.ENQUEUE, name=names, value=["1e-2", "3", '"a"']) == (
        "enqueue",
        {"params": {"lr": 0.01, "n": 3, "c": "a"}, "origin": "by hand"},
    )
    assert asked(FormQuestion.ENQUEUE, name=names, value=["", " ", "null"], trial=2)[1] == {
        "params": {"c": None},
        "origin": "by hand, from trial 2",
    }


def test_only_what_differs_is_widened() -> None:
    sent = {
        "name": ["lr", "n"],
        "low": ["0.001", "1"],
        "high": ["1.0", "16"],
        "chooser": ["c"],
        "choices": ["b, 2"],
    }
    assert asked(FormQuestion.WIDEN, **sent)[1] == {
        "parameters": {"n": {"max": 16}, "c": {"values": ["b", 2]}}
    }
    lists = {"chooser": ["c"], "choices": ['[1, 2], "x, y", [3]']}
    assert asked(FormQuestion.WIDEN, **lists)[1] == {
        "parameters": {"c": {"values": [[1, 2], "x, y", [3]]}}
    }
    with pytest.raises(SpecError, match="nothing is changed"):
        asked(FormQuestion.WIDEN, **{**sent, "high": ["1", "8"], "choices": [""]})


@pytest.mark.parametrize(
    ("ask", "fields", "why"),
    [
        (FormQuestion.EXTEND, {}, "by how much"),
        (FormQuestion.EXTEND, {"trials": "many"}, "trials: 'many' is not a whole number"),
        (FormQuestion.EXTEND, {"wall": "soon"}, "wall time"),
        (FormQuestion.EXTEND, {"gpu_hours": "x"}, "GPU hours"),
        (FormQuestion.PARALLELISM, {"trials": "1.5"}, "not a whole number"),
        (FormQuestion.ENQUEUE, {"name": ["lr"], "value": ["fast"]}, "lr: 'fast' is not a number"),
        (FormQuestion.ENQUEUE, {"name": ["n"], "value": ["2.5"]}, "n: '2.5' is not a whole number"),
        (FormQuestion.RETRY, {}, "say which"),
    ],
)
def test_what_cannot_be_read_is_named(ask: FormQuestion, fields: dict[str, Any], why: str) -> None:
    with pytest.raises(SpecError, match=why):
        asked(ask, **fields)


def test_a_study_can_be_asked_for_what_makes_sense_as_it_stands() -> None:
    assert unavailable_actions(STUDY) == {
        "resume": "it runs",
        "delete": "box:1 runs it: stop it first",
    }
    pausing = replace(STUDY, closing="pause")
    assert {"pause", "delete"} == set(unavailable_actions(pausing))
    left = replace(STUDY, coordinator=None)
    assert unavailable_actions(left) == {}
    finished = replace(left, state=StudyStatus.FINISHED)
    assert set(unavailable_actions(finished)) == {"pause", "stop", "resume"}
    assert "extend it first" in unavailable_actions(finished)["resume"]
    stopped = replace(left, state=StudyStatus.STOPPED)
    assert set(unavailable_actions(stopped)) == {"pause", "stop"}
    optunas = replace(left, spec=None)
    assert "delete" not in unavailable_actions(optunas)
    assert "extend" in unavailable_actions(optunas)


def test_a_trial_can_be_asked_for_what_makes_sense_as_it_stands() -> None:
    ended = TrialRow(1, 1, "pruned", None, {"lr": 0.1}, True, 3, 0.5, 1, None, NOW, NOW, 1.0)
    assert set(unavailable_actions(STUDY, ended)) == {"stop_trial"}
    assert set(unavailable_actions(STUDY, replace(ended, state="running"))) == {"retry"}
    optunas = replace(STUDY, spec=None)
    assert "stop_trial" not in unavailable_actions(optunas, replace(ended, state="running"))
    assert "stop_trial" in unavailable_actions(optunas, ended)
    assert set(unavailable_actions(STUDY, replace(ended, state="waiting", params={}))) == {
        "retry",
        "near",
        "enqueue",
    }
