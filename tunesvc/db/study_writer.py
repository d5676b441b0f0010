"""Writes the changes of a running study, each step in one transaction and exactly once.

A `StudyWriter` is bound to one study by its lease. The first statement of every transaction renews
the lease and advances its batch number. If it finds another token, another coordinator took over,
and nothing is written. If it finds the batch number already advanced, an earlier try was committed
and only its answer was lost. So changes that failed with `DatabaseUnavailable` may be
committed again until it succeeds, and are stored once.

Every list of changes is one statement over `unnest`ed arrays, for any number of rows, and all
statements travel together. So a commit takes the same few round trips whatever it contains, which
matters when the database is far away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from tunesvc.db import lease as leasing
from tunesvc.db import notifications, study_records
from tunesvc.db.engine import json_numbers
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.db.lease import LEASE_S, Lease
from tunesvc.db.study_changes import EndRecord, LogCut, Report, SeenNode, StartRecord, StudyChanges
from tunesvc.db.trial_changes import Attr, Decision
from tunesvc.errors import DatabaseUnavailable, LeaseLost
from tunesvc.instrumentation import event_log, failpoints, latency
from tunesvc.util.characters import storable

T = TypeVar("T")

_GONE = "another coordinator took this study over, or it was deleted"
_TAKEN_OVER = f"{_GONE}: nothing more is written from here"
_RELEASE_DELAYS_S = (0.1, 0.5, 2.0)
"""Delays before each retry of releasing the lease, which otherwise runs out by itself."""


class StudyWriter:
    """Writes for one study, under its lease."""

    def __init__(
        self,
        database: Database,
        lease: Lease,
        *,
        ttl_s: float = LEASE_S,
        sleep: Callable[[float], None] = time.sleep,
        inherited: frozenset[int] = frozenset(),
    ) -> None:
        """`inherited`: ids of commands that were pending when the lease was taken."""
        self._database = database
        self._lease = lease
        self._ttl_s = ttl_s
        self._sleep = sleep
        self._commits = 0
        self.committed_at = ""
        """Time of the last commit, as its rows have it; empty when unknown."""
        self._inherited = inherited

    @classmethod
    def open(
        cls,
        database: Database,
        study_id: int,
        *,
        owner: str | None = None,
        ttl_s: float = LEASE_S,
    ) -> StudyWriter:
        """Take the study's lease.

        Raises:
            StudyBusy: another coordinator holds it.
            DatabaseUnavailable: the database does not answer.
        """
        with translate_unavailable(), database.engine.begin() as connection:
            lease = leasing.acquire(
                connection,
                study_id,
                owner or leasing.default_owner(),
                ttl_s,
            )
            pending = study_records.pending(connection, study_id)
            inherited = frozenset(command.command_id for command in pending)
        event_log.record("lease", study=study_id, owner=lease.owner, token=lease.token)
        failpoints.reach("leased")
        return cls(database, lease, ttl_s=ttl_s, inherited=inherited)

    @property
    def study_id(self) -> int:
        """The study that this writer writes for."""
        return self._lease.study_id

    @property
    def token(self) -> int:
        """The fencing token of the lease."""
        return self._lease.token

    @property
    def ttl_s(self) -> float:
        """Duration of the lease after a commit."""
        return self._ttl_s

    def commit(self, changes: StudyChanges) -> Sequence[tuple[int, int]]:
        """Write changes and renew the lease: all of them once, or none.

        Returns:
            (trial number, attempt) of the live attempts with an expired lease.

        Raises:
            LeaseLost: another coordinator took over, or another process finished a trial.
            DatabaseUnavailable: the changes may or may not be written. Commit the same ones
                again, and no others before.
        """
        number = self._commits + 1
        with (
            event_log.recorded(
                "commit",
                lambda: {
                    "study": self.study_id,
                    "token": self.token,
                    "batch": number,
                    **changes.describe(),
                },
            ),
            translate_unavailable(),
            latency.timed("commit"),
        ):
            stalled = self._commit_once(number, changes)
        self._commits = number
        failpoints.reach("committed")
        return stalled

    def commands(self) -> Sequence[study_records.Command]:
        """Return the pending commands, oldest first.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        with translate_unavailable(), self._database.engine.connect() as connection:
            return study_records.pending(connection, self.study_id)

    def predates_lease(self, command: study_records.Command) -> bool:
        """Return True if it was pending when the lease was taken, for an earlier coordinator."""
        return command.command_id in self._inherited

    def ensure_running(self) -> str:
        """Start the embedded server if it is down; return why it stays down, or an empty text."""
        return self._database.ensure_running()

    def release(self) -> None:
        """Release the lease, so that the next coordinator need not wait. May be repeated.

        Raises:
            DatabaseUnavailable: the database does not answer, after several tries.
        """
        for delay_s in _RELEASE_DELAYS_S:
            try:
                return self._release_once()
            except DatabaseUnavailable:
                self._sleep(delay_s)
        return self._release_once()

    def _release_once(self) -> None:
        with translate_unavailable(), self._database.engine.begin() as connection:
            if leasing.release(connection, self._lease):
                # Pages that loaded the last step still show the study as running.
                notifications.notify(connection, self._lease.study_id)

    def _commit_once(
        self,
        number: int,
        changes: StudyChanges,
    ) -> Sequence[tuple[int, int]]:
        with self._database.engine.begin() as connection:
            if self._advance(connection, number):
                failpoints.reach("advanced")
                _BatchSql(connection, self._lease).write(changes)
                failpoints.reach("written")
            return () if changes.alive is None else self._stalled(connection)

    def _advance(self, connection: sa.Connection, number: int) -> bool:
        """Renew the lease; return False when this batch number has been committed before."""
        row = {
            "study": self.study_id,
            "token": self.token,
            "batch": number,
            "ttl": self._ttl_s,
        }
        advanced = connection.execute(_ADVANCE, row).scalar()
        self.committed_at = "" if advanced is None else advanced.isoformat()
        if advanced is not None:
            return True
        if connection.execute(_IS_COMMITTED, row).scalar():
            return False
        raise LeaseLost(_TAKEN_OVER)

    def _stalled(self, connection: sa.Connection) -> Sequence[tuple[int, int]]:
        rows = connection.execute(_STALLED, {"study": self.study_id, "token": self.token})
        return [(row.number, row.attempt) for row in rows]


_ADVANCE = sa.text("""
    UPDATE leases SET batch = :batch, expires_at = now() + make_interval(secs => :ttl)
    WHERE study_id = :study AND token = :token AND batch = :batch - 1
    RETURNING now()
""")
_IS_COMMITTED = sa.text(
    "SELECT true FROM leases WHERE study_id = :study AND token = :token AND batch = :batch",
)
_STALLED = sa.text("""
    SELECT t.number, a.number AS attempt FROM trials t JOIN attempts a ON a.trial_id = t.trial_id
    WHERE t.study_id = :study AND t.state = 'running' AND a.token = :token
          AND a.state IN ('opened', 'running') AND a.expires_at < now()
""")

_TRIAL = "(CAST(:study AS bigint) << 32 | b.number)"
"""A trial's id from its number: see tunesvc.db.schema.ids."""

_LIVE = f"""a.trial_id = {_TRIAL} AND a.number = b.attempt AND a.token = :token
    AND a.state IN ('opened', 'running')"""
"""Guard of every write for an attempt: it is live, and opened or adopted under our lease."""


class _BatchSql:
    """Writes changes through one connection; the methods are in the order of their statements."""

    def __init__(self, connection: sa.Connection, lease: Lease) -> None:
        self._connection = connection
        self._lease = lease
        self._cursor = connection.connection.cursor()
        self._pending: list[str] = []
        """Statements that have not been sent yet."""

    def write(self, changes: StudyChanges) -> None:
        self._trials(changes)
        self._params_and_attrs(changes)
        self._starts(changes)
        self._reports_and_logs(changes)
        self._attempt_ends(changes)
        self._openings(changes)
        self._trial_ends(changes)
        self._decisions(changes)
        self._nodes(changes)
        self._study(changes)
        if changes.shows:
            self._run(notifications.NOTIFY, study=str(self._lease.study_id))
        self._send()

    def _trials(self, changes: StudyChanges) -> None:
        self._bulk(
            f"""INSERT INTO trials (trial_id, study_id, number, state, started_at)
                SELECT {_TRIAL}, :study, b.number, b.state,
                       CASE WHEN b.state = 'running' THEN now() END FROM b""",
            {"number": "bigint", "state": "text"},
            changes.trials,
        )
        if changes.trials:
            self._run(
                """UPDATE studies SET next_number = greatest(next_number, :next)
                   WHERE study_id = :study""",
                next=max(trial.number for trial in changes.trials) + 1,
            )
        self._bulk(
            f"""UPDATE trials t SET state = 'running', started_at = now() FROM b
                WHERE t.trial_id = {_TRIAL} AND t.state = 'waiting'""",
            {"number": "bigint"},
            [(number,) for number in changes.restarted],
        )

    def _params_and_attrs(self, changes: StudyChanges) -> None:
        self._bulk(
            f"""INSERT INTO trial_params (trial_id, name, position, value, distribution)
                SELECT {_TRIAL}, b.name, b.position, b.value, b.distribution FROM b
                ON CONFLICT (trial_id, name) DO NOTHING""",
            {
                "number": "bigint",
                "name": "text",
                "position": "integer",
                "value": "double precision",
                "distribution": "text",
            },
            changes.params,
        )
        columns = {"number": "bigint", "kind": "text", "name": "text", "value": "text"}
        self._bulk(
            f"""INSERT INTO trial_attrs (trial_id, kind, name, value)
                SELECT {_TRIAL}, b.kind, b.name, b.value FROM b
                ON CONFLICT (trial_id, kind, name) DO UPDATE SET value = excluded.value""",
            columns,
            _last_of_each([attr for attr in changes.attrs if attr.number is not None]),
        )
        self._bulk(
            """INSERT INTO study_attrs (study_id, kind, name, value)
               SELECT :study, b.kind, b.name, b.value FROM b
               ON CONFLICT (study_id, kind, name) DO UPDATE SET value = excluded.value""",
            columns,
            _last_of_each([attr for attr in changes.attrs if attr.number is None]),
        )

    def _starts(self, changes: StudyChanges) -> None:
        if changes.adopts:
            self._run(
                """UPDATE attempts a SET token = :token FROM trials t
                   WHERE t.study_id = :study AND a.trial_id = t.trial_id
                         AND a.state IN ('opened', 'running')"""
            )
        self._bulk(
            f"""UPDATE attempts a SET expires_at = now() + make_interval(secs => b.stall)
                FROM b WHERE {_LIVE}""",
            {"number": "bigint", "attempt": "integer", "stall": "double precision"},
            changes.alive or [],
        )
        self._bulk(
            f"""UPDATE attempts a SET state = 'running', started_at = now(),
                       node = b.node, pid = b.pid,
                       devices = string_to_array(nullif(b.devices, ''), ','),
                       code = nullif(b.code, ''),
                       bundle_nodes = string_to_array(nullif(b.bundle_nodes, ''), ',')
                FROM b WHERE {_LIVE}""",
            {
                "number": "bigint",
                "attempt": "integer",
                "node": "text",
                "pid": "bigint",
                "devices": "text",
                "code": "text",
                "bundle_nodes": "text",
            },
            [_started_row(started) for started in changes.started],
        )

    def _reports_and_logs(self, changes: StudyChanges) -> None:
        self._bulk(
            f"""INSERT INTO reports (trial_id, attempt, step, value, metrics)
                SELECT a.trial_id, b.attempt, b.step, b.value, CAST(b.metrics AS jsonb)
                FROM b JOIN attempts a ON {_LIVE}
                ON CONFLICT (trial_id, attempt, step) DO NOTHING""",
            {
                "number": "bigint",
                "attempt": "integer",
                "step": "bigint",
                "value": "double precision",
                "metrics": "text",
            },
            [_report_row(report) for report in changes.reports],
        )
        self._bulk(
            f"""INSERT INTO logs (trial_id, attempt, seq, stream, text)
                SELECT a.trial_id, b.attempt, b.seq, b.stream, b.text
                FROM b JOIN attempts a ON {_LIVE}
                ON CONFLICT (trial_id, attempt, seq) DO NOTHING""",
            {
                "number": "bigint",
                "attempt": "integer",
                "seq": "bigint",
                "stream": "text",
                "text": "text",
            },
            [line._replace(text=storable(line.text)) for line in changes.logs],
        )
        self._log_cuts(list(changes.log_cuts.values()))
        self._bulk(
            f"""UPDATE attempts a SET checkpoint = b.path, checkpoint_step = b.step
                FROM b WHERE {_LIVE}""",
            {
                "number": "bigint",
                "attempt": "integer",
                "path": "text",
                "step": "bigint",
            },
            list({(c.number, c.attempt): c for c in changes.checkpoints}.values()),
        )
        self._bulk(
            f"UPDATE attempts a SET cursor = greatest(cursor, b.seq) FROM b WHERE {_LIVE}",
            {"number": "bigint", "attempt": "integer", "seq": "bigint"},
            [(number, attempt, seq) for (number, attempt), seq in changes.cursors.items()],
        )

    def _log_cuts(self, cuts: list[LogCut]) -> None:
        columns = {
            "number": "bigint",
            "attempt": "integer",
            "first": "bigint",
            "last": "bigint",
            "stream": "text",
            "text": "text",
        }
        self._bulk(
            f"""DELETE FROM logs l USING b JOIN attempts a ON {_LIVE}
                WHERE l.trial_id = a.trial_id AND l.attempt = b.attempt
                      AND l.seq BETWEEN b.first AND b.last""",
            columns,
            cuts,
        )
        self._bulk(
            f"""INSERT INTO logs (trial_id, attempt, seq, stream, text)
                SELECT a.trial_id, b.attempt, b.first, b.stream, b.text
                FROM b JOIN attempts a ON {_LIVE}""",
            columns,
            cuts,
        )

    def _attempt_ends(self, changes: StudyChanges) -> None:
        self._bulk(
            f"UPDATE attempts a SET stop_cause = b.cause FROM b WHERE {_LIVE}",
            {"number": "bigint", "attempt": "integer", "cause": "text"},
            changes.stops,
        )
        self._bulk(
            f"""UPDATE attempts a SET state = b.state, failure = b.failure, message = b.message,
                       traceback = b.traceback,
                       ended_at = CASE WHEN b.at_last_report THEN coalesce((
                           SELECT max(r.reported_at) FROM reports r
                           WHERE r.trial_id = a.trial_id AND r.attempt = a.number
                       ), a.started_at, a.opened_at) ELSE now() END
                FROM b WHERE {_LIVE}""",
            {
                "number": "bigint",
                "attempt": "integer",
                "state": "text",
                "failure": "text",
                "message": "text",
                "traceback": "text",
                "at_last_report": "boolean",
            },
            [_end_row(end) for end in changes.ends],
        )

    def _openings(self, changes: StudyChanges) -> None:
        self._bulk(
            f"""INSERT INTO attempts (trial_id, number, token, expires_at, cpus, gpus)
                SELECT {_TRIAL}, b.attempt, :token, now() + make_interval(secs => b.stall),
                       b.cpus, b.gpus FROM b""",
            {
                "number": "bigint",
                "attempt": "integer",
                "cpus": "double precision",
                "gpus": "double precision",
                "stall": "double precision",
            },
            [(o.number, o.attempt, o.cpus, o.gpus, o.stall_s) for o in changes.opened],
        )
        self._bulk(
            f"""UPDATE reports r SET superseded = true FROM b
                WHERE r.trial_id = {_TRIAL} AND r.step > b.after_step""",
            {"number": "bigint", "after_step": "bigint"},
            [(o.number, o.after_step) for o in changes.opened if o.attempt > 1],
        )

    def _trial_ends(self, changes: StudyChanges) -> None:
        if not changes.finished:
            return
        self._bulk(
            f"""UPDATE trials t SET state = b.state,
                       "values" = CAST(b.result AS double precision[]), ended_at = now()
                FROM b WHERE t.trial_id = {_TRIAL} AND t.state IN ('running', 'waiting')""",
            {"number": "bigint", "state": "text", "result": "text"},
            [(end.number, end.state, _array(end.values)) for end in changes.finished],
        )
        if self._send() != len(changes.finished):
            numbers = ", ".join(str(end.number) for end in changes.finished)
            raise LeaseLost(
                f"one of the trials {numbers} was finished or deleted by somebody else; "
                "nothing was written. `tune resume` goes on from what is stored."
            )

    def _decisions(self, changes: StudyChanges) -> None:
        self._bulk(
            """INSERT INTO decisions (study_id, trial_number, kind, reason, details)
               SELECT :study, b.number, b.kind, b.reason, CAST(b.details AS jsonb) FROM b""",
            {"number": "bigint", "kind": "text", "reason": "text", "details": "text"},
            [_decision_row(decision) for decision in changes.decisions],
        )
        self._bulk(
            """UPDATE commands c SET done_at = now(), answer = b.answer FROM b
               WHERE c.command_id = b.command AND c.study_id = :study AND c.done_at IS NULL""",
            {"command": "bigint", "answer": "text"},
            list(changes.answered.items()),
        )

    def _nodes(self, changes: StudyChanges) -> None:
        if changes.nodes is None:
            return
        keys = [node.key for node in changes.nodes]
        self._run(
            "DELETE FROM nodes WHERE study_id = :study AND key <> ALL (CAST(:keys AS text[]))",
            keys=keys,
        )
        self._bulk(
            """INSERT INTO nodes (study_id, key, address, host, total, free)
               SELECT :study, b.key, b.address, b.host,
                      CAST(b.total AS jsonb), CAST(b.free AS jsonb) FROM b
               ON CONFLICT (study_id, key) DO UPDATE SET
                  address = excluded.address, host = excluded.host,
                  total = excluded.total, free = excluded.free, seen_at = now()""",
            {
                "key": "text",
                "address": "text",
                "host": "text",
                "total": "text",
                "free": "text",
            },
            [_node_row(node) for node in changes.nodes],
        )

    def _study(self, changes: StudyChanges) -> None:
        if changes.active_s:
            self._run(
                "UPDATE studies SET active_s = active_s + :active_s WHERE study_id = :study",
                active_s=changes.active_s,
            )
        if changes.spec is not None:
            self._run(
                "UPDATE studies SET spec = CAST(:spec AS json) WHERE study_id = :study",
                spec=changes.spec,
            )
        if changes.study_state is not None:
            state, reason = changes.study_state
            self._run(
                """UPDATE studies SET state = :state, reason = :reason,
                          ended_at = CASE WHEN :over THEN now() END WHERE study_id = :study""",
                state=str(state),
                reason=storable(reason),
                over=state.is_terminal,
            )

    def _bulk(
        self,
        sql: str,
        columns: dict[str, str],
        rows: Sequence[Sequence[Any]],
    ) -> None:
        """Queue a statement over a table `b` of rows, if there are any."""
        if not rows:
            return
        arrays = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in columns.items())
        table = f"WITH b ({', '.join(columns)}) AS (SELECT * FROM unnest({arrays}))\n"
        transposed = map(list, zip(*rows, strict=True))
        values = dict(zip(columns, transposed, strict=True))
        self._run(table + sql, **values)

    def _run(self, sql: str, **values: Any) -> None:
        """Queue a statement for the next round trip."""
        parameters = {
            "study": self._lease.study_id,
            "token": self._lease.token,
            **values,
        }
        self._pending.append(self._cursor.mogrify(_compiled(sql), parameters).decode())

    def _send(self) -> int:
        """Run the queued statements in one round trip; return the row count of the last one."""
        if not self._pending:
            return 0
        statements, self._pending = ";\n".join(self._pending), []
        connection = self._connection.execution_options(no_parameters=True)
        return connection.exec_driver_sql(statements).rowcount


@cache
def _compiled(sql: str) -> str:
    """Return a statement in the driver's syntax; the same few are used at every step."""
    dialect = postgresql.psycopg2.dialect()  # type: ignore[no-untyped-call]
    return str(sa.text(sql).compile(dialect=dialect))


def _started_row(started: StartRecord) -> tuple[Any, ...]:
    *values, devices, code, bundle_nodes = started
    return *values, ",".join(devices), code, ",".join(bundle_nodes)


def _report_row(report: Report) -> tuple[Any, ...]:
    metrics = json_numbers.dump(report.metrics) if report.metrics else None
    return report.number, report.attempt, report.step, report.value, metrics


def _end_row(end: EndRecord) -> EndRecord:
    message, traceback = storable(end.message or ""), storable(end.traceback or "")
    return end._replace(message=message, traceback=traceback)


def _decision_row(decision: Decision) -> tuple[Any, ...]:
    details = json_numbers.dump(decision.details)
    return decision.number, decision.kind, storable(decision.reason), details


def _node_row(node: SeenNode) -> tuple[Any, ...]:
    total, free = json_numbers.dump(node.total), json_numbers.dump(node.free)
    return node.key, node.address, node.host, total, free


def _array(values: list[float] | None) -> str | None:
    if values is None:
        return None
    numbers = ",".join(repr(float(value)) for value in values)
    return "{" + numbers + "}"


def _last_of_each(attrs: list[Attr]) -> list[Attr]:
    return list({(attr.number, attr.kind, attr.name): attr for attr in attrs}.values())
