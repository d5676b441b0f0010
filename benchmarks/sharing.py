"""Sharing of one cluster by two projects: shares, limits, and the time until an urgent study runs.

    python -m benchmarks.sharing [--seconds 120] [--gpus 8] [--interval 2]

A Ray cluster with logical GPUs, a `tune serve`, and five studies of three users in two projects
with weights 1 and 3; one user may use 3 GPUs at most. Each trial holds a GPU, trains in steps of
half a second, for three intervals, and saves a checkpoint at the end of each. After the given time
an urgent study of four trials comes. All numbers are read from the stored attempts:

    share     GPU time of each project, from the first result of every study to the urgent study,
              beside its weight
    limit     the most GPUs at a time of the limited user
    urgent    times from its submission until the first and the last trial makes room, until four
              GPUs are free for it, and until its first trial and all four run: between the two its
              workers start
    lost      trials of all studies that did not complete, and attempts that failed
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

STEP_S = 0.5
INTERVALS = 3
URGENT = 4
WEIGHTS = {"text": 1.0, "vision": 3.0}
LIMITED_USER, LIMIT = "eve", 3
PATIENCE_S = 600.0

OBJECTIVE = """
import time
from pathlib import Path


def train(x, *, trial):
    first = 0
    if (state := trial.restored()) is not None:
        first = int(Path(state).read_text()) + 1
    for step in range(first, {intervals} * {every}):
        time.sleep({step_s})
        trial.report(step, loss=x + 1 / (1 + step))
        if (step + 1) % {every} == 0:
            Path("state").write_text(str(step))
            trial.checkpoint("state")
    return x
"""

STUDY = """
name: {name}
entrypoint: objective:train
metric: {{name: loss, goal: minimize}}
parameters:
  x: {{type: float, min: 0.0, max: 1.0}}
sampler: random
pruner: none
budget: {{trials: {trials}}}
resources: {{cpu: 0, gpu: 1}}
"""

CLUSTER = """
import signal, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 4, "num_gpus": {gpus}}})
print(cluster.address, flush=True)
signal.sigwait([signal.SIGTERM])
cluster.shutdown()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between checkpoints")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)  # run by root, Postgres runs as another user
        print(json.dumps(_measure(Path(folder), stack, options), indent=2))


def _measure(folder: Path, stack: ExitStack, options: argparse.Namespace) -> dict[str, Any]:
    gpus, seconds = options.gpus, options.seconds
    every = max(1, round(options.interval / STEP_S))
    objective = OBJECTIVE.format(intervals=INTERVALS, every=every, step_s=STEP_S)
    (folder / "objective.py").write_text(objective)
    os.environ["TUNE_HOME"] = str(folder / "home")
    address = stack.enter_context(_cluster(gpus))
    from tunesvc.db.engine.database import open_database

    database = stack.enter_context(open_database(None))
    _make_projects(database)
    stack.enter_context(_server(address))
    trials = max(6, int(1.5 * gpus * seconds / (INTERVALS * options.interval) / 3))
    for name, user, project in (
        ("a", "ann", "vision"),
        ("b", "ann", "vision"),
        ("c", "eve", "vision"),
        ("d", "bob", "text"),
        ("e", "bob", "text"),
    ):
        _submit(database, folder, name, user, project, trials, "normal")
    _await_results(database, 5)
    since = _now(database)
    time.sleep(seconds)
    asked_at = _now(database)
    _submit(database, folder, "now", "bob", "text", URGENT, "urgent")
    _await_end(database)
    return {
        "share": _shares(database, since, asked_at),
        "weights": WEIGHTS,
        "limit": {"allowed": LIMIT, "most": _most_at_a_time(database, LIMITED_USER)},
        "checkpoint_interval_s": options.interval,
        "urgent_s": _urgent_s(database, asked_at, gpus),
        "lost": _lost(database),
        "preempted": _scalar(
            database,
            "SELECT count(*) FROM attempts WHERE stop_cause = 'preempt' AND started_at IS NOT NULL",
        ),
        "superseded_reports": _scalar(database, "SELECT count(*) FROM reports WHERE superseded"),
    }


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _first_line(process: subprocess.Popen[str]) -> str:
    line = "" if process.stdout is None else process.stdout.readline().strip()
    if not line:
        raise SystemExit("a process does not start")
    return line


@contextmanager
def _cluster(gpus: int) -> Iterator[str]:
    with _process(sys.executable, "-c", CLUSTER.format(gpus=gpus)) as process:
        yield _first_line(process)


@contextmanager
def _server(address: str) -> Iterator[None]:
    command = ("-m", "tunesvc", "serve", "--cluster", address, "--port", "0", "--json")
    with _process(sys.executable, *command) as process:
        print("server:", _first_line(process), file=sys.stderr)
        yield


def _make_projects(database: Any) -> None:
    from tunesvc.db.people import accounts

    with database.engine.begin() as connection:
        for name, weight in WEIGHTS.items():
            accounts.add_project(connection, name, weight)
        for name in ("ann", "bob", "eve"):
            accounts.add_user(connection, name)
        connection.execute(
            sa.text("UPDATE users SET limits = CAST(:limits AS jsonb) WHERE name = :name"),
            {"limits": json.dumps({"gpus": LIMIT}), "name": LIMITED_USER},
        )


def _submit(
    database: Any, folder: Path, name: str, user: str, project: str, trials: int, priority: str
) -> None:
    from tunesvc.db import submissions
    from tunesvc.db.schema.states import Priority
    from tunesvc.runtime.run_study import StudySource, create
    from tunesvc.spec.yaml.document import load

    path = folder / f"{name}.yaml"
    path.write_text(STUDY.format(name=name, trials=trials))
    document = load(path)
    source = StudySource(document.text, str(folder))
    record = create(database, document.spec, source, owner=user)
    with database.engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE studies SET project_id = (SELECT project_id FROM projects WHERE name = :p) "
                "WHERE study_id = :study"
            ),
            {"p": project, "study": record.study_id},
        )
        submissions.submit(
            connection, record.study_id, submitted_by=user, priority=Priority(priority)
        )


def _rows(database: Any, statement: str, **values: object) -> list[Any]:
    with database.engine.connect() as connection:
        return list(connection.execute(sa.text(statement), values))


def _scalar(database: Any, statement: str, **values: object) -> Any:
    return _rows(database, statement, **values)[0][0]


def _now(database: Any) -> datetime:
    now: datetime = _scalar(database, "SELECT now()")
    return now


def _await_results(database: Any, studies: int) -> None:
    """Wait until every study has a result."""
    with_result = "SELECT count(DISTINCT study_id) FROM trials WHERE state = 'complete'"
    give_up_s = time.monotonic() + PATIENCE_S
    while _scalar(database, with_result) < studies:
        if time.monotonic() > give_up_s:
            raise SystemExit(f"some studies have no result after {PATIENCE_S:g} s")
        time.sleep(0.5)


def _await_end(database: Any) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    open_studies = "SELECT count(*) FROM studies WHERE state IN ('created', 'running')"
    while _scalar(database, open_studies):
        if time.monotonic() > give_up_s:
            raise SystemExit(f"still running after {PATIENCE_S:g} s")
        time.sleep(1)


SHARES = """
SELECT projects.name,
       sum(extract(epoch FROM least(coalesce(a.ended_at, now()), :until)
                              - greatest(a.started_at, :since)) * a.gpus)
FROM attempts a
JOIN trials USING (trial_id) JOIN studies USING (study_id) JOIN projects USING (project_id)
WHERE a.started_at < :until AND coalesce(a.ended_at, now()) > :since
GROUP BY projects.name
"""


def _shares(database: Any, since: datetime, until: datetime) -> dict[str, float]:
    used = {name: float(gpu_s) for name, gpu_s in _rows(database, SHARES, since=since, until=until)}
    total = sum(used.values())
    return {name: round(gpu_s / total, 3) for name, gpu_s in sorted(used.items())}


CHANGES = """
SELECT at, change FROM (
    SELECT a.started_at AS at, 1 AS change, a.trial_id FROM attempts a WHERE a.gpus > 0
    UNION ALL
    SELECT a.ended_at, -1, a.trial_id FROM attempts a WHERE a.gpus > 0 AND a.started_at IS NOT NULL
) AS changes
JOIN trials USING (trial_id) JOIN submissions USING (study_id)
WHERE submitted_by = :name AND at IS NOT NULL
ORDER BY at, change
"""


OF_STUDIES = CHANGES.replace(
    "JOIN submissions USING (study_id)\nWHERE submitted_by = :name",
    "JOIN studies USING (study_id)\nWHERE (studies.name = 'now') = :urgent",
)
MADE_ROOM = "SELECT min(decided_at), max(decided_at) FROM decisions WHERE reason LIKE '%is urgent'"


def _most_at_a_time(database: Any, user: str) -> int:
    running = most = 0
    for _, change in _rows(database, CHANGES, name=user):
        running += change
        most = max(most, running)
    return most


def _urgent_s(database: Any, asked_at: datetime, gpus: int) -> dict[str, float | None]:
    """Return the times from the urgent study's submission until it is served; None: never."""
    ((first, last),) = _rows(database, MADE_ROOM)
    running, others = 0, {}
    moments: dict[str, datetime | None] = {
        "first_pause": first,
        "last_pause": last,
        "gpus_free": None,
        "first_trial_runs": None,
        "all_trials_run": None,
    }
    for at, change in _rows(database, OF_STUDIES, urgent=False):
        running += change
        others[at] = running
    before = [count for at, count in others.items() if at <= asked_at]
    after = [(asked_at, before[-1]), *((at, n) for at, n in others.items() if at > asked_at)]
    moments["gpus_free"] = next((at for at, n in after if gpus - n >= URGENT), None)
    running = 0
    for at, change in _rows(database, OF_STUDIES, urgent=True):
        running += change
        for name, count in (("first_trial_runs", 1), ("all_trials_run", URGENT)):
            if running == count and moments[name] is None:
                moments[name] = at
    return {
        name: None if at is None else round((at - asked_at).total_seconds(), 2)
        for name, at in moments.items()
    }


def _lost(database: Any) -> dict[str, int]:
    return {
        "trials": _scalar(database, "SELECT count(*) FROM trials WHERE state <> 'complete'"),
        "attempts": _scalar(database, "SELECT count(*) FROM attempts WHERE failure IS NOT NULL"),
    }


if __name__ == "__main__":
    main()
