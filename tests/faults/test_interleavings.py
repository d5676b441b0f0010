"""Coordinators that come, freeze, crash and come back, workers that do what they like, a database
that goes away: in every order that hypothesis finds. The history of each is held against the
invariants I1 to I6, and each study comes to its end in the end.

Simulated workers on one cluster that outlives all coordinators, a virtual clock, and the real
database.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.trial import FrozenTrial

from tests.support import invariant_checker
from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.coordinator.coordinator import Coordinator
from tunesvc.coordinator.shutdown import Shutdown
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.lease import LEASE_S
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.states import StudyState
from tunesvc.errors import DatabaseUnavailable, LeaseLost
from tunesvc.execution.executor import (
    AttemptId,
    AttrSet,
    Checkpointed,
    Event,
    Failed,
    Finished,
    Launch,
    Lost,
    OutputLogged,
    Payload,
    Reported,
    StoppedEarly,
    SuggestRequested,
)
from tunesvc.instrumentation import event_log, failpoints
from tunesvc.testing.simulated_executor import SimulatedExecutor

FREEZING: Sequence[failpoints.Point] = (
    "leased",
    "recovered",
    "adopted",
    "heard",
    "handled",
    "decided",
    "committed",
    "acknowledged",
    "answered",
    "stopped",
    "killed",
    "launched",
)
"""Points at which a coordinator may be frozen past its lease; within a transaction the database
would end it."""
DYING: Sequence[failpoints.Point] = (*FREEZING, "advanced", "written")
LOSSES = ("lost", "node", "preempted", "stalled")
ENDS: Sequence[Payload] = (
    Finished(),
    Finished({"loss": 0.5}),
    Finished({"loss": math.nan}),
    StoppedEarly(),
    *(Failed(kind, "boom") for kind in ("error", "bad_report", "gpu_oom", "host_oom")),
    *(Lost("gone without a word", kind) for kind in LOSSES),  # type: ignore[arg-type]
)
FROZEN_MAX = 2
STEPS = st.sampled_from([1, 2, 4, 8, 16])
NTH = st.sampled_from([1, 2, 3, 5])
NAMES = count()


@dataclass(frozen=True)
class Life:
    """Behaviour of an attempt."""

    reports: int
    every_s: float
    saves: bool
    repeats: bool
    asks: str
    end: Payload

    def __call__(self, launch: Launch) -> Iterable[tuple[float, Payload]]:
        number = launch.trial_number
        if self.asks:
            fits = (
                FloatDistribution(0, 1)
                if self.asks == "well"
                else CategoricalDistribution(["a", number])
            )
            yield 0.1, SuggestRequested(f"asked {self.asks}", distribution_to_json(fits))
        for step in range(self.reports):
            report = Reported(step, {"loss": number * 7 % 5 + 1 / (1 + step), "other": float(step)})
            yield self.every_s, report
            if self.repeats:
                yield 0.0, report
            if self.saves and step == self.reports // 2:
                yield 0.0, Checkpointed("/shared", step)
                yield 0.0, AttrSet("saved", json.dumps(step))
                yield 0.0, OutputLogged("stdout", "saved\n")
        yield self.every_s, self.end


LIVES = st.lists(
    st.builds(
        Life,
        reports=st.integers(0, 5),
        every_s=st.sampled_from([0.2, 1.0, 5.0]),
        saves=st.booleans(),
        repeats=st.booleans(),
        asks=st.sampled_from(["", "", "well", "badly"]),
        end=st.sampled_from(ENDS),
    ),
    min_size=1,
    max_size=6,
)
SPECS = st.fixed_dictionaries(
    {
        "budget": st.builds(lambda trials: {"trials": trials}, st.sampled_from([3, 8, 20, 40])),
        "parallelism": st.integers(1, 4),
        "retries": st.fixed_dictionaries(
            dict.fromkeys(
                (*LOSSES, "host_oom", "gpu_oom", "error", "nan", "timeout", "silence"),
                st.integers(0, 2),
            )
        ),
        "pruner": st.sampled_from(
            [
                {"name": "none"},
                {"name": "median", "n_startup_trials": 1},
                {"name": "asha", "min": 1, "max": 4, "eta": 2, "form": "promote"},
                {"name": "curve", "startup": 1, "chance": 0.5, "audit": 0.2},
            ]
        ),
        "limits": st.sampled_from([{}, {"wall": 4, "grace": 2}, {"silence": 3, "grace": 2}]),
    }
)


class Redelivering(SimulatedExecutor):
    """Delivers everything once more on request."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(cluster=simulation.cluster)
        self._delivered: list[Event] = []
        self.again = False

    def events(self, timeout_s: float) -> list[Event]:
        fresh = list(super().events(timeout_s))
        events, self.again = [*self._delivered, *fresh] if self.again else fresh, False
        self._delivered += fresh
        return events


@dataclass(eq=False)
class Process:
    """A coordinator with what it holds, as a process would."""

    executor: Redelivering
    coordinator: Coordinator | None = None
    study_writer: Any = None


class Service(RuleBasedStateMachine):
    """One study, its coordinators and its workers."""

    def __init__(self, database: Database, folder: Path) -> None:
        super().__init__()
        self.database = database
        self.folder = folder / str(next(NAMES))
        self.holder: Process | None = None
        """The coordinator that holds the lease."""
        self.frozen: list[Process] = []
        """Coordinators that lost the lease and have not noticed yet."""
        self.over = False
        """True if the study is finished or failed, without a later request for more."""
        event_log.write_to(self.folder)

    @initialize(spec=SPECS, lives=LIVES, slots=st.integers(1, 4), obedient=st.booleans())
    def begin(self, spec: Mapping[str, Any], lives: list[Life], slots: int, obedient: bool) -> None:
        def script(launch: Launch) -> Iterable[tuple[float, Payload]]:
            return lives[(launch.trial_number + launch.attempt.number) % len(lives)](launch)

        study = make_spec(name=self.folder.name, **spec)
        self.simulation = Simulation(self.database, study, script, slots=slots)
        self.simulation.obedient = obedient
        self.study_id = self.simulation.record.study_id
        self.cluster = self.simulation.share_cluster()

    # --- coordinators

    @rule(steps=STEPS)
    def work(self, steps: int) -> None:
        for _ in range(0 if self.over else steps):
            self._guarded(self.holder or self._start(), self._step)
            if self.over:
                return
        if self.holder is not None:
            self._compare_memory(self.holder)

    @rule(steps=STEPS)
    def freeze_and_take_over(self, steps: int) -> None:
        if self.holder is not None and len(self.frozen) < FROZEN_MAX:
            self._take_over()
        self.work(steps)

    @rule(which=st.integers(0, FROZEN_MAX - 1))
    @precondition(lambda self: self.frozen)
    def wake(self, which: int) -> None:
        """A coordinator that has lost the lease changes nothing, neither in the database nor in
        the cluster."""
        failpoints.arm(None)  # a pending freeze is the holder's; here it would let others act
        process = self.frozen[which % len(self.frozen)]
        assert process.coordinator is not None
        self._pass_time(0.0)
        before = self._fingerprint()
        try:
            process.coordinator.step(0.0)
        except LeaseLost:
            self._drop(process)
        assert self._fingerprint() == before

    @rule(steps=STEPS)
    def crash(self, steps: int) -> None:
        if self.holder is not None:
            self._drop(self.holder)
        self.work(steps)

    @rule(point=st.sampled_from(DYING), nth=NTH, steps=STEPS)
    def crash_at(self, point: failpoints.Point, nth: int, steps: int) -> None:
        failpoints.arm(f"{point}:raise@{nth}")
        self.work(steps)

    @rule(point=st.sampled_from(FREEZING), nth=NTH, meanwhile_steps=STEPS, steps=STEPS)
    def freeze_at(
        self, point: failpoints.Point, nth: int, meanwhile_steps: int, steps: int
    ) -> None:
        """Another coordinator takes over and continues while one is frozen in the middle of a
        step."""

        def meanwhile() -> None:
            if self.holder is not None and len(self.frozen) < FROZEN_MAX:
                self._take_over()
                self.work(meanwhile_steps)

        failpoints.interpose(point, nth, meanwhile)
        self.work(steps)

    @rule(steps=STEPS)
    def interrupt(self, steps: int) -> None:
        """Ctrl-C."""
        if self.over:
            return
        self.simulation.interrupt.set()
        try:
            self._guarded(self.holder or self._start(), self._run)
        finally:
            self.simulation.interrupt.clear()
        self.work(steps)

    # --- the database

    @rule(
        faults=st.lists(st.sampled_from(["", "away", "answer lost"]), min_size=1, max_size=4),
        steps=STEPS,
    )
    def trouble(self, faults: list[str], steps: int) -> None:
        self.simulation.faults.extend(faults)
        self.work(steps)

    # --- workers

    @rule(which=st.integers(0, 3), kind=st.sampled_from(LOSSES), steps=STEPS)
    @precondition(lambda self: self.cluster.running)
    def lose(self, which: int, kind: str, steps: int) -> None:
        self.cluster.lose(self._running(which), Lost("gone without a word", kind))  # type: ignore[arg-type]
        self.work(steps)

    @rule(which=st.integers(0, 3), gives_up=st.booleans(), steps=STEPS)
    @precondition(lambda self: self.cluster.running)
    def stall(self, which: int, gives_up: bool, steps: int) -> None:
        self.cluster.freeze(self._running(which))
        if gives_up:
            self.simulation.sql(
                f"UPDATE attempts SET expires_at = now() - interval '1 s' WHERE {self._mine}"
            )
        self.work(steps)

    @rule(which=st.integers(0, 3))
    @precondition(lambda self: self.cluster.running)
    def thaw(self, which: int) -> None:
        self.cluster.thaw(self._running(which))

    @rule(slots=st.integers(1, 4))
    def resize(self, slots: int) -> None:
        self.cluster.slots = slots

    @rule(seconds=st.sampled_from([0.5, 5.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self._pass_time(seconds)

    @rule(steps=STEPS)
    def redeliver(self, steps: int) -> None:
        if self.holder is not None:
            self.holder.executor.again = True
        self.work(steps)

    # --- people

    @rule(kind=st.sampled_from(["pause", "resume", "stop"]), steps=STEPS)
    def ask(self, kind: str, steps: int) -> None:
        self._ask(kind, {})
        self.work(steps)

    @rule(steps=STEPS)
    def extend(self, steps: int) -> None:
        self._ask("extend", {"trials": 2})
        self.over = False
        self.work(steps)

    @rule(x=st.sampled_from([0.5, 2.0]), steps=STEPS)
    def enqueue(self, x: float, steps: int) -> None:
        self._ask("enqueue", {"params": {"x": x}})
        self.work(steps)

    @rule(number=st.integers(0, 5), steps=STEPS)
    def stop_one(self, number: int, steps: int) -> None:
        self._ask("stop_trial", {"number": number})
        self.work(steps)

    @rule(number=st.integers(0, 5), steps=STEPS)
    def once_more(self, number: int, steps: int) -> None:
        self._ask("retry", {"number": number})
        self.work(steps)

    @rule(steps=STEPS)
    def run_wider(self, steps: int) -> None:
        self._ask(
            "widen",
            {"parameters": {"x": {"max": 1.0 + self.study_id + len(self.simulation.states())}}},
        )
        self.work(steps)

    # --- the end

    def teardown(self) -> None:
        failpoints.arm(None)
        try:
            if hasattr(self, "simulation"):
                self._come_to_the_end()
        finally:
            event_log.write_to(None)

    def _come_to_the_end(self) -> None:
        """Without faults the study finishes, with its exact budget, whatever happened before."""
        self.simulation.faults.clear()
        live = {
            AttemptId(*row)
            for row in self.simulation.sql(f"SELECT trial_id, number FROM attempts WHERE {_LIVE}")
        }
        for attempt in self.cluster.running:
            if attempt in live:
                self.cluster.thaw(attempt)
        closing = self._run_to_the_end(self.holder or self._start())
        if closing.state in (StudyState.PAUSED, StudyState.STOPPED):
            closing = self._run_to_the_end(self._start())
        while self.frozen:
            self.wake(0)
        self._check_end(closing)
        invariant_checker.assert_holds(self.folder, self.database)

    def _run_to_the_end(self, process: Process) -> Shutdown:
        assert process.coordinator is not None
        # Forty trials one after the other, three attempts each, take 3,000 virtual seconds.
        for _ in range(10_000):
            closing = process.coordinator.step(1.0)
            if closing is not None:
                self._finish(process, closing)
                return closing
        raise AssertionError(
            f"no end in sight: {self.simulation.states()}, {self.cluster.running} run"
        )

    def _check_end(self, closing: Shutdown) -> None:
        states = self.simulation.states()
        waiting = states.pop("waiting", 0)
        note(f"{closing}: {states}, {waiting} wait")
        if closing.state is StudyState.FAILED:
            assert set(states) == {"fail"} or closing.stop is not None
            return
        with self.database.engine.connect() as connection:
            spec = study_records.find(connection, self.simulation.spec.name).spec
        assert closing.state is StudyState.FINISHED
        assert spec is not None
        ((never_ran,),) = self.simulation.sql(
            f"SELECT count(*) FROM trials WHERE {self._mine} AND state = 'fail' AND started_at IS NULL"
        )
        assert sum(states.values()) - never_ran == spec.budget.trials
        assert set(states) <= {"complete", "pruned", "fail"}

    # --- how

    def _start(self) -> Process:
        """Start coordinators until one has taken the study up and holds it."""
        while True:
            self.simulation.sql(
                f"UPDATE leases SET expires_at = now() WHERE study_id = {self.study_id}"
            )
            self.holder = process = Process(Redelivering(self.simulation))
            self._guarded(process, self._take_up)
            if self.holder is not None:
                return self.holder

    def _take_over(self) -> None:
        assert self.holder is not None
        self.frozen.append(self.holder)
        clock = self.simulation.clock
        clock.advance(clock.now() + LEASE_S + 1)
        self._start()

    def _take_up(self, process: Process) -> None:
        process.coordinator = self.simulation.start(process.executor)
        process.study_writer = self.simulation.study_writer

    def _step(self, process: Process) -> None:
        assert process.coordinator is not None
        closing = process.coordinator.step(1.0)
        if closing is not None and process is self.holder:
            self._finish(process, closing)

    def _run(self, process: Process) -> None:
        assert process.coordinator is not None
        try:
            closing = process.coordinator.run(self.simulation.interrupt)
        except DatabaseUnavailable:
            self._drop(process)
        else:
            self._finish(process, closing)

    def _finish(self, process: Process, closing: Shutdown) -> None:
        self.over = closing.state in (StudyState.FINISHED, StudyState.FAILED)
        process.study_writer.release()
        process.executor.close()
        if process is self.holder:
            self.holder = None

    def _guarded(self, process: Process, act: Callable[[Process], None]) -> None:
        """Only a coordinator that has lost the lease may be refused."""
        try:
            act(process)
        except LeaseLost:
            assert process is not self.holder, "it holds the lease"
            self._drop(process)
        except failpoints.FailpointReached:
            self._drop(process)

    def _drop(self, process: Process | None) -> None:
        assert process is not None
        process.executor.leave()
        if process is self.holder:
            self.holder = None
        self.frozen = [other for other in self.frozen if other is not process]

    def _compare_memory(self, process: Process) -> None:
        """Compare the trials that sampler and pruner see with the stored ones."""
        assert process.coordinator is not None
        if self.simulation.recorder.snapshots[-1].state == "waiting":
            return  # a batch waits for the database
        stored = PgStorage(self.database).get_all_trials(self.study_id, deepcopy=False)
        optimizer = process.coordinator._optimizer
        remembered = [optimizer.trial(number) for number in range(len(optimizer.trials))]
        assert [*map(_seen, remembered)] == [*map(_seen, stored)]

    def _fingerprint(self) -> object:
        tables = {
            "leases": "study_id",
            "trials": "study_id",
            "decisions": "study_id",
            "studies": "study_id",
        }
        rows = [
            self.simulation.sql(f"SELECT * FROM {table} WHERE study_id = {self.study_id}")
            for table in tables
        ]
        rows += [
            self.simulation.sql(f"SELECT * FROM {table} WHERE {self._mine}")
            for table in ("attempts", "reports")
        ]
        cluster = [
            (
                attempt,
                held.over,
                held.stop_requested,
                held.frozen,
                len(held.outbox),
                dict(held.answers),
            )
            for attempt, held in self.cluster._attempts.items()
        ]
        return [sorted(map(repr, table)) for table in rows], cluster

    @property
    def _mine(self) -> str:
        return f"trial_id BETWEEN {trial_id(self.study_id, 0)} AND {trial_id(self.study_id + 1, 0) - 1}"

    def _running(self, which: int) -> AttemptId:
        return self.cluster.running[which % len(self.cluster.running)]

    def _pass_time(self, seconds: float) -> None:
        self.cluster.advance(self.simulation.clock.now() + seconds, until=lambda: False)

    def _ask(self, kind: str, payload: Mapping[str, object]) -> None:
        with self.database.engine.begin() as connection:
            study_records.request(connection, self.study_id, kind, payload, "user")


_LIVE = "state IN ('opened', 'running')"


def _seen(trial: FrozenTrial) -> str:
    """A trial as samplers see it; NaN is itself."""
    curve = sorted(trial.intermediate_values.items())
    attrs = sorted(trial.user_attrs.items()), sorted(trial.system_attrs.items())
    return repr((trial.number, trial.state, trial.values, trial.params, curve, *attrs))


def interleave(
    database: Database, folder: Path, *, service: type[Service] = Service, **options: Any
) -> None:
    """Try so many examples of so many rules each."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    phases = [Phase.explicit, Phase.generate, Phase.shrink]
    chosen = settings(
        deadline=None, suppress_health_check=checks, phases=phases, database=None, **options
    )
    run_state_machine_as_test(lambda: service(database, folder), settings=chosen)  # type: ignore[no-untyped-call]


@pytest.mark.timeout(900)  # for shrinking what it finds
def test_in_whatever_order_things_go_wrong_nothing_is_lost_or_done_twice(
    shared_database: Database, tmp_path: Path
) -> None:
    interleave(shared_database, tmp_path, max_examples=8, stateful_step_count=30)


def test_a_coordinator_that_wakes_after_a_takeover_acknowledges_nothing(
    shared_database: Database, tmp_path: Path
) -> None:
    """Found by hypothesis: a pending freeze struck the coordinator that woke, and another one
    took over meanwhile and acknowledged what it had recorded itself."""
    service = Service(shared_database, tmp_path)
    spec = {"budget": {"trials": 3}, "parallelism": 1, "retries": {}, "pruner": {"name": "none"}}
    life = Life(
        reports=0, every_s=0.2, saves=False, repeats=False, asks="", end=Finished({"loss": 0.5})
    )
    try:
        service.begin(spec=spec, lives=[life], slots=1, obedient=True)
        service.crash(1)
        service.freeze_and_take_over(1)
        service.freeze_at("heard", nth=2, meanwhile_steps=1, steps=1)
        service.wake(0)
        invariant_checker.assert_holds(service.folder, shared_database)
    finally:
        failpoints.arm(None)
        event_log.write_to(None)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_in_thousands_of_steps_too(shared_database: Database, tmp_path: Path) -> None:
    interleave(shared_database, tmp_path, max_examples=500, stateful_step_count=50)
