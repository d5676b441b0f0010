"""A study's diagnosis in sentences, each with its remedy. Pure: see
`queries.operations.study_diagnosis`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tunesvc.cli.views.finding_text import DatabaseFinding, Verdict
from tunesvc.util import formatting
from tunesvc.util.characters import visible
from tunesvc.views import terminal

if TYPE_CHECKING:
    from rich.table import Table

    from tunesvc.queries.health import Health
    from tunesvc.queries.operations.study_diagnosis import Diagnosis, LivenessRow

SLOW_COMMAND_S = 10.0
"""A running coordinator executes commands within about a second."""
LONG_WAIT_S = 60.0
"""Longer waits for resources are reported."""
NUMBERS_MAX = 8


def findings(diagnosis: Diagnosis) -> list[DatabaseFinding]:
    """Explain a study's state, the most important findings first."""
    return [*_state(diagnosis), *_attempts(diagnosis), *_waiting(diagnosis), *_problems(diagnosis)]


def format_health(study: str, examined: Health) -> list[DatabaseFinding]:
    """Format the findings of a study's health checks, and count the checks without one."""
    results = []
    for check, finding in examined.findings:
        remedy = f" `{visible(finding.action.command(study))}`" if finding.action else ""
        verdict: Verdict = "warn" if finding.severity == "warn" else "ok"
        results.append(
            DatabaseFinding(
                check.name.capitalize(),
                verdict,
                f"{finding.text} {finding.advice}{remedy}",
            )
        )
    without_finding = [check for check in examined.checks if check.silence is not None]
    early = [check.name for check in without_finding if check.silence and check.silence.is_early]
    silent = len(without_finding) - len(early)
    remarks = [f"{silent} checks found nothing"] * bool(silent)
    remarks += [f"too early for {', '.join(early)}"] * bool(early)
    return [*results, DatabaseFinding("Health", "ok", "; ".join(remarks))] if remarks else results


def live_table(rows: Sequence[LivenessRow], width: int) -> Table:
    """Format live attempts as a table."""
    heads = (
        ">trial",
        ">attempt",
        "state",
        "node",
        ">pid",
        "devices",
        ">age",
        ">last report",
        ">given up in",
        "stopping",
    )
    lines = [
        (
            row.trial_number,
            row.number,
            terminal.state_text(str(row.state)),
            row.node or "–",
            row.pid or "–",
            formatting.duration(row.age_s),
            "–" if row.reported_s is None else f"{formatting.duration(row.reported_s)} ago",
            _time_left(row.left_s),
            ",".join(row.devices) or "–",
            row.stop_cause or "",
        )
        for row in rows
    ]
    return terminal.fitted(
        heads,
        lines,
        width,
        ("devices", ">attempt", ">given up in", "stopping"),
    )


def _time_left(left_s: float | None) -> str:
    if left_s is None:
        return "–"
    return "now" if left_s < 0 else formatting.duration(left_s)


def _state(diagnosis: Diagnosis) -> Iterator[DatabaseFinding]:
    study, lease = diagnosis.study, diagnosis.lease
    reason = f": {study.reason}" if study.reason else ""
    counts = study.counts
    always = ("complete", "pruned", "failed", "running")
    others = ("stopped", "queued", "interrupted", "paused")
    names = [name for name in (*always, *others) if name in always or getattr(counts, name)]
    parts = [f"{getattr(counts, name)} {name}" for name in names]
    if counts.waiting:
        parts.append(f"{counts.waiting} enqueued")
    yield DatabaseFinding("Trials", "ok", ", ".join(parts))
    if study.unattended:
        since = "none ever did"
        if lease is not None:
            since = f"{lease.owner} did until {formatting.duration(-lease.left_s)} ago"
        remedy = f"`{study.resume_command}` continues without loss"
        text = f"interrupted: no process runs it; {since}. {remedy}"
        yield DatabaseFinding("State", "warn", text)
    elif study.queued is not None:
        text = f"queued, place {study.queued.position}: {study.queued.reason}"
        yield DatabaseFinding("State", "warn" if study.queued.problem else "ok", text)
    elif study.state == "failed":
        yield DatabaseFinding(
            "State",
            "broken",
            f"failed{reason}. `{study.resume_command}` tries again",
        )
    else:
        yield DatabaseFinding("State", "ok", f"{study.state}{reason}")
    if lease is not None and lease.left_s > 0:
        times = "once" if lease.token == 1 else f"{lease.token} times"
        left = f"{lease.left_s:.0f} s"
        text = f"{lease.owner} runs it; its lease, taken {times} so far, expires in {left}"
        yield DatabaseFinding("Coordinator", "ok", text)


def _why_waiting(diagnosis: Diagnosis) -> str:
    spec = diagnosis.study.spec
    if spec is not None and spec.agents == "only":
        return f"no agent is free; `tune agent {spec.name} --server URL` starts one"
    return "the cluster is full, or smaller than `parallelism` asks for"


def _attempts(diagnosis: Diagnosis) -> Iterator[DatabaseFinding]:
    waiting = [row for row in diagnosis.live if row.state == "opened" and row.age_s > LONG_WAIT_S]
    if waiting:
        longest = formatting.duration(max(row.age_s for row in waiting))
        numbers = _trials([row.trial_number for row in waiting])
        yield DatabaseFinding(
            "Resources",
            "warn",
            f"no resources for {numbers} for up to {longest}: {_why_waiting(diagnosis)}",
        )
    silent = [row for row in diagnosis.live if row.left_s is not None and row.left_s < 0]
    if silent and diagnosis.study.coordinator is not None:  # only a coordinator renews their leases
        numbers = _trials([row.trial_number for row in silent])
        text = f"the workers of {numbers} send no heartbeats: frozen, or "
        yield DatabaseFinding(
            "Workers",
            "warn",
            text + "out of reach; the coordinator runs their trials again",
        )
    if diagnosis.live and diagnosis.study.coordinator is None:
        numbers = _trials([row.trial_number for row in diagnosis.live])
        text = (
            f"{numbers} had an unfinished attempt when the coordinator stopped: on a shared "
            "cluster it runs on and is adopted later, else it restarts from its checkpoint"
        )
        yield DatabaseFinding("Attempts", "warn", text)


def _waiting(diagnosis: Diagnosis) -> Iterator[DatabaseFinding]:
    attended = diagnosis.study.coordinator is not None
    if diagnosis.to_run_again and diagnosis.study.spec is None:
        name = shlex.quote(visible(diagnosis.study.name))
        text = (
            f"{_trials(diagnosis.to_run_again)}, by processes that use Optuna's API; if those are "
            f"gone, `tune stop {name}` marks their trials as failed"
        )
        yield DatabaseFinding("Running", "ok", text)
    elif diagnosis.to_run_again:
        when = "as soon as there is room" if attended else "once a process runs the study"
        yield DatabaseFinding(
            "Waiting",
            "warn",
            f"{_trials(diagnosis.to_run_again)} will be run again {when}",
        )
    if diagnosis.enqueued:
        yield DatabaseFinding(
            "Enqueued",
            "ok",
            f"{_trials(diagnosis.enqueued)} will be run next",
        )
    for command in diagnosis.commands:
        by = f" by {command.asked_by}" if command.asked_by else ""
        text = f"`{command.kind}`, asked{by} {formatting.duration(command.age_s)} ago, is "
        if attended and command.kind in ("pause", "stop"):
            yield DatabaseFinding(
                "Command",
                "ok",
                f"{text}being carried out: {len(diagnosis.live)} trials still run",
            )
        else:
            late = command.age_s > SLOW_COMMAND_S or not attended
            why = "" if attended else ": no process runs the study"
            yield DatabaseFinding(
                "Command",
                "warn" if late else "ok",
                f"{text}not carried out yet{why}",
            )


def _problems(diagnosis: Diagnosis) -> Iterator[DatabaseFinding]:
    if diagnosis.failures:
        counted = ", ".join(f"{count} {failure}" for failure, count in diagnosis.failures.items())
        retries = None if diagnosis.study.spec is None else diagnosis.study.spec.retries
        limits = {failure: getattr(retries, failure, 0) for failure in diagnosis.failures}
        remarks = ", ".join(f"{failure} {limit}" for failure, limit in limits.items())
        text = f"attempts ended by {counted} (times that a trial may be run again: {remarks})"
        yield DatabaseFinding("Failures", "warn", text)
    if diagnosis.keeps_memory:
        number, note = list(diagnosis.keeps_memory.items())[-1]
        yield DatabaseFinding(
            "Memory",
            "warn",
            f"before trial {number}: {note.strip().removeprefix('[tunesvc: ').rstrip(']')}",
        )
    for at, text in diagnosis.events:
        yield DatabaseFinding("Lately", "ok", f"{formatting.ago(at)}, {text}")


def _trials(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:NUMBERS_MAX]))
    if len(numbers) > NUMBERS_MAX:
        listed += ", …"
    return f"trial {listed}" if len(numbers) == 1 else f"trials {listed}"
