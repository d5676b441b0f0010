"""The command line as people run it: a real Postgres, a real Ray, real training code, and a process
of its own for what runs trials and for one command of each group. Its other commands run in the
tests' process: a new one imports for two seconds."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import chdir
from copy import copy
from datetime import datetime, timedelta
from pathlib import Path
from urllib.error import URLError
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
from typer.testing import CliRunner

import tunesvc
from tests.support.ray_fixtures import address_of_local_ray
from tunesvc.cli import app
from tunesvc.db.engine.database import Database, open_database
from tunesvc.execution.attempt.checkpoints import checkpoint_files
from tunesvc.runtime.run_study import StudySource, create
from tunesvc.spec.yaml.document import load
from tunesvc.web import DashboardServer

HOSTILE = "=cmd|' /C calc'!A0"


class Tune:
    """`tune` in a folder of its own, on this test's database."""

    def __init__(self, folder: Path, url: str, home: Path) -> None:
        self.folder = folder
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TUNE_", "RAY_", "COLUMNS"))
        }
        self.env = {**kept, "TUNE_DATABASE_URL": url, "TUNE_HOME": str(home), "NO_COLOR": "1"}

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command; returns its standard output, or standard error when it must fail."""
        done = subprocess.run(
            self.line(arguments),
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    def here(self, *arguments: str, code: int = 0) -> str:
        """Run a command in this process, where all imports are done; returns what a process
        would have written."""
        without = {name: None for name in os.environ if name not in self.env}
        with chdir(self.folder):
            done = CliRunner().invoke(
                app, arguments, env=without | self.env, catch_exceptions=False
            )
        assert done.exit_code == code, f"exit code {done.exit_code}\n{done.output}"
        return done.stdout if code == 0 else done.stderr

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and do not wait."""
        return subprocess.Popen(
            self.line(arguments),
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @staticmethod
    def line(arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "tunesvc", *arguments]

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text))


OBJECTIVES = """
    import os
    import random
    import time
    from pathlib import Path

    def train(x, kind, *, trial):
        print(f"hello from {x}")
        for step in range(5):
            trial.report(step, loss=(x - 0.3) ** 2 + 1 / (step + 1))
        return (x - 0.3) ** 2

    def slow(x, kind, *, trial):
        for step in range(10):
            time.sleep(0.1)
            trial.report(step, loss=x)
        return x

    def noisy(x, kind, *, trial):
        return (x - 0.3) ** 2 + random.Random(trial.seed).random()

    def owns_its_gpu(x, kind, *, trial):
        gpu = Path(f"gpu-{os.environ['CUDA_VISIBLE_DEVICES']}")
        gpu.touch(exist_ok=False)
        time.sleep(0.5)
        gpu.unlink()
        return x

    def saving(x, kind, *, trial):
        for step, loss in enumerate((0.9, 0.2, 0.5)):
            trial.report(step, loss=loss + x)
            with open(f"model-{trial.number}.txt", "w") as model:
                model.write(f"{trial.number} after {step}")
            trial.checkpoint(model.name)
        return 0.5 + x

    def broken(x, kind, *, trial):
        raise RuntimeError("the data is gone")
    """


def prepared(folder: Path, url: str, home: Path) -> Tune:
    """`tune` beside objectives and the study `bowl`."""
    made = Tune(folder, url, home)
    made.write("bowl.py", OBJECTIVES)
    study(made, "bowl", "train")
    return made


@pytest.fixture
def tune(tmp_path: Path, database_url: str, tune_home: Path) -> Tune:
    """`tune` that starts a Ray of its own where it needs one."""
    return prepared(tmp_path, database_url, tune_home)


@pytest.fixture
def joins(tune: Tune, local_ray: None) -> None:
    """Has `tune` join the session's Ray as it would a cluster, which takes less time."""
    tune.env["RAY_ADDRESS"] = address_of_local_ray()


@pytest.fixture(scope="module")
def ran_once(
    tmp_path_factory: pytest.TempPathFactory, shared_database: Database, tune_home: Path
) -> Tune:
    """`tune` after it ran the study `bowl` to its end."""
    url = shared_database.engine.url.render_as_string(hide_password=False)
    made = prepared(tmp_path_factory.mktemp("ran"), url, tune_home)
    made.write("events.jsonl", made("run", "bowl.yaml", "--json"))
    return made


@pytest.fixture(scope="module", params=["local", pytest.param("server", marks=pytest.mark.slow)])
def ran(
    request: pytest.FixtureRequest, ran_once: Tune, shared_database: Database
) -> Iterator[Tune]:
    """`tune` on the database where the study `bowl` ran, or on a server of it, for tests that
    change nothing but its tags and notes."""
    if request.param == "local":
        yield ran_once
        return
    with DashboardServer(shared_database, port=0) as server:
        remote = copy(ran_once)
        remote.env = {**ran_once.env, "TUNE_SERVER": server.url, "TUNE_TOKEN": server.new_token()}
        del remote.env["TUNE_DATABASE_URL"]
        yield remote


def study(tune: Tune, name: str, function: str, extra: str = "") -> None:
    tune.write(
        f"{name}.yaml",
        f"""
        name: {name}
        entrypoint: bowl:{function}
        metric: {{name: loss, goal: minimize}}
        parameters:
          x: {{type: float, min: 0.0, max: 1.0}}
          kind: {{values: [plain, "{HOSTILE}"]}}
        budget: {{trials: 4}}
        parallelism: 2
        sampler: random
        seed: 1
        {extra}
        """,
    )


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


@pytest.mark.slow
@pytest.mark.usefixtures("joins")
def test_a_study_that_was_only_stored_is_run_by_resume_then_extended_and_deleted(
    tune: Tune,
) -> None:
    document = load(tune.folder / "bowl.yaml")
    with open_database(tune.env["TUNE_DATABASE_URL"]) as database:
        create(database, document.spec, StudySource(document.text, str(document.folder)))
    assert "created" in tune.here("ls")
    assert "4 complete" in tune("resume", "bowl")

    assert "tune extend bowl" in tune("run", "bowl.yaml", code=5)
    tune("extend", "bowl", "--trials", "2")
    tune.here("enqueue", "bowl", "x=0.3", "kind=plain")
    assert "trial 2 has finished" in tune.here("stop", "bowl", "2", code=2)
    assert "enqueue x=0.3, kind=plain" in tune.here("requests", "bowl")
    assert "6 complete" in tune("resume", "bowl")
    assert json.loads(tune.here("best", "bowl", "--json"))["params"] == {"x": 0.3, "kind": "plain"}

    tune.here("rm", "bowl", "--yes")
    assert "there is no study named 'bowl'" in tune.here("show", "bowl", code=3)


def test_tags_and_notes_are_kept_and_found(ran: Tune) -> None:
    assert ran.here("tag", "bowl", "vision", "old", "--remove", "never") == "vision  old\n"
    ran.here("note", "bowl", "a good start", "--trial", "0")
    assert "a good start" in ran.here("show", "bowl", "0")
    assert "bowl" in ran.here("ls", "--tag", "vision")


@pytest.mark.usefixtures("joins")
def test_a_study_is_explained_replayed_and_its_best_trials_confirmed(tune: Tune) -> None:
    study(tune, "noisy", "noisy")
    tune("run", "noisy.yaml", "--quiet")
    output = json.loads(tune.here("explain", "noisy", "2", "--json"))
    assert "Proposed by random" in output["said"][0]["text"]
    assert output["decisions"][0]["details"]["seed"] == 1
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


@pytest.mark.usefixtures("joins")
def test_ctrl_c_keeps_what_is_recorded_and_resume_completes_the_budget_exactly(tune: Tune) -> None:
    """Fault 2, with four trials at a time."""
    study(tune, "slow", "slow", "resources: {cpu: 0.1}\n        pruner: none")
    many = ("--trials", "12", "--parallelism", "4")
    running = tune.start("run", "slow.yaml", *many, "--json")
    assert running.stdout is not None
    for line in running.stdout:
        event = json.loads(line)
        if event["event"] == "progress" and event["complete"] >= 4 and event["running"]:
            break
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=100)
    assert running.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["exit_code"] == 130
    assert "press Ctrl-C again" in err
    assert [row["state"] for row in json.loads(tune.here("ls", "--json"))] == ["interrupted"]
    assert "tune resume slow" in tune.here("show", "slow")
    assert "tune resume slow" in tune("run", "slow.yaml", code=5)
    kept = {
        trial["number"]
        for trial in json.loads(tune.here("trials", "slow", "--json"))
        if trial["state"] == "complete"
    }
    tune("resume", "slow", "--quiet")
    trials = json.loads(tune.here("trials", "slow", "--limit", "100", "--json"))
    assert sorted(trial["number"] for trial in trials) == list(range(12))
    assert {trial["state"] for trial in trials} == {"complete"}
    assert len(kept) >= 4
    assert all(trial["attempts"] == 1 for trial in trials if trial["number"] in kept), (
        "what was done is not done again"
    )


@pytest.mark.slow
def test_ctrl_c_while_ray_starts_says_that_it_is_interrupted_and_how_to_continue(
    tune: Tune,
) -> None:
    running = tune.start("run", "bowl.yaml")
    assert running.stdout is not None
    for line in running.stdout:
        if "waiting for Ray" in line:
            break
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=100)
    assert running.returncode == 130, err
    assert "bowl interrupted before its first trial" in out
    assert "tune resume bowl" in out


@pytest.mark.slow
def test_a_gpu_has_one_owner_and_a_second_command_names_it_while_it_waits(tune: Tune) -> None:
    tune.env["TUNE_LOCAL_GPUS"] = "1"
    for name in ("first", "second"):
        study(tune, name, "owns_its_gpu", "resources: {cpu: 0, gpu: 1}")
    running = {name: tune.start("run", f"{name}.yaml") for name in ("first", "second")}
    ended = {name: process.communicate(timeout=200) for name, process in running.items()}
    assert [process.returncode for process in running.values()] == [0, 0], ended
    said = "".join(part for parts in ended.values() for part in parts)
    owner = re.search(
        r"waiting for this machine's GPUs, in use by study '(\w+)' \(process (\d+)\)", said
    )
    assert owner is not None, said
    assert running[owner[1]].pid == int(owner[2])
    for name in running:
        assert {row["state"] for row in json.loads(tune.here("trials", name, "--json"))} == {
            "complete"
        }


def test_a_dashboard_is_served_beside_a_run_and_ends_with_it_on_ctrl_c(tune: Tune) -> None:
    study(tune, "slow", "slow", "resources: {cpu: 0.1}\n        pruner: none")
    running = tune.start("run", "slow.yaml", "--trials", "500", "--json", "--dashboard")
    assert running.stdout is not None
    address = ""
    for line in running.stdout:
        event = json.loads(line)
        if event["event"] == "note" and event["kind"] == "dashboard":
            address = event["text"]
        if event["event"] == "progress" and event["complete"] >= 2:
            break
    browser = build_opener(HTTPCookieProcessor())
    with browser.open(address, timeout=20) as page:
        assert "slow" in page.read().decode()
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=100)
    assert running.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["exit_code"] == 130
    with pytest.raises(URLError, match="refused"):
        browser.open(address, timeout=20)


@pytest.mark.usefixtures("joins")
def test_the_best_checkpoint_of_the_best_trial_is_kept_and_copied(tune: Tune) -> None:
    study(tune, "saving", "saving", "keep: {best: 1, last: 1}")
    tune("run", "saving.yaml", "--quiet")
    best = json.loads(tune.here("best", "saving", "--json"))["number"]
    copy = tune.here("checkpoint", "saving", "--to", "out").strip()
    assert (tune.folder / copy).read_text() == f"{best} after 1", "the last one is worse"
    output = json.loads(tune.here("checkpoint", "saving", "0", "--json"))
    assert (output["trial_number"], output["step"]) == (0, 1)
    assert {file.step for file in checkpoint_files(Path(output["path"]).parents[1])} >= {1, 2}
    assert "is there already" in tune.here("checkpoint", "saving", "--to", "out", code=2)
    assert "has no trial 9" in tune.here("checkpoint", "saving", "9", code=3)
    read = tunesvc.load_study("saving", database_url=tune.env["TUNE_DATABASE_URL"])
    assert read.best_checkpoint().read_text() == f"{best} after 1"


@pytest.mark.usefixtures("joins")
def test_failed_trials_show_their_traceback(tune: Tune) -> None:
    study(tune, "broken", "broken")
    tune("run", "broken.yaml", "--trials", "1", code=1)
    shown = tune.here("show", "broken", "0")
    assert "RuntimeError: the data is gone" in shown
    (failed,) = json.loads(
        tune.here("trials", "broken", "--state", "fail", "--where", "state == fail", "--json")
    )
    assert failed["state"] == "failed"
    assert "failed" in tune.here("trials", "broken", "--state", "failed")


@pytest.mark.usefixtures("joins")
def test_what_cannot_be_satisfied_ends_at_once_and_names_what_there_is(tune: Tune) -> None:
    study(tune, "greedy", "train", "resources: {gpu: 99}")
    output = tune("run", "greedy.yaml", code=6)
    assert "99" in output
    assert "CPU" in output


def test_a_wrong_study_file_is_named_with_its_line(tune: Tune) -> None:
    study(tune, "wrong", "train", "paralelism: 3")
    output = tune.here("validate", "wrong.yaml", code=2)
    assert "did you mean `parallelism`" in output
    assert re.search(r"wrong\.yaml:\d+", output)
    study(tune, "odd", "train", "pruner: {name: asha, mim: 3}")
    assert re.search(
        r"odd\.yaml:\d+:\d+: pruner: 'asha' has no option 'mim'", tune("run", "odd.yaml", code=2)
    )
    assert "nowhere.yaml" in tune.here("run", "nowhere.yaml", code=2)


def test_the_database_is_looked_after(tune: Tune) -> None:
    assert json.loads(tune.here("db", "status", "--json"))["studies"] == 0
    assert "up to date" in tune.here("db", "upgrade")
    tune("db", "backup", "all.dump")
    tune.here("db", "restore", "all.dump")


def test_a_database_that_is_not_there_is_an_error_in_a_line(tune: Tune) -> None:
    output = tune("ls", "--database-url", "postgresql://nobody:secret@127.0.0.1:1/x", code=7)
    assert "secret" not in output
    assert output.startswith("error: ")


def test_doctor_finds_this_machine_fit(tune: Tune) -> None:
    findings = {finding["name"]: finding for finding in json.loads(tune("doctor", "--json"))}
    assert findings["Postgres"]["verdict"] == "ok"
    assert findings["Ray"]["verdict"] == "ok"


def test_preview_draws_configurations_that_the_space_allows(tune: Tune) -> None:
    shown = json.loads(tune.here("preview", "bowl.yaml", "--json", "--samples", "20"))
    assert len(shown["samples"]) == 20
    assert all(
        0 <= params["x"] <= 1 and params["kind"] in ("plain", HOSTILE)
        for params in shown["samples"]
    )


def test_a_starter_is_written_and_valid(tune: Tune) -> None:
    tune.here("init", "fresh")
    (study_file,) = (tune.folder / "fresh").glob("*.yaml")
    assert "is fine: study starter" in tune.here("validate", str(study_file))


def test_the_schema_is_a_json_schema(tune: Tune) -> None:
    assert "properties" in json.loads(tune.here("schema"))
