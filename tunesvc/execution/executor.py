"""The Executor protocol: run attempts somewhere and receive their events.

An executor knows attempts, not trials or the rules of studies: it launches, stops and kills them,
and delivers their events. The events of an attempt are numbered 1, 2, 3, ... They stay in the
attempt's outbox until they are acknowledged, so each event is delivered at least once, and the
receiver records it exactly once by its number. All values here are frozen and can be pickled, so an
executor may live in another process.

Imports neither Ray nor the store.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from tunesvc.data.prepared_data import PreparedData
from tunesvc.execution.interpreter import Interpreter
from tunesvc.spec import Environment, Evaluation, ParamValue, Resources
from tunesvc.spec.goals import Goal
from tunesvc.spec.sections.execution_keys import Keep


class AttemptId(NamedTuple):
    """One execution of one trial."""

    trial_id: int
    number: int
    """1 for the first execution of the trial."""

    def __str__(self) -> str:
        return f"{self.trial_id}.{self.number}"


@dataclass(frozen=True, slots=True)
class Job:
    """Settings shared by all attempts of a study.

    Exactly one of entrypoint, command and function is set.
    """

    study: str
    key: str
    """Names the study's workers on a shared cluster. Unique across studies and databases."""
    metrics: tuple[str, ...]
    """Names of the objectives.

    A bare number that the objective returns is the first one's value.
    """
    resources: Resources
    environment: Environment
    checkpoint_root: str
    """A directory that coordinator and workers share, with one folder per trial."""
    source: str | None = None
    """The user's directory: on the workers' import path and their working directory."""
    is_snapshot: bool = False
    """True if the directory is a snapshot, of which workers get every file."""
    entrypoint: str | None = None
    command: tuple[str, ...] | None = None
    function: bytes | None = None
    """A function serialized by `pickle_function`, for the decorator."""
    interpreter: Interpreter = field(default_factory=Interpreter)
    """The interpreter settings of the process that started the study."""
    goals: tuple[Goal, ...] = ()
    """The goal of each of `metrics`. If empty, all are minimised."""
    keep: Keep = field(default_factory=Keep)
    """The checkpoints to keep of each trial."""
    define_by_run: bool = False
    """True if the objective asks for its parameters with `trial.suggest_*`."""
    evaluation: Evaluation | None = None
    """Folds or repeats of a trial, and scorers."""
    data: PreparedData | None = None
    """The prepared data that trials use."""
    final: Literal["test", "apply"] | None = None
    """Set for a final run, whose value is that of the test part; `apply` also stores the model."""
    orphan_s: float = 3600.0
    """Time after which workers on a shared cluster end if no coordinator calls them."""

    @property
    def scoring(self) -> tuple[str, ...]:
        """Names of the scorers of the model that the objective returns; empty without."""
        return () if self.evaluation is None else self.evaluation.scoring


@dataclass(frozen=True, slots=True)
class Stretch:
    """The part of its training that one attempt of a member of a population runs."""

    until: int
    """The attempt ends with the first report at or after this step, once its checkpoint is
    saved."""
    is_last: bool = False
    """True if the training ends there: then a checkpoint is welcome, but not needed."""
    kept: tuple[str, ...] = ()
    """Locations of checkpoints of this trial that copies may start from."""


@dataclass(frozen=True, slots=True)
class Block:
    """One call of the objective within a trial, on a fold or with the seed of a repeat."""

    step: int
    """Step of the trial as which it is reported: 0, 1, 2, ..."""
    index: int
    """Number of the fold or repeat."""
    seed: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One attempt to run."""

    attempt: AttemptId
    trial_number: int
    params: Mapping[str, Any]
    """The trial's parameters and the study's constants. Constants may be any JSON."""
    seed: int
    """Differs between trials, equal between attempts of one trial."""
    checkpoint: str | None = None
    """Path of the state that an earlier attempt saved, or None."""
    parallelism: int | None = None
    """Number of attempts of the job that may run at a time from now on.

    None means as many as fit.
    """
    backlog_max: int = 1
    """Number of attempts that may wait in each worker's backlog from now on."""
    stretch: Stretch | None = None
    """The part of the training to run; None: all that is left of it."""
    blocks: tuple[Block, ...] = ()
    """The calls of the objective that are left, in order; one without `evaluation`."""


# --- events of an attempt -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The attempt has its resources and runs."""

    node: str
    pid: int
    devices: tuple[str, ...] = ()
    """The accelerators assigned to it, named as in CUDA_VISIBLE_DEVICES."""
    code: str = ""
    """A digest of the objective's source code as this attempt runs it. Empty if unknown."""
    bundle_nodes: tuple[str, ...] = ()
    """Keys of the nodes of its gang's bundles, as `NodeInfo` has them. Empty without a gang."""


@dataclass(frozen=True, slots=True)
class Reported:
    """`trial.report(step, **metrics)`."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SuggestRequested:
    """A call of `trial.suggest_*`. The attempt waits for `Executor.answer`."""

    name: str
    distribution: str
    """JSON text written by `optuna.distributions.distribution_to_json`."""


STUDY = ""
"""The name under which a `StudyRequested` is answered: no parameter has it."""


@dataclass(frozen=True, slots=True)
class StudyRequested:
    """A read of `trial.study.trials` by an Optuna objective.

    The attempt waits for `Executor.answer`.
    """


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
    """The value as JSON text."""
    kind: Literal["user", "system"] = "user"
    """Optuna's integrations write system attributes."""


@dataclass(frozen=True, slots=True)
class OutputLogged:
    """A piece of the attempt's output."""

    stream: str
    """`stdout` or `stderr`."""
    text: str
    end: int = 0
    """Position in the worker's spool after this text. 0 for a note, which is in no spool."""
    left_out: int = 0
    """Number of dropped characters that this text replaces."""

    @classmethod
    def gap(cls, chars: int) -> OutputLogged:
        """Return a note that replaces this many dropped characters."""
        text = f"\n[tunesvc: {chars:,} characters of output are left out here]\n"
        return cls("stderr", text, left_out=chars)


@dataclass(frozen=True, slots=True)
class Finished:
    """The objective returned. `metrics` holds its result and is empty if it returned nothing."""

    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoppedEarly:
    """The objective stopped early: it noticed a request to stop, or it raised `Pruned`."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The objective raised, or its program ended with an error."""

    kind: str
    """`error`, `bad_report`, `gpu_oom`, `host_oom` or `entrypoint`. `policy` decides by it."""
    message: str
    traceback: str = ""


LossKind = Literal["lost", "node", "preempted", "stalled", "gone"]
"""Cause of an attempt's loss.

lost        its process died
node        its node failed
preempted   its node was reclaimed
stalled     it sent no heartbeat
gone        it runs nowhere: it never began, or ended with its coordinator, and is not at fault
"""


@dataclass(frozen=True, slots=True)
class Lost:
    """The attempt ended without an outcome of its own."""

    message: str
    kind: LossKind = "lost"


Outcome = Finished | StoppedEarly | Failed | Lost
"""The last event of every attempt."""
Question = SuggestRequested | StudyRequested
Payload = Started | Reported | Question | Checkpointed | AttrSet | OutputLogged | Outcome


@dataclass(frozen=True, slots=True)
class Event:
    """A numbered event of an attempt."""

    attempt: AttemptId
    seq: int
    """1, 2, 3, ... within the attempt.

    The executor numbers `Lost` after the last event that it delivered.
    """
    payload: Payload


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A machine of the cluster.

    Amounts have Ray's names: `CPU`, `GPU`, `memory` in bytes, and custom ones.
    """

    key: str
    """Unique across nodes and clusters."""
    address: str
    """The address that `Started.node` reports."""
    host: str
    total: Mapping[str, float]
    free: Mapping[str, float]
    """Unused amounts as the cluster knows them now. A missing name means 0."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """The total resources of a cluster, used or not."""

    nodes: int
    cpu: float
    gpu: float
    memory: int
    """Bytes."""
    custom: Mapping[str, float] = field(default_factory=dict)
    by_node: tuple[NodeInfo, ...] = ()
    """The nodes behind the totals."""

    def __str__(self) -> str:
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        memory = f"{self.memory / 1e9:.1f} GB memory"
        parts = [nodes, f"{self.cpu:g} CPU", f"{self.gpu:g} GPU", memory]
        parts += [f"{amount:g} {name}" for name, amount in self.custom.items()]
        return ", ".join(parts)


class Executor(Protocol):
    """Runs the attempts of one job."""

    @property
    def handover_s(self) -> float:
        """Idle time of a worker between two attempts, if the next one is not in its backlog."""
        ...

    def capacity(self) -> Capacity:
        """Return the total resources of the cluster."""
        ...

    def slots(self) -> int:
        """Return how many attempts of this job the cluster can run at a time, at least 1.

        Raises:
            UnsatisfiableRequest: the cluster can never meet the job's request. The text names its
                resources.
        """
        ...

    def adopt(self, token: int, cursors: Mapping[AttemptId, int]) -> None:
        """Act under a fencing token, and adopt attempts of an earlier coordinator.

        Called once, before any launch. Returns at once. Events above the given sequence numbers
        follow, including an unanswered question, and `Lost` for an attempt that no longer runs. All
        other attempts of this job are killed: their coordinator gave them up and died before it
        could kill them. Workers refuse calls with a lower token than they have seen.
        """
        ...

    def heartbeats(self) -> Collection[AttemptId]:
        """Return attempts with a heartbeat since the last call, and those that wait to start."""
        ...

    def health_error(self) -> str:
        """Return why no attempt can be launched or received from now, as a sentence.

        Empty if healthy.
        """
        ...

    def launch(self, launch: Launch) -> None:
        """Start an attempt as soon as its resources are free. Returns at once.

        If `parallelism` attempts already run, it waits for one of them to end. Where possible it
        waits in the worker's backlog, so that the worker begins it without another message. At most
        `parallelism` attempts run at any time, and attempts begin roughly in order.
        """
        ...

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return events not delivered yet, in order per attempt.

        Waits up to `timeout_s` for the first.
        """
        ...

    def acknowledge(self, cursors: Mapping[AttemptId, int]) -> None:
        """Confirm that events up to these sequence numbers are recorded and may be forgotten."""
        ...

    def answer(self, attempt: AttemptId, name: str, value: ParamValue | bytes) -> None:
        """Answer a `SuggestRequested` with a value, or a `StudyRequested` with the study."""
        ...

    def stop(self, attempt: AttemptId) -> None:
        """Ask the attempt to stop at its next report.

        It may finish, stop early or ignore the request.
        """
        ...

    def kill(self, attempt: AttemptId) -> None:
        """Kill the attempt's process.

        A `Lost` event follows unless an outcome was delivered. Repeatable.
        """
        ...

    def limit_workers(self, most: int | None) -> None:
        """End idle workers while there are more, from now on: other jobs have a right to the rest.

        None takes the limit back.
        """
        ...

    def close(self) -> None:
        """End all running attempts and free the executor's resources. Repeatable."""
        ...

    def leave(self) -> None:
        """Free the executor's resources, but let attempts run on that can outlive it."""
        ...
