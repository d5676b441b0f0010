"""One attempt as its objective sees it: parameters, reports, questions and the request to stop.

Lives in the process that runs the objective: the worker itself, or a child process of it. Knows
nothing of how objectives are called, and imports no Ray.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tunesvc.data.trial_data import TrialData, open_data
from tunesvc.errors import ArtifactStoreError, BadReport, Pruned
from tunesvc.execution.attempt import asyncio_loop
from tunesvc.execution.attempt.checkpoint_places import open_checkpoints
from tunesvc.execution.attempt.checkpoints import step_of
from tunesvc.execution.attempt.child_processes import ChildProcesses, leave
from tunesvc.execution.attempt.failures import CheckpointGone, outcome_of
from tunesvc.execution.attempt.stretch_progress import StretchProgress
from tunesvc.execution.executor import (
    STUDY,
    AttrSet,
    Block,
    Checkpointed,
    Failed,
    Finished,
    Job,
    Launch,
    Outcome,
    OutputLogged,
    Payload,
    Reported,
    StoppedEarly,
    StudyRequested,
    SuggestRequested,
)
from tunesvc.execution.gang.gang_channel import GangData, GangState, open_channel
from tunesvc.execution.gang.gang_errors import loss_in
from tunesvc.execution.gang.gang_home import GangHome
from tunesvc.execution.gang.gang_log import GangLog
from tunesvc.execution.supervision import scratch
from tunesvc.instrumentation import event_log, failpoints
from tunesvc.spec import ParamValue
from tunesvc.subprocess_trial import PipeChannel
from tunesvc.trial import AssignedResources, RestoredState, Trial

_POLL_S = 0.005
_STOP_S = 0.02
"""Time between the confirmation of a report and a request to stop that was decided by it."""

Run = Callable[["Attempt"], Mapping[str, float]]
"""Runs the objective for an attempt and returns the final metrics."""


class EventSink(Protocol):
    """Receives the events of an attempt. See `Outbox`. Any thread may call it."""

    @property
    def is_recorded(self) -> bool:
        """True if all events so far have been recorded, and decisions on them made."""
        ...

    def put(self, payload: Payload) -> None:
        """Add an event."""
        ...

    def report(self, report: Reported) -> None:
        """Add a report."""
        ...

    def log(self, stream: str, text: str, end: int = 0) -> None:
        """Add a piece of output, or a note."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Location of a worker: its node, process and devices."""

    node: str
    pid: int
    devices: tuple[str, ...] = ()
    placement_group: object = None
    node_id: str = ""
    """Ray's ID of the node."""
    spool: str = ""
    """Folder on that node that keeps the worker's output, see `spool`."""
    gang_home: GangHome | None = None
    """The worker as its gang's processes call it. None without a gang."""
    bundle_nodes: tuple[str, ...] = ()
    """Ray's IDs of the nodes of its gang's bundles."""


class Attempt:
    """One launch in this process. Implements `tunesvc.trial.Channel`."""

    def __init__(
        self,
        job: Job,
        launch: Launch,
        worker: WorkerInfo,
        events: EventSink,
        lock: threading.RLock | None = None,
        directory: Path | None = None,
    ) -> None:
        """Prepare the attempt.

        Args:
            job: the job that it belongs to.
            launch: what to run.
            worker: the worker that runs it, perhaps in a child process.
            events: receives its events.
            lock: a lock that its answers share with `events`.
            directory: its scratch folder. None means that it is made on first use.
        """
        self.job = job
        self.launch = launch
        self.worker = worker
        self.events = events
        self.gang_log = GangLog(events.log)
        self._restored: Path | None = None
        self._checkpoints = open_checkpoints(
            job,
            launch.trial_number,
            launch.attempt.number,
            start=launch.checkpoint,
            directory=lambda: self.directory,
            note=lambda text: self.events.log("stderr", text),
        )
        self._stretch = StretchProgress(launch.stretch)
        self._directory = directory
        self._pid = os.getpid()
        self._children: ChildProcesses | None = None
        self._stop = threading.Event()
        self._stop_was_seen = False
        self._answers: dict[str, ParamValue | bytes] = {}
        self._answered = threading.Condition(lock)
        self._question: SuggestRequested | StudyRequested | None = None
        self._block: Block | None = None

    # --- from the worker --------------------------------------------------------------------------

    @property
    def is_asking(self) -> bool:
        """True while the objective waits for an answer."""
        return self._question is not None

    def stop(self) -> None:
        """Ask the objective to stop at its next report."""
        self._stop.set()
        with self._answered:
            self._answered.notify_all()
            if self._children is not None:
                self._children.stop()

    def relay(self, payload: Payload) -> None:
        """Pass on an event, perhaps one of a child process that runs the objective."""
        match payload:
            case Reported():
                self._checkpoints.note(payload.step, payload.metrics.get(self.job.metrics[0]))
                self.events.report(payload)
            case OutputLogged():
                self.events.log(payload.stream, payload.text, payload.end)
            case _:
                self.events.put(payload)

    def forget_checkpoints_before(self, recorded: str) -> None:
        """Delete checkpoints that need not be kept, now that this one is recorded."""
        stretch = self.launch.stretch
        self._checkpoints.forget_before(recorded, () if stretch is None else stretch.kept)

    def answer(self, name: str, value: ParamValue | bytes) -> None:
        """Supply the value of a parameter that `ask` waits for, or the study."""
        with self._answered:
            self._answers[name] = value
            self._answered.notify_all()

    def ask_again(self) -> None:
        """Repeat the unanswered question, if there is one."""
        with self._answered:
            question = self._question
            if question is not None and _name_of(question) not in self._answers:
                self.events.put(question)

    @property
    def restored(self) -> Path | None:
        """The checkpoint that the attempt has started from, on this machine."""
        return self._restored

    # --- from the objective: the channel ----------------------------------------------------------

    @property
    def stop_requested(self) -> bool:
        """True if the attempt was asked to stop. Reading it counts for `noticed_stop`."""
        if self._forked is not None:
            return self._forked.stop_requested
        if self._stop.is_set():
            self._stop_was_seen = True
        return self._stop_was_seen

    @property
    def noticed_stop(self) -> bool:
        """True if the objective or a child process has seen a request to stop.

        An objective that returns without having seen it has finished normally.
        """
        if self._stop_was_seen:
            return True
        return self._children is not None and self._children.noticed_stop

    @property
    def is_stepwise(self) -> bool:
        """True if folds or repeats are the trial's steps."""
        return self.job.evaluation is not None and self.job.evaluation.is_stepwise

    @property
    def is_folded(self) -> bool:
        """True if the trial's data are those of a fold."""
        return self.job.evaluation is not None and self.job.evaluation.folds is not None

    def begin_block(self, block: Block) -> None:
        """Let `trial()` return the trial on this fold or repeat from now on."""
        self._block = block

    def end_block(self, block: Block, metrics: Mapping[str, float]) -> None:
        """Report the result of a fold or repeat as a step of the trial."""
        self.relay(Reported(block.step, metrics))
        self._note_report(block.step)

    def await_decision(self, timeout_s: float) -> bool:
        """Wait until all reports are recorded, and return True if a request to stop has come."""
        until_s = time.monotonic() + timeout_s
        while not self._stop.wait(_POLL_S) and time.monotonic() < until_s:
            if self.events.is_recorded:  # a request to stop follows at once
                self._stop.wait(_STOP_S)
                break
        return self.stop_requested

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Put a report into the outbox. Only the first report of a step counts.

        Raises:
            BadReport: folds or repeats are the trial's steps.
        """
        if self.is_stepwise:
            raise BadReport(_no_steps("report", self.job))
        if self._forked is not None:
            self._forked.report(step, metrics)
            return
        if not self._stretch.starts(step):
            self.stop()
            return
        self.relay(Reported(step, metrics))
        self._stretch.report(step)
        if self._stretch.is_over:
            self.stop()
        self._note_report(step)

    def _note_report(self, step: int) -> None:
        """Record for tests that a report is in the outbox."""
        event_log.record("said", attempt=self.launch.attempt, step=step)
        failpoints.reach("said")

    def checkpoint(self, path: Path, step: int | None) -> bool:
        """Copy the state, and report the copy's path once it is safe.

        Raises:
            BadReport: folds or repeats are the trial's steps.
        """
        if self.is_stepwise:
            raise BadReport(_no_steps("checkpoint", self.job))
        if self._forked is not None:
            self._forked.checkpoint(path, step)
            return False
        after = -1 if step is None else step
        self._checkpoints.keep(path, after, self._on_checkpoint)
        self._stretch.save(after)
        if self._stretch.is_over:
            self.stop()
        return self._stretch.is_over

    def _on_checkpoint(self, location: str, step: int) -> None:
        self.events.put(Checkpointed(location, step if step >= 0 else None))

    def set_user_attr(self, name: str, value: str) -> None:
        """Put an attribute of the trial into the outbox. The value is JSON."""
        if self._forked is not None:
            self._forked.set_user_attr(name, value)
            return
        self.events.put(AttrSet(name, value))

    def set_system_attr(self, name: str, value: str) -> None:
        """Put a system attribute of the trial into the outbox. The value is JSON."""
        if self._forked is not None:
            raise RuntimeError("set system attributes before the process is forked")
        self.events.put(AttrSet(name, value, "system"))

    @property
    def directory(self) -> Path:
        """The attempt's scratch folder. Created empty on first use and removed at the end."""
        if self._directory is None:
            launch = self.launch
            self._directory = scratch.make(f"{launch.trial_number}-{launch.attempt.number}")
        return self._directory

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as a channel to this attempt: a pipe, or in a gang calls through Ray."""
        pipe = self.open_to_children().channel
        if self.worker.gang_home is not None:
            return open_channel, (self.worker.gang_home, self.launch.attempt, pipe)
        return PipeChannel, (pipe.reports, pipe.checkpoints, pipe.directory)

    def open_to_children(self) -> ChildProcesses:
        """Open the pipe for child processes. Must happen before one of them writes to it."""
        if self._children is None and os.getpid() == self._pid:
            directory = self.directory
            with self._answered:
                self._children = self._children or ChildProcesses(
                    self.trial(),
                    directory,
                    self.job.metrics,
                )
                if self._stop.is_set():
                    self._children.stop()
        if self._children is None:
            raise RuntimeError(
                "this process was forked by other code than Python's, so its trial cannot be used",
            )
        return self._children

    @property
    def _forked(self) -> PipeChannel | None:
        """Channel to the attempt from a forked child. None in the worker itself."""
        if os.getpid() == self._pid:
            return None
        return self.open_to_children().channel

    def ask(self, name: str, distribution: str) -> ParamValue:
        """Ask the study's sampler for a parameter and wait for its value.

        Raises:
            Pruned: the attempt was asked to stop meanwhile.
        """
        question = SuggestRequested(name, distribution)
        with self._answered:
            return self._wait_for_answer(question)  # type: ignore[no-any-return]  # a scalar

    def ask_for_study(self) -> bytes:
        """Ask for the study's attributes and trials, packed by `Optimizer.packed_study`.

        Raises:
            Pruned: the attempt was asked to stop meanwhile.
        """
        with self._answered:
            self._answers.pop(STUDY, None)  # the study may have changed since
            return self._wait_for_answer(StudyRequested())  # type: ignore[no-any-return]  # bytes

    def _wait_for_answer(self, question: SuggestRequested | StudyRequested) -> Any:
        if self._forked is not None:
            raise RuntimeError(
                "ask for parameters and for the study before the process is forked",
            )
        name = _name_of(question)
        self._question = question
        self.events.put(question)
        self._answered.wait_for(lambda: name in self._answers or self.stop_requested)
        self._question = None
        if name in self._answers:
            return self._answers[name]
        raise Pruned(
            f"trial {self.launch.trial_number} was asked to stop while it waited for an answer",
        )

    def trial(self) -> Trial:
        """Return the trial object that the objective uses."""
        block = self._block or next(iter(self.launch.blocks), None)
        has_blocks = self.job.evaluation is not None and self.job.evaluation.has_blocks
        fold = block.index if block is not None and has_blocks else None
        return Trial(
            self,
            number=self.launch.trial_number,
            params=self.launch.params,
            seed=self.launch.seed if block is None else block.seed,
            attempt=self.launch.attempt.number,
            restored=self._restored_state(),
            metrics=self.job.metrics,
            resources=AssignedResources(
                self.worker.devices,
                self.worker.placement_group,
                fold,
                self._opener(fold if self.is_folded else None),
            ),
        )

    def _opener(self, fold: int | None) -> Callable[[], TrialData]:
        """Return what opens the study's data, or a fold's, in a process that has the trial."""
        if (home := self.worker.gang_home) is not None:
            return GangData(self.job.data, fold, home)
        return partial(open_data, self.job.data, fold)

    def _restored_state(self) -> RestoredState | None:
        path = self._restored
        if path is None:
            return None
        if (home := self.worker.gang_home) is not None:
            return GangState(path, step_of(path), home, self.launch.attempt)
        return RestoredState(path, step_of(path))

    # --- the objective ----------------------------------------------------------------------------

    @property
    def has_stop(self) -> bool:
        """True if the attempt was asked to stop. Does not count as noticing it."""
        return self._stop.is_set()

    def outcome(self, run: Run) -> Outcome:
        """Run the objective in this thread and return its outcome."""
        try:
            self._restore()
        except (ArtifactStoreError, CheckpointGone) as missing:
            return outcome_of(missing, stop_requested=self._stop.is_set())
        with asyncio_loop.offer_loop():
            outcome = self._outcome(run)
        error = self._children.close() if self._children is not None else None
        self._checkpoints.close()
        self.gang_log.close(self.worker.node_id)
        if error is not None and isinstance(outcome, Finished):
            return outcome_of(error, stop_requested=False)
        return outcome

    def remove_directory(self) -> None:
        """Remove the scratch folder, if it was made. The attempt has ended."""
        self._checkpoints.close()
        if self._directory is not None:
            scratch.remove(self._directory)

    def _outcome(self, run: Run) -> Outcome:
        try:
            metrics = run(self)
            is_finished = bool(metrics) or not self.noticed_stop
            outcome: Outcome = Finished(metrics) if is_finished else StoppedEarly()
        except BaseException as error:  # noqa: BLE001  # any exception of user code is an outcome
            self._leave_if_forked(error)
            return self._outcome_of(error)
        self._leave_if_forked(None)
        return outcome

    def _outcome_of(self, error: BaseException) -> Outcome:
        """Return the outcome of an exception. A gang that has lost a process is lost itself."""
        outcome = outcome_of(error, stop_requested=self._stop.is_set())
        is_error = isinstance(outcome, Failed) and outcome.kind == "error"
        if is_error and self.worker.gang_home is not None:
            return loss_in(error) or outcome
        return outcome

    def _leave_if_forked(self, error: BaseException | None) -> None:
        if os.getpid() != self._pid:
            leave(error)

    def _restore(self) -> None:
        """Make the checkpoint that the attempt starts from a file or folder on this machine.

        Raises:
            ArtifactStoreError: the store of checkpoints does not answer.
            CheckpointGone: it is gone, and the trial is a member of a population.
        """
        location = self.launch.checkpoint
        if location is None:
            return
        found = self._checkpoints.restore(location)
        is_same = found is not None and found.parent.name == Path(location).parent.name
        if not is_same and self.launch.stretch is not None:
            raise CheckpointGone(location, self.worker.node)
        if found is None:
            self._start_over(location)
        else:
            self._restored, self.launch = found, replace(self.launch, checkpoint=str(found))

    def _start_over(self, lost: str) -> None:
        """Run without a checkpoint that is gone, rather than lose the trial."""
        self._restored, self.launch = None, replace(self.launch, checkpoint=None)
        self.events.log(
            "stderr",
            f"[tunesvc: the trial starts over: "
            f"its checkpoint {lost} was not found on {self.worker.node}. It was "
            "deleted, or TUNE_CHECKPOINTS names a folder that not all nodes share]\n",
        )


def _no_steps(method: str, job: Job) -> str:
    noun = "folds" if job.evaluation is None else job.evaluation.noun
    remedy = "return the value of each" if method == "report" else "a killed trial repeats only one"
    return (
        f"trial.{method}() does not go with `evaluation`, whose {noun} are the trial's steps: "
        f"leave it out; {remedy}. (With `per_trial: 1` a trial has steps of its own)"
    )


def _name_of(question: SuggestRequested | StudyRequested) -> str:
    return question.name if isinstance(question, SuggestRequested) else STUDY
