"""Runs from the command line: a real Postgres, a real Ray, real training code, and a process of its
own for what runs trials. Other commands run in the tests' process: a new one imports for two seconds."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

import tunesvc
from tests.support.command_line import Tune, write_study
from tunesvc.db.engine.database import open_database
from tunesvc.execution.attempt.checkpoints import checkpoint_files
from tunesvc.runtime.run_study import StudySource, create
from tunesvc.spec.yaml.document import load

pytestmark = pytest.mark.usefixtures("joins")


@pytest.mark.slow
def test_a_study_that_was_only_stored_is_run_by_resume(local_tune: Tune) -> None:
    document = load(local_tune.folder / "bowl.yaml")
    with open_database(local_tune.env["TUNE_DATABASE_URL"]) as database:
        create(database, document.spec, StudySource(document.text, str(document.folder)))
    assert "created" in local_tune.here("ls")
    assert "4 complete" in local_tune("resume", "bowl")


@pytest.mark.slow
def test_a_study_is_run_extended_resumed_and_deleted(tune: Tune) -> None:
    assert "4 complete" in tune("run", "bowl.yaml")
    assert "tune extend bowl" in tune("run", "bowl.yaml", code=5)
    tune.here("enqueue", "bowl", "x=0.3", "kind=plain")
    tune("extend", "bowl", "--trials", "2")
    assert "trial 2 has finished" in tune.here("stop", "bowl", "2", code=2)
    assert "enqueue x=0.3, kind=plain" in tune.here("requests", "bowl")
    tune.resume("bowl")
    assert "7 complete" in tune.here("show", "bowl"), "what a person asks for is beside the budget"
    assert json.loads(tune.here("best", "bowl", "--json"))["params"] == {"x": 0.3, "kind": "plain"}

    tune.here("rm", "bowl", "--yes")
    assert "there is no study named 'bowl'" in tune.here("show", "bowl", code=3)


@pytest.mark.slow
def test_a_study_is_explained_replayed_and_its_best_trials_confirmed(tune: Tune) -> None:
    write_study(tune, "noisy", "noisy")
    tune("run", "noisy.yaml", "--quiet")
    output = json.loads(tune.here("explain", "noisy", "2", "--json"))
    assert "Proposed by random" in output["said"][0]["text"]
    assert output["decisions"][0]["details"]["seed"] == 1
    if not tune.is_remote:
        read = tunesvc.load_study("noisy", database_url=tune.env["TUNE_DATABASE_URL"])
        assert str(read.explain(2)).split() == tune.here("explain", "noisy", "2").split(), (
            "print shows what the command shows"
        )
    assert "4 of 4 proposals come out as recorded" in tune.here("replay", "noisy")
    texts = tune.here("explain", "noisy", "2") + tune.here("explain", "noisy")
    assert [line for line in texts.splitlines() if line != line.rstrip()] == [], (
        "a pipe has no width to be filled"
    )
    confirmed = json.loads(tune("confirm", "noisy", "--top", "2", "--repeats", "3", "--json"))
    assert [len(one["values"]) for one in confirmed["finalists"]] == [3, 3]
    assert all(one["low"] < one["mean"] < one["high"] for one in confirmed["finalists"])


@pytest.mark.slow
def test_the_best_checkpoint_of_the_best_trial_is_kept_and_copied(tune: Tune) -> None:
    write_study(tune, "saving", "saving", "keep: {best: 1, last: 1}")
    tune("run", "saving.yaml", "--quiet")
    best = json.loads(tune.here("best", "saving", "--json"))["number"]
    copy = tune.here("checkpoint", "saving", "--to", "out").strip()
    assert (tune.folder / copy).read_text() == f"{best} after 1", "the last one is worse"
    output = json.loads(tune.here("checkpoint", "saving", "0", "--json"))
    assert (output["trial_number"], output["step"]) == (0, 1)
    assert {file.step for file in checkpoint_files(Path(output["path"]).parents[1])} >= {1, 2}
    assert "is there already" in tune.here("checkpoint", "saving", "--to", "out", code=2)
    assert "has no trial 9" in tune.here("checkpoint", "saving", "9", code=3)
    if not tune.is_remote:
        read = tunesvc.load_study("saving", database_url=tune.env["TUNE_DATABASE_URL"])
        assert read.best_checkpoint().read_text() == f"{best} after 1"


def test_failed_trials_show_their_traceback(tune: Tune) -> None:
    write_study(tune, "broken", "broken")
    tune("run", "broken.yaml", "--trials", "1", code=1)
    shown = tune.here("show", "broken", "0")
    assert "RuntimeError: the data is gone" in shown
    (failed,) = json.loads(
        tune.here("trials", "broken", "--state", "fail", "--where", "state == fail", "--json")
    )
    assert failed["state"] == "failed"
    assert "failed" in tune.here("trials", "broken", "--state", "failed")


def test_what_cannot_be_satisfied_ends_at_once_and_names_what_there_is(local_tune: Tune) -> None:
    write_study(local_tune, "greedy", "train", "resources: {gpu: 99}")
    output = local_tune("run", "greedy.yaml", code=6)
    assert "99" in output
    assert "CPU" in output


@pytest.mark.slow
def test_what_a_cluster_lacks_waits_for_a_larger_one_and_says_so(remote_tune: Tune) -> None:
    """Nodes may join the cluster of a server, so the study stays in the queue."""
    write_study(remote_tune, "greedy", "train", "resources: {gpu: 99}")
    following = remote_tune.start("run", "greedy.yaml", "--json")
    assert following.stdout is not None
    notes = (json.loads(line) for line in following.stdout)
    assert any("99" in note["text"] and "CPU" in note["text"] for note in notes)
    following.send_signal(signal.SIGTERM)
    following.communicate(timeout=30)
    assert following.returncode == 130
    assert "99" in json.loads(remote_tune("queue", "--json"))["studies"][0]["reason"]


def test_a_wrong_study_file_is_refused_with_its_line(tune: Tune) -> None:
    write_study(tune, "odd", "train", "pruner: {name: asha, mim: 3}")
    assert re.search(
        r"odd\.yaml:\d+:\d+: pruner: 'asha' has no option 'mim'", tune("run", "odd.yaml", code=2)
    )
    write_study(tune, "wrong", "train", "paralelism: 3")
    assert "did you mean `parallelism`" in tune.here("run", "wrong.yaml", code=2)
    assert "nowhere.yaml" in tune.here("run", "nowhere.yaml", code=2)
