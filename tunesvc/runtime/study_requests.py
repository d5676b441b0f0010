"""Users' requests to a study, from the command line, Python or the dashboard.

| kind | payload | effect on a study without a coordinator |
|---|---|---|
| `pause`, `stop` | | its state changes at once; `stop` also ends workers that still run |
| `resume` | | a submitted one is queued; another one needs a process that runs it |
| `extend` | `trials`, `wall`, `gpu_hours`, `cost`: by how much | its spec changes at once |
| `parallelism` | `trials`: a number, or None for as many as fit | its spec changes at once |
| `widen` | `parameters`: by name `min`, `max`, or `values` to add | its spec changes at once |
| `enqueue` | `params` and `origin`, or `near`: a trial | the trial waits for the next run |
| `retry` | `number` of a finished trial | the trial waits for the next run |
| `stop_trial` | `number` of an unfinished trial | the trial ends at once |

Every request is recorded with its user, time and answer. It is first tried on the stored study, so
that one that makes no sense is refused at once and not recorded. If the study has a coordinator,
that carries it out. If not, this process takes the lease briefly, and carries it out and
records it in one transaction. Only pause and stop take a study from a coordinator without a
heartbeat; other requests wait for that one, or for the next.

A submitted study is queued again by `resume`, and by `extend`, `enqueue` and `retry` unless it is
paused.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from tunesvc.coordinator.attempt_state.attempt_results import conclude
from tunesvc.coordinator.attempt_state.live_attempts import MetricTracker
from tunesvc.coordinator.commands import carry_out, perform
from tunesvc.db import lease, recovery, study_annotations, study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.states import Priority, StudyState
from tunesvc.db.study_changes import StudyChanges
from tunesvc.db.study_records import Command, StudyRecord
from tunesvc.db.study_writer import StudyWriter
from tunesvc.db.trial_changes import Attr, Decision, NewTrial, TrialEnd
from tunesvc.errors import SpecError, StudyBusy, StudyWithoutSpec
from tunesvc.execution.driver.ray_pool import ray_executor
from tunesvc.execution.executor import StoppedEarly
from tunesvc.policy import StopCause
from tunesvc.runtime.checkpoint_locations import delete_checkpoints
from tunesvc.runtime.run_study import end_workers
from tunesvc.runtime.takeover import runner
from tunesvc.search.exhaustion import is_exhausted
from tunesvc.search.optimizer import queued
from tunesvc.search.registry.component_check import check
from tunesvc.space.search_space import Space
from tunesvc.spec import ParamValue, StudySpec
from tunesvc.util.logs import get_logger

_logger = get_logger(__name__)

_TAKING = frozenset({"pause", "stop"})
"""Requests that may take a study from a coordinator without a heartbeat."""
_OF_ALL_STUDIES = frozenset({"stop", "stop_trial"})
"""Requests that a study made through Optuna's API supports too."""


OnRecord = Callable[[Any, int], None]
"""Called with connection and command id in the transaction that records a request."""


def request(
    database: Database,
    study_id: int,
    kind: str,
    payload: Mapping[str, Any],
    asked_by: str,
    *,
    on_record: OnRecord = lambda connection, command_id: None,
) -> str:
    """Send a request to a study; return its answer, a sentence.

    Raises:
        StudyNotFound: it was deleted meanwhile.
        SpecError: the request makes no sense for this study.
        StudyWithoutSpec: no coordinator runs the study. Only its running trials can be stopped.
    """
    record = _record(database, study_id)
    if record.spec is None and kind in _OF_ALL_STUDIES:
        return _fail_running(database, record, kind, payload, asked_by, on_record)
    perform(Command(0, kind, payload, asked_by), IdleStudy(database, record))
    _logger.info("%s, requested by %s", kind, asked_by, extra={"study": record.name})
    with database.engine.begin() as connection:
        command_id = study_records.request(
            connection,
            record.study_id,
            kind,
            payload,
            asked_by,
        )
        on_record(connection, command_id)
    command = Command(command_id, kind, payload, asked_by)
    holder = runner(
        database,
        record.study_id,
        timeout_s=None if kind in _TAKING else 0.0,
    )
    if holder is not None:
        return f"{kind} {record.name}: the coordinator {holder.owner} carries it out"
    try:
        return _apply_when_idle(database, record, command)
    except StudyBusy:
        return f"{kind} {record.name}: the coordinator that has just come back carries it out"


def _fail_running(
    database: Database,
    record: StudyRecord,
    kind: str,
    payload: Mapping[str, Any],
    asked_by: str,
    on_record: OnRecord,
) -> str:
    """Fail one or all running trials of an Optuna study, whose process may be gone."""
    with database.engine.begin() as connection:
        failed = study_records.fail_running(
            connection,
            record.study_id,
            payload.get("number"),
        )
        if not failed and "number" in payload:
            raise SpecError(f"trial {payload['number']} of {record.name} does not run")
        if not failed:
            raise SpecError(f"no trial of {record.name} runs")
        answer = f"failed: {', '.join(map(str, failed))}"
        command_id = study_records.request(
            connection,
            record.study_id,
            kind,
            payload,
            asked_by,
            answer=answer,
        )
        on_record(connection, command_id)
    consequence = "a process that still runs such a trial cannot tell its result any more"
    return f"{record.name}: {answer}; {consequence}"


def remove(database: Database, study_id: int, asked_by: str) -> str:
    """Delete a study with its trials, logs and checkpoints, and end attempts of a dead coordinator.

    The deletion is recorded with its user. Returns a sentence for the user.

    Raises:
        StudyBusy: a coordinator runs it.
    """
    record = _record(database, study_id)
    if holder := runner(database, record.study_id):
        raise StudyBusy(lease.busy_message(holder.owner))
    is_abandoned = _has_abandoned_lease(database, record)
    # The lease is deleted with the study, so it need not be released.
    study_writer = StudyWriter.open(database, record.study_id)
    left = (
        end_workers(
            database,
            record,
            study_writer.token,
            ray_executor,
        )
        if is_abandoned
        else ""
    )
    # A large study takes long.
    with database.long_transaction() as connection:
        study_records.remove(connection, record.study_id, asked_by)
    if problem := delete_checkpoints(record):
        left += f"; its checkpoints are still there: {problem}"
    _logger.warning("deleted by %s", asked_by, extra={"study": record.name})
    return f"deleted {record.name}{left}"


def prioritize(database: Database, study_id: int, priority: Priority, asked_by: str) -> None:
    """Give a submitted study another priority in the queue.

    Raises:
        SpecError: servers do not run this study.
    """
    with database.engine.begin() as connection:
        if not submissions.set_priority(connection, study_id, priority):
            raise SpecError("only a submitted study has a priority: `tune run` runs this one")
        payload = {"priority": priority}
        study_records.request(connection, study_id, "priority", payload, asked_by, answer="")
    _logger.info("priority %s, requested by %s", priority, asked_by)


def tag(
    database: Database,
    study_id: int,
    number: int | None,
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    asked_by: str,
) -> tuple[str, ...]:
    """Add and remove tags of the trial `number`, or of the study; return the new tags.

    Raises:
        SpecError: a tag that cannot be stored, or too many.
        StudyNotFound: there is no such trial.
    """
    with database.engine.begin() as connection:
        return study_annotations.tag(
            connection,
            study_id,
            number,
            add=add,
            remove=remove,
            asked_by=asked_by,
        )


def note(
    database: Database,
    study_id: int,
    number: int | None,
    text: str,
    *,
    asked_by: str,
) -> None:
    """Replace the note of the trial `number`, or of the study.

    Raises:
        SpecError: it cannot be stored, or is too long.
        StudyNotFound: there is no such trial.
    """
    with database.engine.begin() as connection:
        study_annotations.note(connection, study_id, number, text, asked_by=asked_by)


def _record(database: Database, study_id: int) -> StudyRecord:
    with database.engine.connect() as connection:
        return study_records.get(connection, study_id)


def _apply_when_idle(database: Database, record: StudyRecord, command: Command) -> str:
    """Carry out a command that needs no coordinator; leave any other pending for the next one."""
    is_abandoned = _has_abandoned_lease(database, record)
    if is_abandoned and command.kind not in _TAKING:
        return f"{command.kind} {record.name}: {_WAITS}"
    study_writer = StudyWriter.open(database, record.study_id)
    try:
        study = IdleStudy(database, _record(database, record.study_id))
        answer = carry_out(command, study)
        if study.needs_coordinator:
            return f"{command.kind} {record.name}: {_WAITS}"
        study.changes.answered[command.command_id] = answer
        study_writer.commit(study.changes)
        if is_abandoned and study.changes.study_state == (StudyState.STOPPED, _BY_REQUEST):
            answer += end_workers(database, record, study_writer.token, ray_executor)
    finally:
        study_writer.release()
    if study.is_queued_by(command.kind):
        with database.engine.begin() as connection:
            submissions.requeue(connection, record.study_id)
    return _with_remedy(answer or _DONE[command.kind], command, record, study)


def _with_remedy(
    answer: str,
    command: Command,
    record: StudyRecord,
    study: IdleStudy,
) -> str:
    """Add the command that continues the study to an answer that only affects the next run."""
    if command.kind not in _FOR_THE_NEXT_RUN:
        return answer
    if command.kind == "extend" and is_exhausted(study.spec, study.trials):
        widen = f"`tune widen {shlex.quote(record.name)}`"
        return f"{answer}, but all configurations have been tried: {widen} allows more"
    search = study.spec.search
    if command.kind == "extend" and search is not None and record.reason == search.end_reason:
        longer = "a new study with larger `steps`, or `tune best --schedule`, trains longer"
        return f"{answer}, but {search.end_reason}: {longer}"
    if study.is_queued_by(command.kind):
        return f"{answer}; {_QUEUED}"
    return f"{answer}; `{study.spec.resume_command}` continues it"


def _has_abandoned_lease(database: Database, record: StudyRecord) -> bool:
    """Return True if the study's last coordinator died without releasing its lease."""
    with database.engine.connect() as connection:
        last = lease.holder(connection, record.study_id)
    return last is not None and not last.released


class IdleStudy:
    """A study without coordinator, as a `ControllableStudy`; collects changes to commit.

    Raises:
        StudyWithoutSpec: no coordinator runs the study.
    """

    def __init__(self, database: Database, record: StudyRecord) -> None:
        if record.spec is None:
            consequence = "its trials are made there too, and no coordinator runs it"
            raise StudyWithoutSpec(record.name, consequence)
        self.spec = record.spec
        self._database = database
        self._record = record
        with database.engine.connect() as connection:
            self._is_submitted = submissions.get(connection, record.study_id) is not None
        self.changes = StudyChanges()
        self.needs_coordinator = False
        """True if only a process that runs the study can carry out the command."""

    @property
    def trials(self) -> int:
        """Number of trials that count against the budget, waiting ones included."""
        with self._database.engine.connect() as connection:
            stored = study_records.trials_counted(connection, self._record.study_id)
        return stored + len(self.changes.trials)

    def trial(self, number: int) -> FrozenTrial | None:
        """Return a trial, or None when there is no such number."""
        try:
            return PgStorage(self._database).get_trial(trial_id(self._record.study_id, number))
        except KeyError:
            return None

    def pause(self) -> str:
        """Set the study's state to paused."""
        return self._set_state(StudyState.PAUSED)

    def unpause(self) -> str:
        """Return what runs the study: a server, or a command."""
        if self._is_submitted:
            return f"{self._record.name}: {_QUEUED}"
        return f"no process runs {self._record.name}; `{self.spec.resume_command}` does"

    def stop(self) -> str:
        """Set the study's state to stopped, and end trials without a live attempt."""
        answer = self._set_state(StudyState.STOPPED)
        if self.changes.study_state is not None:
            with self._database.engine.connect() as connection:
                unfinished = recovery.unfinished_trials(connection, self._record.study_id)
            for trial in unfinished:
                if all(attempt.state.is_terminal for attempt in trial.attempts):
                    points = {step: value for step, value, _ in trial.reports if value is not None}
                    self._end(trial.number, points, StopCause.STUDY_STOPPED, _BY_REQUEST)
        return answer

    def is_queued_by(self, kind: str) -> bool:
        """Return True if a server runs the study after such a command."""
        is_paused = self._record.state is StudyState.PAUSED
        return self._is_submitted and (kind == "resume" or (kind in _QUEUEING and not is_paused))

    def change_spec(self, spec: StudySpec) -> None:
        """Store another spec for the next run."""
        self.changes.spec = spec.model_dump_json()

    def widen(self, spec: StudySpec, decision: Decision) -> None:
        """Store a wider space for the next run."""
        check(spec)
        self.change_spec(spec)
        self.changes.decisions.append(decision)

    def enqueue(self, params: Mapping[str, ParamValue], origin: str) -> int:
        """Add a trial that the next run starts first; return its number."""
        if self.spec.parameters:
            params = Space(self.spec.parameters).checked(params)
        with self._database.engine.connect() as connection:
            number = study_records.next_number(connection, self._record.study_id)
        self.changes.trials.append(NewTrial(number, "waiting"))
        attrs = queued(params, origin)
        for name, value in attrs.items():
            self.changes.attrs.append(Attr(number, "system", name, json.dumps(value)))
        return number

    def stop_trial(self, number: int, reason: str) -> str:
        """End a trial without a live attempt, with its reports; another one needs a coordinator."""
        trial = self.trial(number)
        at = trial_id(self._record.study_id, number)
        with self._database.engine.connect() as connection:
            self.needs_coordinator = recovery.has_live_attempt(connection, at)
        if trial is None or self.needs_coordinator:
            return ""
        if trial.state == TrialState.WAITING:
            self.changes.decisions.append(Decision(number, "stop", reason, {}))
            self.changes.finished.append(TrialEnd(number, "fail", None))
            return f"trial {number} had not been started, and never will be"
        state = self._end(number, trial.intermediate_values, StopCause.TRIAL_STOPPED, reason)
        how = "with what it has reported" if state == "pruned" else "without a report"
        return f"trial {number} ends, {how}"

    def _end(
        self,
        number: int,
        points: Mapping[int, float],
        cause: StopCause,
        reason: str,
    ) -> str:
        """End a trial between two attempts, with its reports; return its state."""
        goals = {metric.name: metric.goal for metric in self.spec.metrics}
        curve = MetricTracker(goals, values={} if self.spec.is_stepwise else None)
        for step, value in points.items():
            curve.add(step, {self.spec.metrics[0].name: value})
        end = conclude(self.spec, curve, StoppedEarly(), cause, reason)
        state = "pruned" if end.trial_state is TrialState.PRUNED else "fail"
        self.changes.decisions.append(Decision(number, "stop", reason, {}))
        values = None if end.values is None else list(end.values)
        self.changes.finished.append(TrialEnd(number, state, values))
        return state

    def _set_state(self, state: StudyState) -> str:
        if self._record.state.is_terminal:
            return f"{self._record.name} is {self._record.state} already ({self._record.reason})"
        self.changes.study_state = (state, _BY_REQUEST)
        return f"{state}; no coordinator was running it"


_BY_REQUEST = "by request"
_DONE = {"extend": "extended", "parallelism": "changed", "stop_trial": "done"}
_FOR_THE_NEXT_RUN = frozenset({"extend", "parallelism", "widen", "enqueue", "retry"})
_QUEUEING = frozenset({"extend", "enqueue", "retry"})
_QUEUED = "queued, and a server runs it"
_WAITS = "it waits for the next run, or for its coordinator to come back"
