"""The checker finds what it is there to find: a history that holds, and one that is broken for
each invariant."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.invariant_checker import Stored, read, violations
from tests.support.specs import make_spec

TRIAL = 1 << 32
"""The id of trial 0 of study 1."""


class Story:
    """A history, written line by line."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self._batches: dict[int, int] = {}

    def add(self, op: str, pid: int = 1, **fields: Any) -> Story:
        self.records.append({"at": float(len(self.records)), "pid": pid, "op": op, **fields})
        return self

    def lease(self, token: int) -> Story:
        return self.add("lease", pid=token, study=1, owner="test", token=token)

    def recover(
        self, token: int, *found: tuple[int, list[tuple[int, str, int]]], trials: int = 1
    ) -> Story:
        return self.add("recover", pid=token, token=token, found=list(found), trials=trials)

    def commit(
        self, token: int, outcome: str = "ok", *, again: bool = False, **content: Any
    ) -> Story:
        """`outcome`: ok, died (no answer), or the class of an error."""
        number = self._batches[token] = self._batches.get(token, 0) + (not again)
        empty = dict.fromkeys(
            ("trials", "opened", "started", "reports", "cursors", "ends", "finished", "decisions"),
            (),
        )
        fields = {
            "token": token,
            "batch": number,
            "adopts": False,
            "study_state": None,
            **empty,
            **content,
        }
        self.add("commit", pid=token, phase="begin", **fields)
        if outcome == "ok":
            self.add("commit", pid=token, phase="ok", **fields)
        elif outcome != "died":
            self.add("commit", pid=token, phase="failed", error=outcome, **fields)
        return self


OPENS = {"trials": [0], "opened": [(0, 1, -1)]}
REPORTS = {"started": [(0, 1, 7)], "reports": [(0, 1, 0)], "cursors": [(0, 1, 2)]}
FINISHES = {
    "cursors": [(0, 1, 3)],
    "ends": [(0, 1, "finished", None)],
    "finished": [(0, "complete")],
}
PAUSES = {"cursors": [(0, 1, 3)], "ends": [(0, 1, "paused", None)]}
GOES_ON = {"opened": [(0, 2, -1)], "decisions": [(0, "promote")]}
LOSES = {"ends": [(0, 1, "lost", "lost")], "decisions": [(0, "retry")]}

DONE = Stored(
    {0: "complete"}, {(0, 1): ("finished", None, 3)}, [(0, 1, 0)], state="finished", lease=(1, 3)
)
RUNNING = Stored({0: "running"}, {(0, 1): ("running", None, 2)}, [(0, 1, 0)])


def whole() -> Story:
    story = (
        Story().lease(1).recover(1, trials=0).commit(1, **OPENS).add("launch", attempt=[TRIAL, 1])
    )
    story.add("run", pid=7, phase="begin", attempt=[TRIAL, 1]).add(
        "said", pid=7, attempt=[TRIAL, 1], step=0
    )
    story.commit(1, **REPORTS).add("acknowledge", cursors=[(TRIAL, 1, 2)])
    story.add("run", pid=7, phase="end", attempt=[TRIAL, 1])
    return story.commit(1, **FINISHES).add("acknowledge", cursors=[(TRIAL, 1, 3)])


def begun() -> Story:
    return Story().lease(1).recover(1, trials=0).commit(1, **OPENS).commit(1, **REPORTS)


def found(story: Story, end: Stored, **changes: Any) -> str:
    return "\n".join(violations(story.records, dataclasses.replace(end, **changes)))


def test_a_history_that_holds_is_without_violation() -> None:
    assert violations(whole().records, DONE) == []


# --- I1
# ---------------------------------------------------------------------------------------------


def test_a_trial_that_ends_twice_is_found() -> None:
    assert "I1: batch 1.4 made trial 0 fail, which was complete" in found(
        whole().commit(1, finished=[(0, "fail")]), DONE
    )


def test_a_terminal_state_that_changed_in_the_database_is_found() -> None:
    assert "I1: trial 0 was committed as complete and is stored as pruned" in found(
        whole(), DONE, trials={0: "pruned"}
    )


def test_a_trial_that_a_recovery_found_otherwise_than_it_was_committed_is_found() -> None:
    story = begun().lease(2).recover(2, (0, [(1, "running", 1)]))
    assert (
        "I1: token 2 found of trial 0: [(1, 'running', 1)], committed: [(1, 'running', 2)]"
        in found(story, RUNNING)
    )


def test_what_a_coordinator_found_after_it_had_lost_its_lease_proves_nothing() -> None:
    story = Story().lease(1).recover(1, trials=0).commit(1, **OPENS).lease(2).lease(3)
    story.recover(3, (0, [(1, "opened", 0)])).commit(3, adopts=True).commit(3, **REPORTS)
    story.recover(2, (0, [(1, "running", 2)])).commit(2, "LeaseLost", adopts=True)
    assert found(story, RUNNING, lease=(3, 2)) == ""


# --- I2
# ---------------------------------------------------------------------------------------------


def test_two_live_attempts_are_found() -> None:
    text = found(begun().commit(1, opened=[(0, 2, -1)]), RUNNING)
    assert "I2: batch 1.3 opened 0.2 while (0, 1) was live" in text


def test_a_gap_in_the_attempts_is_found() -> None:
    story = begun().commit(1, **LOSES).commit(1, opened=[(0, 3, -1)])
    assert "I2: batch 1.4 opened attempt 3 of trial 0 after attempt 1" in found(story, RUNNING)


def test_a_paused_trial_continues_by_promotion_only_and_no_other_is_promoted() -> None:
    end = {"attempts": {(0, 1): ("paused", None, 3), (0, 2): ("opened", None, 0)}}
    assert found(begun().commit(1, **PAUSES).commit(1, **GOES_ON), RUNNING, **end) == ""
    unasked = found(begun().commit(1, **PAUSES).commit(1, opened=[(0, 2, -1)]), RUNNING, **end)
    assert "I2: batch 1.4 opened an attempt of trial 0, promoted: False, paused: True" in unasked
    retried = {"attempts": {(0, 1): ("lost", "lost", 2), (0, 2): ("opened", None, 0)}}
    running = found(begun().commit(1, **LOSES).commit(1, **GOES_ON), RUNNING, **retried)
    assert "I2: batch 1.4 opened an attempt of trial 0, promoted: True, paused: False" in running
    by_half = found(begun().commit(1, **PAUSES).commit(1, decisions=[(0, "promote")]), RUNNING)
    assert "I6: batch 1.4 promoted trial 0, and opened no attempt of it" in by_half


def test_an_attempt_that_runs_twice_is_found() -> None:
    story = begun()
    for pid in (7, 8):
        story.add("run", pid=pid, phase="begin", attempt=[TRIAL, 1])
    assert "I2: (0, 1) was begun twice" in found(story, RUNNING)


def test_attempts_that_run_side_by_side_are_found_unless_the_earlier_one_was_given_up() -> None:
    story = (
        begun()
        .add("run", pid=7, phase="begin", attempt=[TRIAL, 1])
        .commit(1, **LOSES, opened=[(0, 2, -1)])
    )
    story.add("run", pid=8, phase="begin", attempt=[TRIAL, 2])
    end = {"attempts": {(0, 1): ("lost", "lost", 2), (0, 2): ("opened", None, 0)}}
    assert found(story, RUNNING, **end) == "", "a zombie is allowed"
    early = begun().add("run", pid=7, phase="begin", attempt=[TRIAL, 1])
    early.add("run", pid=8, phase="begin", attempt=[TRIAL, 2]).commit(
        1, **LOSES, opened=[(0, 2, -1)]
    )
    assert "I2: (0, 2) ran while (0, 1) did, which was not over" in found(early, RUNNING, **end)


# --- I3
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [[], [(0, 1, 0), (0, 1, 0)]])
def test_a_committed_report_that_is_not_there_once_is_found(
    stored: list[tuple[int, int, int]],
) -> None:
    text = found(whole(), DONE, reports=stored)
    assert f"I3: report (0, 1, 0) of batch 1.2 is stored {len(stored)} times" in text


def test_a_report_that_was_not_committed_is_found() -> None:
    text = found(whole(), DONE, reports=[(0, 1, 0), (0, 1, 9)])
    assert "I3: report (0, 1, 9) is stored, and no batch brought it" in text


def test_an_acknowledgement_without_a_committed_batch_is_found() -> None:
    story = (
        begun()
        .commit(1, "DatabaseUnavailable", cursors=[(0, 1, 5)])
        .add("acknowledge", cursors=[(TRIAL, 1, 5)])
    )
    assert "I3: (0, 1) was acknowledged up to 5, and recorded up to 2" in found(
        story, RUNNING, lease=(1, 2)
    )


def test_cursors_that_go_back_are_found() -> None:
    story = whole().add("acknowledge", cursors=[(TRIAL, 1, 1)])
    assert "I3: the acknowledged cursor of (0, 1) went back from 3 to 1" in found(story, DONE)
    assert "moved the cursor of 0.1 from 2 to 2" in found(
        begun().commit(1, cursors=[(0, 1, 2)]), RUNNING
    )


def test_a_step_reported_and_not_stored_is_found_unless_it_was_thinned() -> None:
    story = whole()
    story.records.insert(5, {"at": 4.5, "pid": 7, "op": "said", "attempt": [TRIAL, 1], "step": 1})
    assert "I3: (0, 1) said step 1 and finished, and the step is not stored" in found(story, DONE)
    assert found(story, DONE, thinned=frozenset({(0, 1)})) == ""
    paused = found(story, DONE, attempts={(0, 1): ("paused", None, 3)})
    assert "I3: (0, 1) said step 1 and paused, and the step is not stored" in paused


# --- I4
# ---------------------------------------------------------------------------------------------


def test_a_trial_beyond_the_budget_is_found_but_not_one_that_waits() -> None:
    none = make_spec(budget={"trials": 1})
    story = whole().commit(1, trials=[1])
    text = found(story, DONE, spec=none, trials={0: "complete", 1: "pruned"})
    assert "I4: 2 trials, and a budget of 1" in text
    assert found(story, DONE, spec=none, trials={0: "complete", 1: "waiting"}) == ""


def test_one_retry_too_many_is_found() -> None:
    attempts = {(0, 1): ("lost", "lost", 2), (0, 2): ("lost", "lost", 0)}
    text = found(begun(), RUNNING, attempts=attempts, spec=make_spec(retries={"lost": 0}))
    assert "I4: trial 0 ended 2 times as lost, and may be retried 0 times" in text


# --- I5
# ---------------------------------------------------------------------------------------------


def test_a_commit_under_a_token_that_was_lost_is_found() -> None:
    story = (
        begun()
        .lease(2)
        .recover(2, (0, [(1, "running", 2)]))
        .commit(2, adopts=True)
        .commit(1, **FINISHES)
    )
    assert "I5: batch 1.3 was committed after token 2 was given out" in found(story, DONE)


def test_a_batch_that_is_missing_between_two_is_found() -> None:
    story = begun().commit(1, "LeaseLost").commit(1, cursors=[(0, 1, 3)])
    assert "I5: batch 1.4 followed 1.2" in found(story, RUNNING)


def test_a_write_for_an_attempt_that_was_not_adopted_is_found() -> None:
    story = begun().lease(2).recover(2, (0, [(1, "running", 2)])).commit(2, **FINISHES)
    assert "I5: batch 2.1 ended (0, 1), which belongs to token 1" in found(story, DONE)


def test_a_write_for_an_attempt_that_is_over_is_found() -> None:
    assert "I5: batch 1.4 reported for (0, 1), which was finished" in found(
        whole().commit(1, **REPORTS), DONE
    )


def test_a_launch_of_what_was_not_committed_is_found() -> None:
    story = (
        begun()
        .commit(1, "LeaseLost", trials=[1], opened=[(1, 1, -1)])
        .add("launch", attempt=[TRIAL + 1, 1])
    )
    assert "I5: (1, 1) was launched, and never opened" in found(story, RUNNING)


# --- I6
# ---------------------------------------------------------------------------------------------


def test_a_failure_without_a_decision_is_found() -> None:
    story = begun().commit(1, ends=[(0, 1, "failed", "error")])
    text = found(story, RUNNING, attempts={(0, 1): ("failed", "error", 2)})
    assert "I6: batch 1.3 ended 0.1 as failed, and neither retried nor ended its trial" in text


def test_a_retry_that_never_came_is_found_when_the_study_is_finished() -> None:
    story = begun().commit(1, **LOSES)
    end = {"attempts": {(0, 1): ("lost", "lost", 2)}}
    assert found(story, RUNNING, **end) == ""
    assert "I6: trial 0 was to be retried by batch 1.3, and never was" in found(
        story, RUNNING, **end, state="finished"
    )


# --- answers that were lost
# -------------------------------------------------------------------------


@pytest.mark.parametrize("written", [True, False])
def test_a_batch_without_an_answer_is_taken_for_what_the_next_coordinator_found(
    written: bool,
) -> None:
    state, reports = ([(1, "running", 2)], [(0, 1, 0)]) if written else ([(1, "opened", 0)], [])
    story = Story().lease(1).recover(1, trials=0).commit(1, **OPENS).commit(1, "died", **REPORTS)
    story.lease(2).recover(2, (0, state))
    end = {"reports": reports, "attempts": {(0, 1): (state[0][1], None, state[0][2])}}
    assert found(story, RUNNING, **end, lease=(2, 0)) == ""


def test_a_try_that_was_refused_says_nothing_about_the_one_before() -> None:
    story = (
        Story()
        .lease(1)
        .recover(1, trials=0)
        .commit(1, **OPENS)
        .commit(1, "DatabaseUnavailable", **REPORTS)
    )
    story.lease(2).recover(2, (0, [(1, "running", 2)])).commit(
        1, "LeaseLost", again=True, **REPORTS
    )
    assert found(story, RUNNING, lease=(2, 0)) == ""


def test_a_batch_that_was_written_by_half_is_found() -> None:
    story = (
        begun()
        .commit(1, "died", cursors=[(0, 1, 3)], **LOSES)
        .lease(2)
        .recover(2, (0, [(1, "lost", 2)]))
    )
    text = found(story, RUNNING)
    assert "I6: batch 1.3 was written by half: 0.1 heard up to 3: missing, 0.1 ended: there" in text


def test_a_line_that_was_not_written_to_its_end_is_no_line(tmp_path: Path) -> None:
    whole_line = json.dumps({"at": 1.0, "pid": 1, "op": "lease", "token": 1})
    (tmp_path / "host-1.jsonl").write_text(whole_line + "\n" + whole_line[:20])
    assert [record["token"] for record in read(tmp_path)] == [1]
