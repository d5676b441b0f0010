"""What somebody may ask of a study, whichever face they ask through. Given an open database and who asks.

| kind | payload | on a study that nobody runs |
|---|---|---|
| `pause`, `stop` | | its state changes at once; `stop` ends workers that train on without a coordinator |
| `resume` | | nothing: only a process can run a study |
| `extend` | `trials`, `wall`, `gpu_hours`: by how much | its spec changes at once |
| `parallelism` | `trials`: a number, or None for as many as fit | its spec changes at once |
| `widen` | `parameters`: by name `min`, `max`, or `values` to add | its spec changes at once |
| `enqueue` | `params` and `origin`, or `near`: the number of a trial | the trial waits for the next run |
| `retry` | `number` of a trial that is over | the trial waits for the next run |
| `stop_trial` | `number` of a trial that is not over | the trial ends at once |

Every request is recorded with who asked, when and what came of it. It is tried on what is stored first, so that what
makes no sense is refused at once, and not recorded. A study that somebody runs is then left to its coordinator. One
that nobody runs is taken for a moment, and the request carried out and recorded in one transaction: once. Only a pause
and a stop take a study from a coordinator that has fallen silent; anything else waits for it, or for the next one.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from tunesvc.coordinator.attempt_state.attempt_results import conclude
from tunesvc.coordinator.attempt_state.live_attempts import MetricTracker
from tunesvc.coordinator.commands import carry_out, perform
from tunesvc.db import lease, recovery, study_annotations, study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_changes import StudyChanges
from tunesvc.db.study_records import Command, StudyRecord
from tunesvc.db.study_writer import StudyWriter
from tunesvc.db.trial_changes import Attr, Decision, NewTrial, TrialEnd
from tunesvc.errors import SpecError, StudyBusy, TuneError
from tunesvc.execution.driver.ray_pool import ray_executor
from tunesvc.execution.executor import StoppedEarly
from tunesvc.policy import StopCause
from tunesvc.runtime.run_study import checkpoint_folder, end_workers
from tunesvc.runtime.takeover import runner
from tunesvc.search.exhaustion import is_exhausted
from tunesvc.search.optimizer import queued
from tunesvc.search.registry.component_check import check
from tunesvc.space.search_space import Space
from tunesvc.spec import ParamValue, StudySpec

_TAKING = frozenset({"pause", "stop"})
"""What may take a study from a coordinator that has fallen silent."""
_OF_ALL_STUDIES = frozenset({"stop", "stop_trial"})
"""What a study that was made through Optuna's API knows too."""


def request(database: Database, study_id: int, kind: str, payload: Mapping[str, Any], who: str) -> str:
    """Ask something of a study; returns what came of it, in a sentence.

    Raises:
        StudyNotFound: it was deleted meanwhile.
        SpecError: it makes no sense for this study.
        TuneError: the study was made through Optuna's API, so that no coordinator runs it. Its running
            trials can be stopped all the same.
    """
    record = _record(database, study_id)
    if record.spec is None and kind in _OF_ALL_STUDIES:
        return _fail_running(database, record, kind, payload, who)
    perform(Command(0, kind, payload, who), IdleStudy(database, record))
    with database.engine.begin() as connection:
        command = Command(study_records.request(connection, record.study_id, kind, payload, who), kind, payload, who)
    held = runner(database, record.study_id, patience_s=None if kind in _TAKING else 0.0)
    if held is not None:
        return f"{kind} {record.name}: the coordinator {held.owner} carries it out"
    try:
        return _apply_when_idle(database, record, command)
    except StudyBusy:
        return f"{kind} {record.name}: the coordinator that has just come back carries it out"


def _fail_running(database: Database, record: StudyRecord, kind: str, payload: Mapping[str, Any], who: str) -> str:
    """Fail running trials of a study of Optuna's, whose process may be gone: one, or all of them."""
    with database.engine.begin() as connection:
        failed = study_records.fail_running(connection, record.study_id, payload.get("number"))
        if not failed:
            which = f"trial {payload['number']}" if "number" in payload else "no trial"
            runs = "does not run" if "number" in payload else "runs"
            raise SpecError(f"{which} of {record.name} {runs}")
        answer = f"failed: {', '.join(map(str, failed))}"
        study_records.request(connection, record.study_id, kind, payload, who, answer=answer)
    return f"{record.name}: {answer}; a process that still runs such a trial cannot tell its result any more"


def remove(database: Database, study_id: int, who: str) -> str:
    """Delete a study with its trials, logs and checkpoints, and end what a coordinator that is gone left running.

    That it was there, and who deleted it, is kept. Returns what was done.

    Raises:
        StudyBusy: somebody runs it.
    """
    record = _record(database, study_id)
    if held := runner(database, record.study_id):
        raise StudyBusy(lease.busy_message(held.owner))
    is_left = _has_abandoned_lease(database, record)
    ledger = StudyWriter.open(database, record.study_id)  # it goes with the study
    left = end_workers(record, ledger.token, ray_executor) if is_left else ""
    with database.long_transaction() as connection:  # a large study takes its time
        study_records.remove(connection, record.study_id, who)
    shutil.rmtree(checkpoint_folder(record), ignore_errors=True)
    return f"deleted {record.name}{left}"


def tag(
    database: Database,
    study_id: int,
    number: int | None,
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    who: str,
) -> tuple[str, ...]:
    """Add and take away tags, of the trial `number` or of the study; returns those that it has now.

    Raises:
        SpecError: a tag that cannot be stored, or too many.
        StudyNotFound: there is no such trial.
    """
    with database.engine.begin() as connection:
        return study_annotations.tag(connection, study_id, number, add=add, remove=remove, asked_by=who)


def note(database: Database, study_id: int, number: int | None, text: str, *, who: str) -> None:
    """Write the note of the trial `number`, or of the study, in the place of the one before.

    Raises:
        SpecError: it cannot be stored, or is too long.
        StudyNotFound: there is no such trial.
    """
    with database.engine.begin() as connection:
        study_annotations.note(connection, study_id, number, text, asked_by=who)


def _record(database: Database, study_id: int) -> StudyRecord:
    with database.engine.connect() as connection:
        return study_records.get(connection, study_id)


def _apply_when_idle(database: Database, record: StudyRecord, command: Command) -> str:
    """Carry out what does not need a running coordinator; what does, stays for the next one."""
    is_left = _has_abandoned_lease(database, record)
    if is_left and command.kind not in _TAKING:
        return f"{command.kind} {record.name}: {_WAITS}"
    ledger = StudyWriter.open(database, record.study_id)
    try:
        shelved = IdleStudy(database, _record(database, record.study_id))
        answer = carry_out(command, shelved)
        if shelved.waits:
            return f"{command.kind} {record.name}: {_WAITS}"
        shelved.batch.answered[command.command_id] = answer
        ledger.commit(shelved.batch)
        if is_left and shelved.batch.study_state == (StudyState.STOPPED, _BY_REQUEST):
            answer += end_workers(record, ledger.token, ray_executor)
    finally:
        ledger.release()
    told = answer or _DONE[command.kind]
    if command.kind not in _FOR_THE_NEXT_RUN:
        return told
    if command.kind == "extend" and is_exhausted(shelved.spec, shelved.trials):
        return f"{told}, but all configurations have been tried: `tune widen {shlex.quote(record.name)}` allows more"
    return f"{told}; `{shelved.spec.resume_command}` continues it"


def _has_abandoned_lease(database: Database, record: StudyRecord) -> bool:
    """Whether the study's last coordinator went without giving the lease back."""
    with database.engine.connect() as connection:
        last = lease.holder(connection, record.study_id)
    return last is not None and not last.released


class IdleStudy:
    """A study that nobody runs, as commands see it (`Steerable`). What they change collects in `batch`.

    Raises:
        TuneError: it was made through Optuna's API.
    """

    def __init__(self, database: Database, record: StudyRecord) -> None:
        if record.spec is None:
            raise TuneError(_OPTUNAS.format(record.name))
        self.spec = record.spec
        self._database = database
        self._record = record
        self.batch = StudyChanges()
        self.waits = False
        """Whether what was asked can only be done by somebody who runs the study."""

    @property
    def trials(self) -> int:
        """Trials that count against the budget, those that wait included."""
        with self._database.engine.connect() as connection:
            return study_records.trials_counted(connection, self._record.study_id) + len(self.batch.trials)

    def trial(self, number: int) -> FrozenTrial | None:
        """A trial of it, or None when there is no such number."""
        try:
            return PgStorage(self._database).get_trial(trial_id(self._record.study_id, number))
        except KeyError:
            return None

    def pause(self) -> str:
        """It is paused."""
        return self._set_state(StudyState.PAUSED)

    def unpause(self) -> str:
        """Nobody runs it."""
        return f"no process runs {self._record.name}; `{self.spec.resume_command}` does"

    def stop(self) -> str:
        """It is stopped; trials that are paused, or would be run again, end."""
        told = self._set_state(StudyState.STOPPED)
        if self.batch.study_state is not None:
            with self._database.engine.connect() as connection:
                unfinished = recovery.unfinished_trials(connection, self._record.study_id)
            for trial in unfinished:
                if all(attempt.state.is_terminal for attempt in trial.attempts):
                    points = {step: value for step, value, _ in trial.reports if value is not None}
                    self._end(trial.number, points, StopCause.COMMAND, _BY_REQUEST)
        return told

    def change_spec(self, spec: StudySpec) -> None:
        """It goes on under another spec when it is run."""
        self.batch.spec = spec.model_dump_json()

    def widen(self, spec: StudySpec, decision: Decision) -> None:
        """It goes on in a wider space when it is run."""
        check(spec)
        self.change_spec(spec)
        self.batch.decisions.append(decision)

    def enqueue(self, params: Mapping[str, ParamValue], origin: str) -> int:
        """A trial with these values is asked first when it is run; returns its number."""
        if self.spec.parameters:
            params = Space(self.spec.parameters).checked(params)
        with self._database.engine.connect() as connection:
            number = study_records.next_number(connection, self._record.study_id)
        self.batch.trials.append(NewTrial(number, "waiting"))
        attrs = queued(params, origin)
        self.batch.attrs += [Attr(number, "system", name, json.dumps(value)) for name, value in attrs.items()]
        return number

    def stop_trial(self, number: int, reason: str) -> str:
        """A trial between two attempts ends with what it has reported; one that may still run somewhere waits."""
        trial = self.trial(number)
        at = trial_id(self._record.study_id, number)
        with self._database.engine.connect() as connection:
            self.waits = recovery.has_live_attempt(connection, at)
        if trial is None or self.waits:
            return ""
        if trial.state == TrialState.WAITING:
            self.batch.decisions.append(Decision(number, "stop", reason, {}))
            self.batch.finished.append(TrialEnd(number, "fail", None))
            return f"trial {number} had not been started, and never will be"
        state = self._end(number, trial.intermediate_values, StopCause.REQUEST, reason)
        return f"trial {number} ends, {'with what it has reported' if state == 'pruned' else 'without a report'}"

    def _end(self, number: int, points: Mapping[int, float], cause: StopCause, reason: str) -> str:
        """End a trial between two attempts with what it has reported; returns its state."""
        curve = MetricTracker({metric.name: metric.goal for metric in self.spec.metrics})
        for step, value in points.items():
            curve.add(step, {self.spec.metrics[0].name: value})
        end = conclude(self.spec, curve, StoppedEarly(), cause, reason)
        state = "pruned" if end.trial_state is TrialState.PRUNED else "fail"
        self.batch.decisions.append(Decision(number, "stop", reason, {}))
        self.batch.finished.append(TrialEnd(number, state, None if end.values is None else list(end.values)))
        return state

    def _set_state(self, state: StudyState) -> str:
        if self._record.state.is_terminal:
            return f"{self._record.name} is {self._record.state} already ({self._record.reason})"
        self.batch.study_state = (state, _BY_REQUEST)
        return f"{state}; no coordinator was running it"


_OPTUNAS = "study {!r} was made through Optuna's API, and its trials are made there too: no coordinator runs it"
_BY_REQUEST = "by request"
_DONE = {"extend": "extended", "parallelism": "changed", "stop_trial": "done"}
_FOR_THE_NEXT_RUN = frozenset({"extend", "parallelism", "widen", "enqueue", "retry"})
_WAITS = "it waits for the next run, or for its coordinator to come back"
