"""A study's diagnosis in sentences, each with its remedy. Decides nothing: see `queries.diagnosis`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tunesvc.cli.views.finding_text import DatabaseFinding, Verdict
from tunesvc.util import formatting
from tunesvc.views import terminal

if TYPE_CHECKING:
    from rich.table import Table

    from tunesvc.queries.health import Health
    from tunesvc.queries.operations.study_diagnosis import Diagnosis, LiveAttemptRow

SLOW_COMMAND_S = 10.0
"""A coordinator carries commands out within about a second."""
LONG_WAIT_S = 60.0
"""So long without resources deserves a remark."""
NUMBERS_MAX = 8


def findings(found: Diagnosis) -> list[DatabaseFinding]:
    """What explains the study's state, in the order in which one would ask."""
    return [*_standing(found), *_attempts(found), *_waiting(found), *_trouble(found)]


def of_health(study: str, examined: Health) -> list[DatabaseFinding]:
    """What the study's checks found; where they found nothing, how many there were."""
    found = []
    for check, finding in examined.findings:
        way = f" `{terminal.clean(finding.action.command(study))}`" if finding.action else ""
        verdict: Verdict = "warn" if finding.severity == "warn" else "ok"
        found.append(
            DatabaseFinding(
                check.name.capitalize(),
                verdict,
                f"{finding.text} {finding.advice}{way}",
            )
        )
    early = [check.name for check in examined.checks if check.silence is not None and check.silence.is_early]
    silent = sum(check.silence is not None for check in examined.checks) - len(early)
    told = [f"{silent} checks found nothing"] * bool(silent)
    told += [f"too early for {', '.join(early)}"] * bool(early)
    return [*found, DatabaseFinding("Health", "ok", "; ".join(told))] if told else found


def live_table(rows: Sequence[LiveAttemptRow], width: int) -> Table:
    """Which attempts live where."""
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
            "–" if row.left_s is None else "now" if row.left_s < 0 else formatting.duration(row.left_s),
            ",".join(row.devices) or "–",
            row.stop_cause or "",
        )
        for row in rows
    ]
    return terminal.fitted(heads, lines, width, ("devices", ">attempt", ">given up in", "stopping"))


def _standing(found: Diagnosis) -> Iterator[DatabaseFinding]:
    study, lease = found.study, found.lease
    reason = f": {study.reason}" if study.reason else ""
    counts = study.counts
    done = f"{counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed, {counts.running} running"
    done += f", {counts.stopped} stopped" if counts.stopped else ""
    done += f", {counts.queued} queued" if counts.queued else ""
    done += f", {counts.interrupted} interrupted" if counts.interrupted else ""
    done += f", {counts.paused} paused" if counts.paused else ""
    yield DatabaseFinding(
        "Trials",
        "ok",
        done + (f", {counts.waiting} enqueued" if counts.waiting else ""),
    )
    if study.unattended:
        since = (
            "none ever did" if lease is None else f"{lease.owner} did until {formatting.duration(-lease.left_s)} ago"
        )
        text = f"interrupted: no process runs it; {since}. `{study.resume_command}` continues without loss"
        yield DatabaseFinding("State", "warn", text)
    elif study.state == "failed":
        yield DatabaseFinding("State", "broken", f"failed{reason}. `{study.resume_command}` tries again")
    else:
        yield DatabaseFinding("State", "ok", f"{study.state}{reason}")
    if lease is not None and lease.left_s > 0:
        times = "once" if lease.token == 1 else f"{lease.token} times"
        text = f"{lease.owner} runs it; its lease, taken {times} so far, holds for {lease.left_s:.0f} s more"
        yield DatabaseFinding("Coordinator", "ok", text)


def _attempts(found: Diagnosis) -> Iterator[DatabaseFinding]:
    starved = [row for row in found.live if row.state == "opened" and row.age_s > LONG_WAIT_S]
    if starved:
        longest = formatting.duration(max(row.age_s for row in starved))
        text = f"no resources for {_trials([row.trial_number for row in starved])} for up to {longest}: "
        yield DatabaseFinding(
            "Resources",
            "warn",
            text + "the cluster is full, or smaller than `parallelism` asks for",
        )
    silent = [row for row in found.live if row.left_s is not None and row.left_s < 0]
    if silent and not found.study.unattended:  # only a coordinator renews their leases
        text = f"the workers of {_trials([row.trial_number for row in silent])} give no sign of life: frozen, or "
        yield DatabaseFinding(
            "Workers",
            "warn",
            text + "out of reach; their trials are run again by whoever runs the study",
        )
    if found.live and found.study.unattended:
        text = f"{_trials([row.trial_number for row in found.live])} had an attempt on its way when the coordinator "
        text += "went away: on a shared cluster it runs on and is gone on with, else it starts from its checkpoint"
        yield DatabaseFinding("Attempts", "warn", text)


def _waiting(found: Diagnosis) -> Iterator[DatabaseFinding]:
    attended = found.study.coordinator is not None
    if found.to_run_again and found.study.spec is None:
        name = shlex.quote(terminal.clean(found.study.name))
        text = f"{_trials(found.to_run_again)}, by processes that use Optuna's API; if those are gone, "
        text += f"`tune stop {name}` fails what they left"
        yield DatabaseFinding("Running", "ok", text)
    elif found.to_run_again:
        when = "as soon as there is room" if attended else "once somebody runs the study"
        yield DatabaseFinding("Waiting", "warn", f"{_trials(found.to_run_again)} will be run again {when}")
    if found.enqueued:
        yield DatabaseFinding("Enqueued", "ok", f"{_trials(found.enqueued)} will be run next")
    for command in found.commands:
        by = f" by {command.asked_by}" if command.asked_by else ""
        text = f"`{command.kind}`, asked{by} {formatting.duration(command.age_s)} ago, is "
        if attended and command.kind in ("pause", "stop"):
            yield DatabaseFinding(
                "Command",
                "ok",
                f"{text}being carried out: {len(found.live)} trials still run",
            )
        else:
            late = command.age_s > SLOW_COMMAND_S or not attended
            why = "" if attended else ": nobody runs the study"
            yield DatabaseFinding("Command", "warn" if late else "ok", f"{text}not carried out yet{why}")


def _trouble(found: Diagnosis) -> Iterator[DatabaseFinding]:
    if found.failures:
        counted = ", ".join(f"{count} {failure}" for failure, count in found.failures.items())
        retries = None if found.study.spec is None else found.study.spec.retries
        limits = {failure: getattr(retries, failure, 0) for failure in found.failures}
        told = ", ".join(f"{failure} {limit}" for failure, limit in limits.items())
        text = f"attempts ended by {counted} (times that a trial may be run again: {told})"
        yield DatabaseFinding("Failures", "warn", text)
    if found.keeps_memory:
        number, note = list(found.keeps_memory.items())[-1]
        yield DatabaseFinding(
            "Memory",
            "warn",
            f"before trial {number}: {note.strip().removeprefix('[tunesvc: ').rstrip(']')}",
        )
    for at, text in found.events:
        yield DatabaseFinding("Lately", "ok", f"{formatting.ago(at)}, {text}")


def _trials(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, numbers[:NUMBERS_MAX])) + (", …" if len(numbers) > NUMBERS_MAX else "")
    return f"trial {listed}" if len(numbers) == 1 else f"trials {listed}"
