"""A finished study, looked at from the command line: a real Postgres and a real Ray ran it."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import datetime, timedelta

from tests.support.command_line import HOSTILE, Tune


def test_a_run_tells_what_happens_line_by_line(ran: Tune) -> None:
    events = [json.loads(line) for line in (ran.folder / "events.jsonl").read_text().splitlines()]
    assert {event["event"] for event in events} == {"note", "progress", "end"}
    assert events[-1]["event"] == "end"
    assert events[-1]["counts"]["complete"] == 4
    assert events[-1]["exit_code"] == 0


def test_a_study_is_looked_at(ran: Tune) -> None:
    assert "bowl" in ran("ls")
    (row,) = json.loads(ran.here("ls", "--json"))
    assert row["state"] == "finished"
    assert row["fraction"] == 1.0
    assert "Newest trials" in ran("show", "bowl")
    assert "Curve, 5 steps" in ran.here("show", "bowl", "0")
    assert re.match(r"hello from 0\.\d+", ran.here("logs", "bowl", "0"))


def test_its_trials_are_found_and_the_best_named(ran: Tune) -> None:
    best = json.loads(ran.here("best", "bowl", "--json"))
    assert best["values"][0] == min(
        trial["values"][0] for trial in json.loads(ran.here("trials", "bowl", "--json"))
    )
    assert f"x: {best['params']['x']}" in ran.here("best", "bowl", "--yaml")
    found = json.loads(
        ran.here(
            "trials",
            "bowl",
            "--where",
            "loss <= 1e9 and number in [1, 3]",
            "--sort",
            "-x",
            "--json",
        )
    )
    assert {trial["number"] for trial in found} == {1, 3}
    assert found[0]["params"]["x"] >= found[1]["params"]["x"]
    assert "did you mean 'loss'?" in ran.here("trials", "bowl", "-w", "los < 1", code=2)


def test_it_is_exported_and_reported(ran: Tune) -> None:
    lines = list(csv.DictReader(io.StringIO(ran.here("export", "bowl", "--where", "number < 1"))))
    assert [line["number"] for line in lines] == ["0"]
    lines = list(csv.DictReader(io.StringIO(ran.here("export", "bowl"))))
    assert [line["number"] for line in lines] == ["0", "1", "2", "3"]
    assert {line["params.kind"] for line in lines} <= {"plain", "'" + HOSTILE}
    assert ran.here("trials", "bowl", "--csv") == ran("export", "bowl"), "one writer"
    assert (
        ran.here("trials", "bowl", "--csv", "-n", "2", "--sort", "-number")
        .splitlines()[-1]
        .startswith("2,complete,")
    )
    assert 0 <= float(lines[0]["duration_s"]) < 60
    assert datetime.fromisoformat(lines[0]["started_at"]).utcoffset() == timedelta(0)
    assert [float(line["value"]) for line in lines] == [
        trial["values"][0] for trial in json.loads(ran.here("trials", "bowl", "--json"))
    ]
    assert len(json.loads(ran.here("export", "bowl", "--format", "json"))) == 4
    ran.here("report", "bowl", "--out", "page.html")
    assert "Learning curves of loss" in (ran.folder / "page.html").read_text(encoding="utf-8")


def test_the_ending_of_a_file_says_what_is_written_into_it(ran: Tune) -> None:
    for name in ("bowl.csv", "bowl.JSON", "bowl.parquet"):
        ran.here("export", "bowl", "--out", name)
    assert (ran.folder / "bowl.csv").read_text().startswith("number,state,value,")
    assert len(json.loads((ran.folder / "bowl.JSON").read_text())) == 4
    assert (ran.folder / "bowl.parquet").read_bytes().startswith(b"PAR1")
    assert ".parquet" in ran.here("export", "bowl", "--out", "bowl.xlsx", code=2)
    assert "--format is csv" in ran.here(
        "export", "bowl", "-o", "x.json", "--format", "csv", code=2
    )
    assert ".html" in ran.here("report", "bowl", "--out", "bowl.pdf", code=2)
    assert not (ran.folder / "bowl.xlsx").exists()


def test_tags_and_notes_are_kept_and_found(ran: Tune) -> None:
    assert ran.here("tag", "bowl", "vision", "old", "--remove", "never") == "vision  old\n"
    ran.here("note", "bowl", "a good start", "--trial", "0")
    assert "a good start" in ran.here("show", "bowl", "0")
    assert "bowl" in ran.here("ls", "--tag", "vision")


def test_a_trial_is_promoted_shown_exported_and_rolled_back(ran: Tune) -> None:
    first = ran.here("champion", "promote", "bowl", "1", "--reason", "it was first")
    assert "is trial 1 of bowl" in first
    ran.here("champion", "promote", "bowl", "2")
    assert "bowl" in ran.here("champion", "ls")
    shown = ran.here("champion", "show", "bowl")
    assert "as observed in one trial" in shown
    assert "it was first" in shown
    exported = json.loads(ran.here("champion", "export", "bowl", "--json"))
    assert (exported["family"], exported["trial"]) == ("bowl", 2)
    number = json.loads(ran.here("champion", "show", "bowl", "--json"))["champions"][1]
    assert "trial: 1" in ran.here(
        "champion", "export", "bowl", "--number", str(number["champion_id"])
    )
    rolled_back = ran.here("champion", "rollback", "bowl", "--reason", "complaints")
    assert "is trial 1 of bowl" in rolled_back
    assert "has no champion 99" in ran.here("champion", "export", "bowl", "--number", "99", code=3)
    assert "'bowk' has no champion, did you mean `bowl`" in ran.here(
        "champion", "rollback", "bowk", code=3
    )
