"""An agent: takes launches of one study from a server, and runs them on this machine.

Its main thread polls the server: a poll is the heartbeat of all leases, and its answer brings
launches, requests to stop and answers. Each slot has a thread, which runs one attempt at a time in
a worker's process. Imports no Ray, and opens no port.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from tunesvc.data.prepared_data import PreparedData, part_path
from tunesvc.db.agents.agent_messages import AgentJob, AgentOrders, AgentPoll, LeasedLaunch
from tunesvc.errors import LeaseRefused, ServerAway, TuneError, UnsatisfiableRequest
from tunesvc.execution.agents import wire
from tunesvc.execution.agents.agent_server import AgentServer
from tunesvc.execution.agents.agent_slot import AgentSlot, devices_of_slots
from tunesvc.execution.agents.launch_runner import Backoff, LaunchRunner
from tunesvc.execution.executor import Job
from tunesvc.execution.supervision import scratch
from tunesvc.util.clock import SystemClock

T = TypeVar("T")

WAIT_S = 10.0
"""Longest wait of a poll for something new; a third of a lease at most."""
END_S = 10.0
"""Time to send the last events when the agent ends."""
_DONE = ("finished", "stopped", "failed")


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """Offer of an agent, and the conditions of its end."""

    name: str
    cpus: float
    gpus: tuple[str, ...] = ()
    """Named as in `CUDA_VISIBLE_DEVICES`."""
    folder: Path | None = None
    """The study's folder; None for the snapshot that it was submitted with."""
    once: bool = False
    """End after one trial."""
    max_idle_s: float | None = None
    """End after so long without a trial."""
    allows_functions: bool = False
    """Run objectives that travel as pickled functions."""


class Agent:
    """Runs attempts until it is asked to end, or there is no more to do."""

    def __init__(
        self,
        server: AgentServer,
        options: AgentOptions,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare the agent; `say` gets a line for each thing that happens."""
        self._server = server
        self._options = options
        self._say = say
        self._clock = SystemClock()
        self._home = scratch.make("agent")
        self._job: Job | None = None
        self._digest = ""
        self._lease_s = 0.0
        self._slots: list[AgentSlot] = []
        self._launches: queue.SimpleQueue[LaunchRunner] = queue.SimpleQueue()
        self._held: dict[int, LaunchRunner] = {}
        self._lock = threading.Lock()
        self._is_ending = threading.Event()
        self._reason = ""
        self._misfit = ""
        self._takes = True
        self._busy_s = self._clock.now()
        """Time at which it last had a trial."""
        self.attempts = 0
        """Number of attempts begun."""

    def run(self) -> str:
        """Serve the study; return why the agent has ended.

        Raises:
            TuneError: the study cannot be run here, or the server refuses this agent.
        """
        agent_id = self._retry(
            lambda: self._server.register(self._options.name, self._total()),
        )
        try:
            self._say("waits for trials")
            while not self._is_ending.is_set():
                self._step(agent_id)
        except LeaseRefused as error:
            self._reason = str(error)
            self._drop_all()
        except ServerAway:
            self._drop_all()
        finally:
            self._finish(agent_id)
        if self._misfit:
            raise TuneError(f"no trial of {self.job.study!r} can run here: {self._misfit}")
        return self._reason

    def end(self, reason: str) -> None:
        """Ask the agent to end, and its attempts with it. Any thread or signal may call this."""
        self._reason = self._reason or reason
        self._is_ending.set()

    # --- polls ----------------------------------------------------------------------------------

    def _step(self, agent_id: int) -> None:
        poll = self._poll()
        wait_s = min(WAIT_S, self._lease_s / 3) if self._lease_s else WAIT_S
        if self._options.max_idle_s is not None:
            wait_s = min(wait_s, max(0.2, self._options.max_idle_s / 2))
        orders = self._retry(lambda: self._interruptible(agent_id, poll, wait_s))
        if orders is not None:
            self._obey(orders)

    def _interruptible(self, agent_id: int, poll: AgentPoll, wait_s: float) -> AgentOrders | None:
        """Poll in another thread, so that a signal ends the agent at once."""
        answers: queue.SimpleQueue[AgentOrders | Exception] = queue.SimpleQueue()

        def call() -> None:
            try:
                answers.put(self._server.poll(agent_id, poll, wait_s))
            except Exception as error:  # noqa: BLE001  # raised below
                answers.put(error)

        threading.Thread(target=call, name="agent-poll", daemon=True).start()
        while not self._is_ending.is_set():
            try:
                answer = answers.get(timeout=0.1)
            except queue.Empty:
                continue
            if isinstance(answer, Exception):
                raise answer
            return answer
        return None

    def _poll(self) -> AgentPoll:
        with self._lock:
            held = tuple(runner.held for runner in self._held.values())
        return AgentPoll(len(self._slots), self._takes, self._digest, held)

    def _obey(self, orders: AgentOrders) -> None:
        if orders.job is not None:
            self._set_job(orders.job)
        for status in orders.held:
            if runner := self._held.get(status.token):
                runner.update(status)
        for token in orders.lost:
            if runner := self._held.get(token):
                self._say(f"trial {runner.number}: its lease was lost, so it is dropped")
                runner.drop()
        for leased in orders.launches:
            self._accept(leased)
        self._end_if_done(orders.state)

    def _accept(self, leased: LeasedLaunch) -> None:
        runner = LaunchRunner(self._server, leased, self._home / "checkpoints")
        with self._lock:
            self._held[leased.token] = runner
        self.attempts += 1
        self._takes = not self._options.once
        self._launches.put(runner)

    def _end_if_done(self, state: str) -> None:
        now = self._clock.now()
        if self._held:
            self._busy_s = now
            return
        if state in _DONE:
            self.end(f"the study is {state}")
        elif not self._takes:
            self.end("it has run one trial")
        elif self._options.max_idle_s is not None:
            idle_s = now - self._busy_s
            if idle_s >= self._options.max_idle_s:
                self.end(f"there was no trial for {idle_s:.0f} s")

    # --- slots ----------------------------------------------------------------------------------

    def _set_job(self, message: AgentJob) -> None:
        job = wire.load_job(message.job)
        if job.function is not None and not self._options.allows_functions:
            raise TuneError(
                f"the objective of {job.study!r} is a pickled function, which could do anything:"
                " `--allow-functions` runs it if you trust the people who may submit it"
            )
        if job.entrypoint is None and job.command is None and job.function is None:
            raise TuneError(
                f"study {job.study!r} names no `entrypoint` or `command`: "
                "its trials are asked for over HTTP, not run by agents"
            )
        folder = self._folder(message, job)
        if job.data is not None:
            self._bring(job.data)
        self._job = replace(
            job,
            checkpoint_root=str(self._home / "checkpoints"),
            source=str(folder),
        )
        self._digest, self._lease_s = message.digest, message.lease_s
        if not self._slots:
            self._start_slots(job, folder)

    def _folder(self, message: AgentJob, job: Job) -> Path:
        """Return the study's folder on this machine."""
        if self._options.folder is not None:
            return self._options.folder.resolve()
        if job.function is not None:
            return self._home
        if message.snapshot is None:
            raise TuneError(
                f"study {job.study!r} was not submitted with its folder:"
                " say where it lies here, `--folder DIR`"
            )
        folder = self._home / "snapshot"
        if not folder.exists():
            digest = message.snapshot
            self._retry(lambda: self._server.snapshot(digest, folder))
        return folder

    def _bring(self, prepared: PreparedData) -> None:
        """Copy the study's data to this machine, where it stays for later agents."""
        for name, digest in prepared.parts.items():
            path = part_path(prepared.folder, name)
            if not path.exists():
                self._say(f"copies the study's data: {name}")
                self._retry(partial(self._server.data, digest, path))

    def _start_slots(self, job: Job, folder: Path) -> None:
        devices = devices_of_slots(job.resources, self._options.cpus, self._options.gpus)
        if self._options.once:
            devices = devices[:1]
        if not devices:
            needs = f"{job.resources.cpu:g} CPU and {job.resources.gpu:g} GPU"
            has = f"{self._options.cpus:g} CPU and {len(self._options.gpus)} GPU"
            raise UnsatisfiableRequest(
                f"a trial of {job.study!r} needs {needs}, and this agent has {has}: "
                "give it more with `--cpus` and `--gpus`"
            )
        for number, names in enumerate(devices):
            slot = AgentSlot(self, number, names)
            self._slots.append(slot)
            slot.start()
        noun = "trial" if len(devices) == 1 else "trials"
        self._say(f"runs {len(devices)} {noun} at a time in {folder}")

    # --- from the slots -------------------------------------------------------------------------

    @property
    def job(self) -> Job:
        """The job of the study, with this machine's folders."""
        if self._job is None:
            raise AssertionError("launches follow the job")
        return self._job

    @property
    def name(self) -> str:
        """Its name at the server."""
        return self._options.name

    @property
    def home(self) -> Path:
        """Folder for its files, which is removed at its end, even if it is killed."""
        return self._home

    def next_launch(self) -> LaunchRunner | None:
        """Wait a little for a launch; for slots."""
        try:
            return self._launches.get(timeout=0.2)
        except queue.Empty:
            return None

    def on_begun(self, runner: LaunchRunner) -> None:
        """Note that a slot runs an attempt."""
        again = f", attempt {runner.id.number}" if runner.id.number > 1 else ""
        self._say(f"trial {runner.number}{again} begins")

    def on_ended(self, runner: LaunchRunner) -> None:
        """Note that a slot is free."""
        with self._lock:
            self._held.pop(runner.token, None)
        self._say(f"trial {runner.number} {runner.result}")
        if runner.misfit:
            self._misfit = runner.misfit
            self.end(runner.misfit)

    @property
    def is_ending(self) -> bool:
        """True if it takes no more launches."""
        return self._is_ending.is_set()

    # --- the end --------------------------------------------------------------------------------

    def _drop_all(self) -> None:
        self._is_ending.set()
        for runner in list(self._held.values()):
            runner.drop()

    def _finish(self, agent_id: int) -> None:
        """End all attempts as preempted, send that, and clean up."""
        self._is_ending.set()
        self._reason = self._reason or "it failed"
        for runner in list(self._held.values()):
            runner.lose(f"its agent {self._options.name} ended: {self._reason}", "preempted")
        deadline_s = self._clock.now() + END_S
        for slot in self._slots:
            slot.join(max(0.1, deadline_s - self._clock.now()))
        for runner in list(self._held.values()):
            runner.drop()
        for slot in self._slots:
            slot.join(1.0)
        ended = threading.Thread(target=self._say_goodbye, args=(agent_id,), daemon=True)
        ended.start()
        ended.join(max(1.0, deadline_s - self._clock.now()))
        scratch.remove(self._home)

    def _say_goodbye(self, agent_id: int) -> None:
        try:
            self._server.end(agent_id, self._reason)
        except TuneError:
            return  # its leases run out

    def _total(self) -> Mapping[str, float]:
        return {"CPU": self._options.cpus, "GPU": float(len(self._options.gpus))}

    def _retry(self, call: Callable[[], T]) -> T:
        backoff = Backoff()
        while True:
            try:
                return call()
            except ServerAway as error:
                if self._is_ending.is_set():
                    raise
                self._say(f"{error}; trying again")
                self._is_ending.wait(backoff.next_s())
