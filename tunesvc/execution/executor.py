"""The Executor protocol: run attempts somewhere, and hear what they say.

An executor knows attempts, never trials or studies' rules: it is told to launch, stop or kill, and it delivers
events. Every event of an attempt bears a sequence number that grows by one; events stay in the attempt's outbox
until they are acknowledged, so each is delivered at least once. Whoever listens records it exactly once by its
number. All values here are frozen and can be pickled, so an executor may live in another process.

Imports neither Ray nor the store.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from tunesvc.execution.interpreter import Interpreter
from tunesvc.spec import Environment, ParamValue, Resources
from tunesvc.spec.model import Goal, Keep


class AttemptId(NamedTuple):
    """One execution of one trial."""

    trial_id: int
    number: int
    """1 for the first execution of the trial."""

    def __str__(self) -> str:
        return f"{self.trial_id}.{self.number}"


@dataclass(frozen=True, slots=True)
class Job:
    """What all attempts of a study have in common. Exactly one of entrypoint, command and function is set."""

    study: str
    key: str
    """Names the study's workers on a shared cluster: no other study, in whatever database, has it."""
    metrics: tuple[str, ...]
    """Names of the objectives, first the one that a bare returned number means."""
    resources: Resources
    environment: Environment
    checkpoint_root: str
    """A directory that coordinator and workers share; one folder per trial below it."""
    source: str | None = None
    """The user's directory: on the workers' import path and their working directory."""
    entrypoint: str | None = None
    command: tuple[str, ...] | None = None
    function: bytes | None = None
    """A function as `pickled_function.pickled` writes it, for the decorator."""
    interpreter: Interpreter = field(default_factory=Interpreter)
    """Of the process that started the study."""
    goals: tuple[Goal, ...] = ()
    """The goal of each of `metrics`; all are minimised when left out."""
    keep: Keep = field(default_factory=Keep)
    """Which checkpoints of each trial."""
    define_by_run: bool = False
    """Whether parameters are asked for with `trial.suggest_*` instead of handed over."""
    orphan_s: float = 3600.0
    """How long workers on a shared cluster go on when no coordinator speaks to them any more."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One attempt to run."""

    attempt: AttemptId
    trial_number: int
    params: Mapping[str, Any]
    """The trial's parameters with the study's constants, which may be any JSON."""
    seed: int
    """Differs between trials, equal between attempts of one trial."""
    checkpoint: str | None = None
    """Where an earlier attempt saved its state, or None."""
    parallelism: int | None = None
    """How many attempts of the job may run at a time from here on; None: as many as there is room for."""
    backlog_max: int = 1
    """How many may stand in each worker's line from here on, behind the one that runs."""


# --- what an attempt says ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The attempt has its resources and runs."""

    node: str
    pid: int
    devices: tuple[str, ...] = ()
    """The accelerators assigned to it, as CUDA_VISIBLE_DEVICES would name them."""
    code: str = ""
    """A digest of the objective's source as this attempt runs it; empty when it cannot be told."""


@dataclass(frozen=True, slots=True)
class Reported:
    """`trial.report(step, **metrics)`."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SuggestRequested:
    """`trial.suggest_*`: the attempt waits for `Executor.answer`."""

    name: str
    distribution: str
    """As `optuna.distributions.distribution_to_json` writes it."""


STUDY = ""
"""The name under which a `StudyRequested` is answered: no parameter has it."""


@dataclass(frozen=True, slots=True)
class StudyRequested:
    """`trial.study.trials` of an Optuna objective: the attempt waits for `Executor.answer`."""


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """`trial.checkpoint(path)`: the state after `step` is safe at `path`."""

    path: str
    step: int | None


@dataclass(frozen=True, slots=True)
class AttrSet:
    """`trial.set_user_attr(name, value)`."""

    name: str
    value: str
    """As JSON."""
    kind: Literal["user", "system"] = "user"
    """Optuna's integrations write system attributes."""


@dataclass(frozen=True, slots=True)
class OutputLogged:
    """A piece of the attempt's output."""

    stream: str
    """`stdout` or `stderr`."""
    text: str
    end: int = 0
    """Where it ends in the worker's spool; 0 for a note that is in none."""
    left_out: int = 0
    """How many characters it stands for, as a note about them."""

    @classmethod
    def gap(cls, chars: int) -> OutputLogged:
        """Return a note in place of so many characters."""
        return cls("stderr", f"\n[tunesvc: {chars:,} characters of output are left out here]\n", left_out=chars)


@dataclass(frozen=True, slots=True)
class Finished:
    """The objective came to its own end; `metrics` holds what it returned, empty when it returned nothing."""

    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoppedEarly:
    """The objective stopped early: it noticed that it was asked to, or it raised `Pruned` by itself."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The objective raised, or its program ended with an error."""

    kind: str
    """`error`, `bad_report`, `gpu_oom`, `host_oom` or `entrypoint`: what `policy` decides by."""
    message: str
    traceback: str = ""


LossKind = Literal["lost", "node", "preempted", "stalled", "gone"]
"""Its process died; its node went away; its node was taken back; it gave no sign of life; it runs nowhere, because it
never began or ended along with its coordinator, which is no fault of its own."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker is gone without a word."""

    message: str
    kind: LossKind = "lost"


Outcome = Finished | StoppedEarly | Failed | Lost
"""The last event of every attempt."""
Payload = Started | Reported | SuggestRequested | StudyRequested | Checkpointed | AttrSet | OutputLogged | Outcome


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that an attempt said."""

    attempt: AttemptId
    seq: int
    """1, 2, 3, ... within the attempt. `Lost` comes from the executor and follows the last number delivered."""
    payload: Payload


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A machine of the cluster. Amounts go by Ray's names: `CPU`, `GPU`, `memory` in bytes, and custom ones."""

    key: str
    """No other node has it, on this cluster or another."""
    address: str
    """As `Started.node` names it."""
    host: str
    total: Mapping[str, float]
    free: Mapping[str, float]
    """What nobody holds, as far as the cluster knows at the moment; absent: nothing."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a cluster has in all, whether in use or not."""

    nodes: int
    cpu: float
    gpu: float
    memory: int
    """Bytes."""
    custom: Mapping[str, float] = field(default_factory=dict)
    by_node: tuple[NodeInfo, ...] = ()
    """The same node by node."""

    def __str__(self) -> str:
        parts = [f"{self.nodes} node{'s' if self.nodes != 1 else ''}", f"{self.cpu:g} CPU", f"{self.gpu:g} GPU"]
        parts.append(f"{self.memory / 1e9:.1f} GB memory")
        parts += [f"{amount:g} {name}" for name, amount in self.custom.items()]
        return ", ".join(parts)


class Executor(Protocol):
    """Runs the attempts of one job."""

    @property
    def handover_s(self) -> float:
        """How long a worker has nothing to do when its next attempt is launched at the end of the last one."""
        ...

    def capacity(self) -> Capacity:
        """What the cluster has in all."""
        ...

    def slots(self) -> int:
        """How many attempts of this job the cluster can hold at a time, at least 1.

        Raises:
            UnsatisfiableRequest: the job's resource request can never be met; the text names what there is.
        """
        ...

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Act under a fencing token from here on, and go on with attempts that an earlier coordinator launched.

        Called once, before anything is launched; returns at once. Events above the given sequence numbers follow, a
        question that is still open among them, and `Lost` for an attempt that runs nowhere any more. Whatever else of
        this job still runs is ended: it was given up by a coordinator that did not live to kill it. Workers refuse
        whoever comes with a lower token than they have seen.
        """
        ...

    def heartbeats(self) -> Collection[AttemptId]:
        """The attempts that gave a sign of life since the last call, those that wait for their resources included."""
        ...

    def health_error(self) -> str:
        """Why nothing can be launched or heard at the moment, in a sentence; empty when all is well."""
        ...

    def launch(self, launch: Launch) -> None:
        """Start an attempt as soon as its resources are free; returns at once.

        While as many run as may, it waits for one of them to end, if it can be in the worker, which then begins it
        without being told. No more than `parallelism` ever run, and attempts begin about in order.
        """
        ...

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Events not delivered yet, in order per attempt; waits up to `timeout_s` for the first."""
        ...

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Everything up to these sequence numbers is recorded for good and may be forgotten."""
        ...

    def answer(self, attempt: AttemptId, name: str, value: ParamValue | bytes) -> None:
        """The value that an `SuggestRequested` waits for, or the study that a `StudyRequested` does."""
        ...

    def stop(self, attempt: AttemptId) -> None:
        """Ask the attempt to stop at its next report. It may finish, yield or ignore this."""
        ...

    def kill(self, attempt: AttemptId) -> None:
        """End the attempt's process; a `Lost` event follows unless an outcome was delivered. Repeatable."""
        ...

    def close(self) -> None:
        """End everything that still runs and free what the executor holds. Repeatable."""
        ...

    def leave(self) -> None:
        """Free what the executor holds, but let attempts that can outlive it run on for the next coordinator."""
        ...
