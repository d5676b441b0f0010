"""An executor without processes: attempts run in the threads of this process that call `work`.

Objectives are generators. One advances by one report, and then waits until the report is recorded
and the coordinator, in its own thread, has decided about it. So a pruned attempt computes nothing
more, and with one slot a run is reproducible. Imports no Ray.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesvc.execution.attempt.failures import outcome_of
from tunesvc.execution.executor import (
    AttemptId,
    AttrSet,
    Capacity,
    Event,
    Finished,
    Launch,
    Lost,
    NodeInfo,
    Outcome,
    Payload,
    Reported,
    Started,
    StoppedEarly,
)
from tunesvc.spec import ParamValue
from tunesvc.trial import DetachedChannel, Trial, as_metrics

Steps = Generator[Mapping[str, float], None, object]
"""Yields metrics after each step, and returns the result."""
StepwiseObjective = Callable[..., Steps]
"""Called as `objective(config, trial=trial)`."""


@dataclass(slots=True, eq=False)
class _Execution:
    launch: Launch
    seq: int = 0
    recorded: int = 0
    """Number of the last event that is recorded."""
    is_held: bool = False
    """True while it waits for the decision about its last report."""
    is_stopped: bool = False
    is_over: bool = False


class _Attributes(DetachedChannel):
    """The trial's end of an execution: attributes are sent, reports are yielded."""

    def __init__(self, send: Callable[[Payload], None]) -> None:
        self._send = send

    def set_user_attr(self, name: str, value: str) -> None:
        """Send it."""
        self._send(AttrSet(name, value))


class InlineExecutor:
    """Runs one attempt in each thread that calls `work`. See `Executor`."""

    handover_s = 0.0

    def __init__(
        self,
        objective: StepwiseObjective,
        metrics: tuple[str, ...],
        *,
        slots: int = 1,
        raises: bool = False,
    ) -> None:
        """Prepare.

        Args:
            objective: what to run.
            metrics: names of the objectives, as in `Job`.
            slots: number of threads that will call `work`.
            raises: `work` raises an exception of the objective, which otherwise fails its trial.
        """
        self._objective = objective
        self._metrics = metrics
        self._slots = slots
        self._raises = raises
        self._host = socket.gethostname()
        self._changed = threading.Condition()
        self._waiting: OrderedDict[AttemptId, _Execution] = OrderedDict()
        self._running: dict[AttemptId, _Execution] = {}
        self._events: list[Event] = []
        self._parallelism: int | None = None
        self._is_closed = False

    # --- in the threads that run attempts ---------------------------------------------------------

    def work(self) -> None:
        """Run attempts in this thread until the executor is closed.

        Ctrl-C is raised here. Its attempt can then only be stopped or killed, and no other begins
        in this thread.
        """
        while (execution := self._begin()) is not None:
            self._run(execution)

    def _begin(self) -> _Execution | None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._may_begin)
            if self._is_closed:
                return None
            attempt, execution = self._waiting.popitem(last=False)
            self._running[attempt] = execution
            self._put(execution, Started(self._host, os.getpid()))
            return execution

    @property
    def _may_begin(self) -> bool:
        most = self._slots if self._parallelism is None else min(self._slots, self._parallelism)
        return bool(self._waiting) and len(self._running) < most

    def _run(self, execution: _Execution) -> None:
        launch = execution.launch
        channel = _Attributes(lambda payload: self._send(execution, payload))
        trial = Trial(
            channel,
            number=launch.trial_number,
            params=launch.params,
            seed=launch.seed,
            attempt=launch.attempt.number,
            metrics=self._metrics,
        )
        steps = self._objective(launch.params, trial=trial)
        step = 0
        while not execution.is_over:
            payload = StoppedEarly() if execution.is_stopped else self._advance(steps, step)
            step += 1
            self._send(execution, payload)
            self._hold(execution)
        steps.close()

    def _advance(self, steps: Steps, step: int) -> Payload:
        try:
            return Reported(step, as_metrics(next(steps), self._metrics))
        except StopIteration as end:
            return Finished(as_metrics(end.value, self._metrics))
        except Exception as error:
            if self._raises:
                raise
            return outcome_of(error, stop_requested=False)

    def _send(self, execution: _Execution, payload: Payload) -> None:
        with self._changed:
            self._put(execution, payload)

    def _hold(self, execution: _Execution) -> None:
        """Wait until the report is recorded and decided about."""
        with self._changed:
            self._changed.wait_for(
                lambda: not execution.is_held or execution.is_over or execution.is_stopped
            )

    # --- in the coordinator's thread --------------------------------------------------------------

    def capacity(self) -> Capacity:
        """Return this machine's cores."""
        cpu = float(max(os.cpu_count() or 1, self._slots))
        free = {"CPU": cpu - len(self._running)}
        node = NodeInfo(self._host, self._host, self._host, {"CPU": cpu}, free)
        return Capacity(1, cpu, 0, 0, by_node=(node,))

    def slots(self) -> int:
        """Return the number of slots."""
        return self._slots

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Lose all attempts of an earlier coordinator: they ended with its process."""
        with self._changed:
            for attempt, cursor in cursors.items():
                lost = Lost("the process that ran it has ended", "gone")
                self._events.append(Event(attempt, cursor + 1, lost))
            self._changed.notify_all()

    def heartbeats(self) -> Collection[AttemptId]:
        """Return all attempts: this process is alive."""
        with self._changed:
            return [*self._running, *self._waiting]

    def health_error(self) -> str:
        """Return no error."""
        return ""

    def launch(self, launch: Launch) -> None:
        """Queue an attempt."""
        with self._changed:
            self._waiting[launch.attempt] = _Execution(launch)
            self._parallelism = launch.parallelism
            self._changed.notify_all()

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return new events, and let attempts with recorded reports continue.

        Returns at once while an attempt is held, because nothing follows before its release.
        """
        with self._changed:
            for execution in self._running.values():
                execution.is_held &= execution.recorded < execution.seq
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._events or self._is_held, timeout_s)
            events, self._events = self._events, []
            return events

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Note which events are recorded."""
        with self._changed:
            for attempt, cursor in cursors.items():
                if execution := self._running.get(attempt):
                    execution.recorded = cursor

    def answer(self, attempt: AttemptId, name: str, value: ParamValue | bytes) -> None:
        """Do nothing: objectives get their parameters beforehand."""

    def stop(self, attempt: AttemptId) -> None:
        """End the attempt at its next report; one that waits, or that was interrupted, now."""
        self._end(attempt, StoppedEarly(), is_patient=True)

    def kill(self, attempt: AttemptId) -> None:
        """Count the attempt as lost. A step that it computes still keeps its thread busy."""
        self._end(attempt, Lost("killed"), is_patient=False)

    def limit_workers(self, most: int | None) -> None:
        """Do nothing: there are no workers."""

    def close(self) -> None:
        """End all attempts, and let `work` return."""
        for attempt in self.heartbeats():
            self.kill(attempt)
        self.leave()

    def interrupt(self) -> None:
        """Begin no more attempts, and end those that run as soon as they are asked to stop."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def leave(self) -> None:
        """Let `work` return. No attempt can outlive this process."""
        with self._changed:
            self._is_closed = True
            for execution in self._running.values():
                execution.is_stopped = True
            self._waiting.clear()
            self._changed.notify_all()

    def _end(self, attempt: AttemptId, outcome: Outcome, *, is_patient: bool) -> None:
        with self._changed:
            execution = self._waiting.pop(attempt, None)
            if execution is None and (execution := self._running.get(attempt)) is not None:
                execution.is_stopped = True
                if is_patient and not self._is_closed:
                    execution = None
            if execution is not None:
                self._put(execution, outcome)
            self._changed.notify_all()

    @property
    def _is_held(self) -> bool:
        return any(execution.is_held for execution in self._running.values())

    def _put(self, execution: _Execution, payload: Payload) -> None:
        if execution.is_over:
            return
        execution.seq += 1
        self._events.append(Event(execution.launch.attempt, execution.seq, payload))
        execution.is_held = isinstance(payload, Reported)
        if isinstance(payload, Outcome):
            execution.is_over = True
            self._running.pop(execution.launch.attempt, None)
        self._changed.notify_all()


def work_beside(executor: InlineExecutor, run: Callable[[threading.Event], Any]) -> Any:
    """Call `run` in a thread of its own and run the attempts in this one; return its result.

    Args:
        executor: the executor that `run` uses and closes.
        run: runs a study until it ends, or until the event is set.

    Raises:
        Exception: what `run` raised.
        KeyboardInterrupt: Ctrl-C was pressed; the run has ended in order.
    """
    interrupt, results, errors = threading.Event(), [], []

    def supervise() -> None:
        try:
            results.append(run(interrupt))
        except BaseException as error:  # noqa: BLE001  # raised in the calling thread
            errors.append(error)
        finally:
            executor.leave()

    thread = threading.Thread(target=supervise, name="coordinator")
    thread.start()
    try:
        executor.work()
    except BaseException:
        interrupt.set()
        executor.interrupt()
        raise
    finally:
        thread.join()
    if errors:
        raise errors[0]
    return results[0]
