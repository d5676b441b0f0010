"""A worker without Ray: the order of attempts, and the events that it keeps."""

from __future__ import annotations

import asyncio
import gc
import pickle
import signal
import sys
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from random import Random
from typing import ClassVar

import joblib
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblib.externals.loky import get_reusable_executor

from tests.support.jobs_and_events import make_job, make_launch
from tunesvc import Trial
from tunesvc.execution.attempt.attempt import WorkerInfo
from tunesvc.execution.executor import (
    AttemptId,
    Failed,
    Finished,
    Launch,
    OutputLogged,
    Payload,
    Reported,
    Started,
    StoppedEarly,
    SuggestRequested,
)
from tunesvc.execution.ray.dispatch_state import WorkerState
from tunesvc.execution.worker.outbox import UNACKNOWLEDGED_MAX
from tunesvc.execution.worker.worker import Worker
from tunesvc.execution.worker.worker_protocol import PollRequest, PollResponse, WorkerCommand

BEGUN: list[int] = []
GATES: defaultdict[int, threading.Event] = defaultdict(threading.Event)
ARRIVED: defaultdict[int, threading.Event] = defaultdict(threading.Event)
"""Of trials that wait at their gate."""
THREADS = ThreadPoolExecutor(1)


def train(*, trial: Trial, fails: bool = False, reports: bool = False) -> float:
    """Trains until its gate is opened."""
    BEGUN.append(trial.number)
    if reports:
        trial.report(0, loss=1.0)
    assert GATES[trial.number].wait(30)
    if fails:
        raise ValueError("broken")
    return float(trial.number)


def floods(*, trial: Trial) -> None:
    """Reports more than may wait to be recorded."""
    for step in range(UNACKNOWLEDGED_MAX + 10):
        trial.report(step, loss=1.0)


class Model:
    """Refers to itself, as a model and its optimizer do."""

    alive: ClassVar[weakref.WeakSet[Model]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.weights = bytearray(40 * 2**20)
        self.optimizer = self
        self.alive.add(self)


def leaks(*, trial: Trial) -> float:
    """Leaves a model behind that only a search for garbage frees."""
    Model()
    return float(len(Model.alive))


def restores(*, trial: Trial) -> float:
    """Returns where it would go on."""
    assert trial.restored() is None
    trial.report(None, loss=1.0)
    return 0.0


def awaits(*, trial: Trial) -> float:
    """Runs a coroutine as in a script's main thread, and another one as everywhere."""
    loop = asyncio.get_event_loop()
    return loop.run_until_complete(asyncio.sleep(0, 0.5)) + asyncio.run(asyncio.sleep(0, 0.25))


def handles_signals(*, trial: Trial) -> None:
    """Does what only a main thread may."""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


def uses_pools(*, trial: Trial) -> float:
    """Computes in pools that their libraries keep for the next call."""
    return THREADS.submit(float).result() + sum(
        joblib.Parallel(n_jobs=2)([joblib.delayed(float)(1)])
    )


def leaves_threads(*, trial: Trial) -> float:
    """Leaves one thread running, and one that is about to end."""
    threading.Thread(target=GATES[trial.number].wait, args=(30,), name="monitor").start()
    threading.Timer(0.01, int).start()
    return 0.0


def asks(trial: optuna.Trial) -> float:
    """Asks for what it returns."""
    return float(trial.suggest_float("x", 0.0, 1.0))


def ends(*, trial: Trial) -> None:
    """Reports, and comes to its end without a look at requests to stop."""
    trial.report(0, loss=1.0)
    ARRIVED[trial.number].set()
    assert GATES[trial.number].wait(30)


def breaks_off(*, trial: Trial) -> None:
    """Returns because it was asked to stop."""
    ends(trial=trial)
    assert trial.should_stop


def ends_in_a_process(*, trial: Trial) -> None:
    """Does with a trial that was sent elsewhere what `ends` does."""
    ends(trial=pickle.loads(pickle.dumps(trial)))  # noqa: S301  # our own


def breaks_off_in_a_process(*, trial: Trial) -> None:
    """Does with a trial that was sent elsewhere what `breaks_off` does."""
    breaks_off(trial=pickle.loads(pickle.dumps(trial)))  # noqa: S301  # our own


class Trainings:
    """A worker, a gate for each trial before its end, and a coordinator that calls."""

    def __init__(self, worker: Worker, token: int = 1) -> None:
        self.worker = worker
        self.token = token
        self.begun = BEGUN
        self.poll_count = 0

    def call(
        self,
        *orders: WorkerCommand,
        of: Sequence[Launch] = (),
        heard: int = 0,
        timeout_s: float = 0.0,
    ) -> PollResponse:
        """Call with new orders, and listen for what these say after so many events."""
        return self.worker.poll(self.token, self.next_call(*orders, of=of, heard=heard), timeout_s)

    def next_call(
        self, *orders: WorkerCommand, of: Sequence[Launch] = (), heard: int = 0
    ) -> PollRequest:
        self.poll_count += 1
        return PollRequest(
            self.poll_count,
            [(self.poll_count, order) for order in orders],
            {one.attempt: (heard, 0) for one in of},
        )

    def run(self, *launches: Launch) -> None:
        self.call(*map(run, launches))

    def run_all(self, count: int) -> list[Launch]:
        """Run so many, one after the other."""
        trained = launches(count)
        self.run(*trained)
        return trained

    def begin_and_hear(self, launch: Launch) -> list[Payload]:
        """Start an attempt and return its first events."""
        ((_, events),) = self.call(run(launch), of=[launch], timeout_s=15.0).events
        return [payload for _, payload in events]

    def end(self, launch: Launch) -> list[Payload]:
        """Let it end and return all its events."""
        GATES[launch.trial_number].set()
        return self.hear(launch)

    def hear(self, launch: Launch) -> list[Payload]:
        """Wait for its end and return all its events."""
        said: list[Payload] = []
        while not (said and isinstance(said[-1], (Finished, Failed, StoppedEarly))):
            ((_, events),) = self.call(of=[launch], heard=len(said), timeout_s=30.0).events
            said += [payload for _, payload in events]
        return said

    def payloads_of(self, launch: Launch, timeout_s: float = 0.0) -> list[Payload]:
        return [
            payload
            for _, events in self.call(of=[launch], timeout_s=timeout_s).events
            for _, payload in events
        ]

    def is_known(self, launch: Launch) -> bool:
        return not self.call(of=[launch]).absent

    def run_in_thread(self, request: PollRequest) -> Future[PollResponse]:
        """Make a call that stays open, from a thread of its own."""
        reply: Future[PollResponse] = Future()
        talk = self.worker.poll
        # a daemon: any other thread that begins meanwhile looks like one that the objective has
        # left behind
        threading.Thread(
            target=lambda: reply.set_result(talk(self.token, request, 30.0)), daemon=True
        ).start()
        return reply


def run(launch: Launch) -> WorkerCommand:
    return WorkerCommand("run", launch.attempt, (launch,))


def withdraw(launch: Launch) -> WorkerCommand:
    return WorkerCommand("cancel", launch.attempt)


def forget(launch: Launch) -> WorkerCommand:
    return WorkerCommand("forget", launch.attempt)


@pytest.fixture(scope="module", autouse=True)
def own_interpreter() -> Iterator[None]:
    """Restore the interpreter state that a worker takes over."""
    main, argv, path = sys.modules["__main__"], [*sys.argv], [*sys.path]
    yield
    sys.modules["__main__"], sys.argv[:], sys.path[:] = main, argv, path


@pytest.fixture
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Worker, "_info", WorkerInfo("here", 1))  # Ray would be asked
    BEGUN.clear()
    GATES.clear()
    ARRIVED.clear()
    return Trainings(make_worker(tmp_path))


def make_worker(folder: Path, objective: str = "train", *, define_by_run: bool = False) -> Worker:
    job = make_job(folder, entrypoint=f"{__name__}:{objective}", define_by_run=define_by_run)
    return Worker(job, str(folder), token=1)


def launches(count: int, **params: bool) -> list[Launch]:
    return [make_launch(number, **params) for number in range(count)]


@pytest.mark.parametrize(
    ("objective", "end"),
    [
        ("ends", Finished()),
        ("breaks_off", StoppedEarly()),
        ("ends_in_a_process", Finished()),
        ("breaks_off_in_a_process", StoppedEarly()),
    ],
)
def test_an_objective_that_returns_nothing_has_ended_unless_it_saw_the_request_to_stop(
    tmp_path: Path, trainings: Trainings, objective: str, end: Payload
) -> None:
    trainings.worker = make_worker(tmp_path, objective)
    (launch,) = launches(1)
    trainings.run(launch)
    assert ARRIVED[launch.trial_number].wait(30)
    trainings.call(WorkerCommand("stop", launch.attempt))
    assert trainings.end(launch)[-1] == end


def test_queued_attempts_begin_one_after_the_other(trainings: Trainings) -> None:
    first, second, third = launches(3)
    trainings.run(first, second, third)
    assert trainings.payloads_of(first, 30.0)[0] == Started("here", 1)
    assert trainings.payloads_of(second) == []
    trainings.end(first)
    assert trainings.end(second)[-1] == Finished({"loss": 1.0})
    trainings.end(third)
    assert trainings.begun == [0, 1, 2]


def test_one_call_tells_of_all_and_an_end_before_what_follows_it(trainings: Trainings) -> None:
    three = launches(3)
    for number in range(3):
        GATES[number].set()
    trainings.run(*three)
    trainings.end(three[2])
    said = trainings.call(of=three).events
    assert [attempt for attempt, _ in said] == [launch.attempt for launch in three]
    for number, (_, events) in enumerate(said):
        assert events == [(1, Started("here", 1)), (2, Finished({"loss": float(number)}))]


def test_what_follows_soon_travels_together_and_the_last_end_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: Trainings
) -> None:
    monkeypatch.setattr("tunesvc.execution.worker.worker.BATCH_WINDOW_S", 60.0)
    trainings = Trainings(make_worker(tmp_path))
    first, second = launches(2, reports=True)
    reply = trainings.run_in_thread(
        trainings.next_call(run(first), run(second), of=[first, second])
    )
    for number in range(2):
        assert not reply.done()
        GATES[number].set()
    assert [
        [type(payload) for _, payload in events] for _, events in reply.result(30.0).events
    ] == [[Started, Reported, Finished]] * 2


def test_a_question_travels_at_once_and_so_does_all_while_it_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: Trainings
) -> None:
    monkeypatch.setattr("tunesvc.execution.worker.worker.BATCH_WINDOW_S", 60.0)
    trainings = Trainings(make_worker(tmp_path, "asks", define_by_run=True))
    (launch,) = launches(1)
    assert [type(payload) for payload in trainings.begin_and_hear(launch)] == [
        Started,
        SuggestRequested,
    ]
    trainings.worker.adopt(2)
    later = Trainings(trainings.worker, token=2)
    ((_, asked_again),) = later.call(of=[launch], heard=2, timeout_s=15.0).events
    assert isinstance(asked_again[0][1], SuggestRequested)
    ((_, ended),) = later.call(
        WorkerCommand("answer", launch.attempt, ("x", 0.5)), of=[launch], heard=3, timeout_s=15.0
    ).events
    assert ended == [(4, Finished({"loss": 0.5}))]


def test_a_call_comes_back_soon_while_an_attempt_may_say_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: Trainings
) -> None:
    """Acknowledgements of that time arrive with the next call only."""
    trainings = Trainings(make_worker(tmp_path, "floods"))
    (launch,) = launches(1)
    trainings.run(launch)
    heard = 0
    while said := trainings.call(of=[launch], heard=heard, timeout_s=600.0).events:
        heard += len(said[0][1])
    assert heard == UNACKNOWLEDGED_MAX
    trainings.poll_count += 1
    reply = trainings.worker.poll(
        1, PollRequest(trainings.poll_count, (), {launch.attempt: (heard, heard)}), 0.0
    )
    assert [seq for seq, _ in reply.events[0][1]] == list(range(heard + 1, heard + 13))


def test_a_call_that_is_overtaken_comes_back_with_nothing(trainings: Trainings) -> None:
    first, second = launches(2)
    trainings.run(first)
    before = trainings.run_in_thread(trainings.next_call(of=[first], heard=1))
    after = trainings.run_in_thread(trainings.next_call(run(second), of=[first, second], heard=1))
    assert before.result(30.0) == PollResponse()
    GATES[0].set()
    assert [attempt for attempt, _ in after.result(30.0).events] == [first.attempt]
    trainings.end(second)


def test_a_repeated_command_is_executed_once_whichever_call_comes_first(
    trainings: Trainings,
) -> None:
    """A call brings all that the worker is not known to have."""
    first, second, third = launches(3)
    early = PollRequest(1, [(1, run(first)), (1, run(second))], {})
    late = PollRequest(2, [*early.commands, (2, withdraw(second)), (2, run(third))], {})
    last = PollRequest(3, [*late.commands, (3, run(second))], {})
    for call in (late, early, last, late, early):
        trainings.worker.poll(1, call, 0.0)
    trainings.poll_count = 3
    for launch in (first, third, second):
        trainings.end(launch)
    trainings.call(*map(forget, (first, second, third)))
    trainings.worker.poll(1, last, 0.0)
    assert trainings.begun == [0, 2, 1]
    assert not trainings.is_known(second)


def test_a_cancelled_attempt_never_begins(trainings: Trainings) -> None:
    first, second, third = launches(3)
    trainings.run(first, second, third)
    assert trainings.call(withdraw(second), withdraw(first), of=[first, second, third]).absent == [
        second.attempt
    ]
    trainings.end(first)
    trainings.end(third)
    assert trainings.begun == [0, 2]


def test_a_withdrawal_is_answered_at_once(trainings: Trainings) -> None:
    first, second = launches(2)
    trainings.run(first, second)
    call = trainings.next_call(withdraw(second), of=[first, second], heard=1)
    assert trainings.run_in_thread(call).result(15.0).absent == [second.attempt]
    trainings.end(first)


def test_nothing_begins_behind_an_attempt_that_failed(trainings: Trainings) -> None:
    """The process may be broken; the coordinator that queued attempts learns that it has none."""
    first, second, third, later = launches(4, fails=True)
    trainings.run(first, second, third)
    assert isinstance(trainings.end(first)[-1], Failed)
    reply = trainings.call(run(later), of=[first, second, third, later])
    assert reply.absent == [second.attempt, third.attempt, later.attempt]
    assert not reply.is_reusable
    assert trainings.begun == [0]


def test_an_end_is_kept_as_long_as_it_may_not_be_recorded(trainings: Trainings) -> None:
    first, second, third = launches(3)
    trainings.run(first)
    said = trainings.end(first)
    trainings.run(second)
    assert trainings.payloads_of(first) == said
    trainings.call(forget(first), run(third))
    assert not trainings.is_known(first)
    trainings.end(second)
    trainings.end(third)


def test_a_new_coordinator_gets_all_events_that_may_not_be_recorded(trainings: Trainings) -> None:
    first, second, third = launches(3)
    trainings.run(first)
    trainings.end(first)
    trainings.run(second, third)
    waiting = trainings.run_in_thread(trainings.next_call(of=[second], heard=1))
    assert trainings.worker.adopt(2).attempts == (first.attempt, second.attempt, third.attempt)
    assert waiting.result(15.0).is_refused
    assert trainings.call(withdraw(third), of=[third]).is_refused
    later = Trainings(trainings.worker, token=2)
    assert later.is_known(third)
    later.end(second)
    later.end(third)


def test_what_an_attempt_leaves_behind_is_freed_before_the_next_begins(
    tmp_path: Path, trainings: Trainings
) -> None:
    trainings = Trainings(make_worker(tmp_path, "leaks"))
    assert [trainings.end(launch)[-1] for launch in trainings.run_all(10)] == [
        Finished({"loss": 1.0})
    ] * 10


def test_a_collection_passes_over_what_the_imports_made(
    tmp_path: Path, trainings: Trainings
) -> None:
    gc.unfreeze()
    trainings = Trainings(make_worker(tmp_path, "leaks"))
    trainings.end(*trainings.run_all(1))
    assert gc.get_freeze_count() > len(gc.get_objects())


def test_a_trial_whose_checkpoint_is_gone_restarts_and_says_why(
    tmp_path: Path, trainings: Trainings
) -> None:
    trainings = Trainings(make_worker(tmp_path, "restores"))
    gone = tmp_path / "checkpoints" / "0" / "attempt-1-step-7-1" / "model.pt"
    launch = make_launch(attempt=2, checkpoint=str(gone))
    trainings.run(launch)
    _, note, report, end = trainings.end(launch)
    assert isinstance(note, OutputLogged)
    assert note.text.startswith(
        f"[tunesvc: the trial starts over: its checkpoint {gone} was not found"
    )
    assert (report, end) == (Reported(0, {"loss": 1.0}), Finished({"loss": 0.0}))


def test_an_objective_has_an_event_loop(tmp_path: Path, trainings: Trainings) -> None:
    trainings = Trainings(make_worker(tmp_path, "awaits"))
    assert [trainings.end(launch)[-1] for launch in trainings.run_all(2)] == [
        Finished({"loss": 0.75})
    ] * 2


def test_an_objective_that_handles_signals_fails_with_the_remedy(
    tmp_path: Path, trainings: Trainings
) -> None:
    """Case W16."""
    trainings = Trainings(make_worker(tmp_path, "handles_signals"))
    outcome = trainings.end(trainings.run_all(1)[0])[-1]
    assert isinstance(outcome, Failed)
    assert "signal only works in main thread" in outcome.message
    assert "`environment: {isolation: process}` runs it in the main thread" in outcome.message


def test_a_pool_that_its_library_keeps_is_used_by_the_next_trial(
    tmp_path: Path, trainings: Trainings
) -> None:
    trainings = Trainings(make_worker(tmp_path, "uses_pools"))
    ended = [trainings.end(launch)[-1] for launch in trainings.run_all(2)]
    get_reusable_executor().shutdown(wait=True)
    assert ended == [Finished({"loss": 1.0})] * 2
    assert trainings.call().is_reusable


def test_a_worker_is_replaced_for_threads_that_a_trial_left_and_their_names_are_logged(
    tmp_path: Path, trainings: Trainings
) -> None:
    trainings = Trainings(make_worker(tmp_path, "leaves_threads"))
    (launch,) = launches(1)
    trainings.run(launch)
    _, note, end = trainings.hear(launch)
    fit = trainings.call().is_reusable
    GATES[launch.trial_number].set()
    assert isinstance(note, OutputLogged)
    assert note.text.startswith(
        "[tunesvc: this trial left threads running: 'monitor'. A new worker"
    )
    assert end == Finished({"loss": 0.0})
    assert not fit


def test_a_program_that_prints_that_gpu_memory_ran_out_is_classed(
    tmp_path: Path, trainings: Trainings
) -> None:
    command = ("sh", "-c", "echo CUDA out of memory; echo aborting >&2; exit 1")
    trainings = Trainings(Worker(make_job(tmp_path, command=command), str(tmp_path), token=1))
    (launch,) = launches(1)
    trainings.run(launch)
    outcome = trainings.end(launch)[-1]
    assert isinstance(outcome, Failed)
    assert outcome.kind == "gpu_oom"
    assert outcome.message.endswith("sh ended with exit code 1: aborting")


class Obedient(Worker):
    """Records the commands that it gets."""

    def __init__(self) -> None:
        super().__init__(make_job(Path.cwd()), None)
        self.obeyed: list[WorkerCommand] = []

    def _execute(self, order: WorkerCommand) -> None:
        self.obeyed.append(order)


@pytest.fixture(scope="module")
def obedient() -> Obedient:
    return Obedient()


TOKENS = count(1)
STEPS = ["tell", "call", "call", "arrive", "arrive", "lose", "answer"]


@given(
    st.lists(st.sampled_from(STEPS), min_size=15, max_size=60), st.randoms(use_true_random=False)
)
def test_orders_are_obeyed_once_and_in_order_however_calls_fare(
    obedient: Obedient, script: list[str], random: Random
) -> None:
    """Calls of one coordinator that are lost, come late and overtake each other; each example's
    is a later one."""
    token, state = next(TOKENS), WorkerState(handle=None)  # type: ignore[arg-type]
    sent: list[WorkerCommand] = []
    under_way: list[PollRequest] = []
    answers: list[int] = []
    obedient.obeyed.clear()
    for step in [*script, "call", "arrive last"]:
        if step == "tell":
            sent.append(WorkerCommand("stop", AttemptId(len(sent), 1)))
            state.send(sent[-1])
        elif step == "call":
            state.poll_count += 1
            under_way.append(PollRequest(state.poll_count, tuple(state.pending_commands), {}))
        elif step == "answer" and answers:
            state.confirm(answers.pop(random.randrange(len(answers))))
        elif under_way and step != "answer":
            call = under_way.pop(-1 if step == "arrive last" else random.randrange(len(under_way)))
            if step != "lose":
                obedient.poll(token, call, 0.0)
                answers.append(call.number)
    assert obedient.obeyed == sent
