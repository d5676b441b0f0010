"""Time until studies of a killed server are run by another one.

    python -m benchmarks.servers [--rounds 5] [--studies 5]

Two servers run the studies on one Ray cluster. One of them gets SIGKILL; the results are the times,
by the database's clock, until another server holds the lease of each of its studies, and until that
study opens its next attempt. Trials that ran at the kill must finish in that attempt. Then a
new server replaces the killed one.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import time

from benchmarks.stage import Stage
from benchmarks.takeover import until
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.runtime.submission import submit_study
from tunesvc.spec.yaml.document import load

SLOTS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--studies", type=int, default=5)
    arguments = parser.parse_args()
    with Stage(nodes=1, slots_per_node=SLOTS) as stage:
        servers = [serve(stage) for _ in range(2)]
        submit(stage, arguments.studies)
        taken_s: list[float] = []
        opened_s: list[float] = []
        for _ in range(arguments.rounds):
            for leased, opened in one_round(stage, servers):
                taken_s.append(leased)
                opened_s.append(opened)
            servers.append(serve(stage))
    for name, times in (("its lease", taken_s), ("its next attempt", opened_s)):
        span = f"from {min(times):.1f} to {max(times):.1f} s"
        print(
            f"until {name}: median {statistics.median(times):.1f} s, {span}, {len(times)} studies"
        )


def serve(stage: Stage) -> subprocess.Popen[bytes]:
    """Start a server, and wait until it serves."""
    server = stage.coordinate("serve", "--cluster", stage.cluster.address, "--port", "0", "--json")
    log = stage.folder / sorted(stage.logs(), key=lambda name: int(name.split("-")[1][:-4]))[-1]
    until(lambda: '"serving"' in log.read_text())
    return server


def submit(stage: Stage, studies: int) -> None:
    document = load(stage.write_study(trials=10_000, steps=10, step_s=0.4))
    for number in range(studies):
        changes = {"name": f"study-{number}", "parallelism": SLOTS // studies}
        new = NewSubmission(document.spec.model_copy(update=changes), folder=str(stage.project))
        submit_study(stage.database, new, submitted_by="ada")
    until(lambda: len(stage.sql(ATTENDED)) == studies and len(stage.running()) >= studies)


ATTENDED = "SELECT study_id FROM leases WHERE expires_at > now()"


def one_round(stage: Stage, servers: list[subprocess.Popen[bytes]]) -> list[tuple[float, float]]:
    """Kill the server that runs more studies; return the two times of each of them."""
    owners = stage.sql("SELECT study_id, owner FROM leases WHERE expires_at > now()")
    mine: dict[int, list[int]] = {}
    for study, owner in owners:
        mine.setdefault(int(owner.rpartition(":")[2]), []).append(study)
    victim = max(mine, key=lambda pid: len(mine[pid]))
    time.sleep(random.uniform(0.0, 3.0))
    running = [row for row in stage.running() if row[0] >> 32 in mine[victim]]
    killed_at = stage.sql("SELECT now()")[0][0]
    os.kill(victim, signal.SIGKILL)
    servers[:] = [server for server in servers if server.pid != victim]
    leases = leased_after(stage, mine[victim], victim, killed_at)
    times = [(lease, opened_after(stage, study, killed_at)) for study, lease in leases.items()]
    until(lambda: not set(running) & set(stage.running()))
    check(stage, running)
    print(", ".join(f"{lease:.1f}/{opened:.1f} s" for lease, opened in times), flush=True)
    return times


def leased_after(
    stage: Stage, studies: list[int], victim: int, killed_at: object
) -> dict[int, float]:
    """Return the seconds until another server holds the lease of each study."""
    found: dict[int, float] = {}

    def look() -> bool:
        rows = stage.sql(
            f"SELECT study_id, extract(epoch FROM now() - '{killed_at}') FROM leases "
            rf"WHERE expires_at > now() AND right(owner, {len(str(victim)) + 1}) <> '\:{victim}'"
        )
        for study, seconds in rows:
            if study in studies:
                found.setdefault(study, float(seconds))
        return len(found) == len(studies)

    until(look)
    return found


def opened_after(stage: Stage, study: int, killed_at: object) -> float:
    """Return the seconds until a study opens its next attempt."""
    first = f"""SELECT extract(epoch FROM min(opened_at) - '{killed_at}') FROM attempts
                WHERE opened_at > '{killed_at}' AND trial_id >> 32 = {study}"""
    until(lambda: stage.sql(first)[0][0] is not None)
    return float(stage.sql(first)[0][0])


def check(stage: Stage, running: list[tuple[int, int, int]]) -> None:
    """Check that trials running at the kill ended in that attempt."""
    for trial, attempt, _ in running:
        rows = stage.sql(f"SELECT number, state FROM attempts WHERE trial_id = {trial}")
        if max(map(tuple, rows)) != (attempt, "finished"):
            raise RuntimeError(f"trial {trial}: {rows}")


if __name__ == "__main__":
    main()
