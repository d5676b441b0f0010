"""Agents and askers over HTTP, with an executor at the other end of the queue and no coordinator."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.accounts import Team, make_team
from tests.support.jobs_and_events import Listener, make_job, make_launch
from tests.support.specs import make_spec
from tunesvc.client.remote.http_agents import HttpAgentServer
from tunesvc.data.prepared_data import PreparedData
from tunesvc.db import study_records
from tunesvc.db.agents.agent_messages import AgentEvent, AgentPoll, HeldLease
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import trial_id
from tunesvc.errors import (
    ArtifactDamaged,
    ArtifactMissing,
    LeaseRefused,
    ServerAway,
    StudyNotFound,
    TuneError,
)
from tunesvc.execution.agents import wire
from tunesvc.execution.agents.agent_executor import AgentExecutor
from tunesvc.execution.executor import (
    AttemptId,
    Checkpointed,
    Failed,
    Finished,
    Launch,
    Lost,
    Reported,
    Started,
    StoppedEarly,
)
from tunesvc.preparation.data_store import DataStore
from tunesvc.web import DashboardServer
from tunesvc.web.binding import Binding


@dataclass
class Served:
    """A server with accounts, and an executor that offers launches of one study."""

    http: httpx.Client
    url: str
    team: Team
    study_id: int
    listener: Listener
    numbers: Iterator[int]

    @property
    def executor(self) -> AgentExecutor:
        executor: AgentExecutor = self.listener.executor
        return executor

    def launch(self, **changes: Any) -> Launch:
        number = next(self.numbers)
        launch = make_launch(number, x=0.5)
        attempt = AttemptId(trial_id(self.study_id, number), changes.pop("attempt", 1))
        launch = replace(launch, attempt=attempt, **changes)
        self.executor.launch(launch)
        return launch

    def post(self, path: str, body: object = None, user: str = "operator") -> httpx.Response:
        headers = self.team.headers(user)
        return self.http.post(f"/api/v1/studies/test/{path}", json=body, headers=headers)

    def agent(self, name: str = "one", user: str = "operator") -> tuple[HttpAgentServer, int, str]:
        server = HttpAgentServer(self.url, self.team.secrets[user], "test")
        agent_id = server.register(name, {"CPU": 2.0})
        job = server.poll(agent_id, AgentPoll(2), 0.0).job
        assert job is not None
        return server, agent_id, job.digest


@pytest.fixture(scope="module")
def team(shared_database: Database) -> Team:
    return make_team(shared_database)


@pytest.fixture(scope="module")
def web(team: Team) -> Iterator[tuple[httpx.Client, str]]:
    with (
        DashboardServer(team.database, accounts=Binding(port=0)) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        yield client, server.url


@pytest.fixture
def served(web: tuple[httpx.Client, str], team: Team, tmp_path: Path) -> Iterator[Served]:
    with team.database.engine.begin() as connection:
        record = study_records.create(connection, make_spec(), None, None)
    team.own(record.study_id)
    prepared = PreparedData("9f", str(tmp_path / "store"), {"train": digest_of(TRAIN)})
    root = str(tmp_path / "checkpoints")
    job = make_job(tmp_path, key=record.key, checkpoint_root=root, data=prepared)
    executor = AgentExecutor(job, team.database)
    executor.warm_up()
    yield Served(*web, team, record.study_id, Listener(executor), iter(range(1_000)))
    executor.close()
    with team.database.engine.begin() as connection:
        study_records.remove(connection, record.study_id, "tester")


TRAIN, TEST = b"rows to train on", b"rows of the test part"


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def event(number: int, payload: Any) -> AgentEvent:
    return AgentEvent(number, wire.dump_payload(payload))


def test_a_trial_is_asked_for_reported_and_told(served: Served) -> None:
    launch = served.launch()
    asked = served.post("ask?name=ada").json()
    assert (asked["trial"], asked["params"], asked["metrics"]) == (0, {"x": 0.5}, ["loss"])
    path = f"attempts/{asked['token']}"
    assert (
        served.post(f"{path}/report", {"step": 0, "metrics": {"loss": 2}}).json()["stop"] is False
    )
    served.listener.until(lambda heard: heard.has(launch, Reported))
    served.executor.stop(launch.attempt)
    assert served.post(f"{path}/heartbeat").json()["stop"] is True
    assert served.post(f"{path}/tell", {"values": [0.25]}).status_code == 200
    served.listener.until_ended(launch)
    assert served.listener.payloads_of(launch) == [
        Started("ada", 0), Reported(0, {"loss": 2.0}), Finished({"loss": 0.25}),
    ]  # fmt: skip
    assert served.post(f"{path}/tell", {"values": 1}).status_code == 409, "only once"


def test_an_outcome_may_be_a_failure_or_a_stop(served: Served) -> None:
    launches = [served.launch(), served.launch()]
    for body in ({"state": "failed", "message": "out of flour"}, {"state": "pruned"}):
        token = served.post("ask").json()["token"]
        assert served.post(f"attempts/{token}/tell", body).status_code == 200
    served.listener.until_ended(*launches)
    outcomes = [served.listener.outcome(launch) for launch in launches]
    assert outcomes == [Failed("error", "out of flour"), StoppedEarly()]


def test_who_has_told_a_result_is_no_capacity_any_more(served: Served) -> None:
    for _ in range(2):
        served.launch()
        token = served.post("ask").json()["token"]
        assert served.executor.capacity().nodes == 1
        served.post(f"attempts/{token}/tell", {"values": 1})
        assert served.executor.capacity().nodes == 0


def test_asking_with_a_key_leases_one_trial_however_often_it_is_sent(served: Served) -> None:
    def ask(key: str, query: str = "") -> httpx.Response:
        headers = {**served.team.headers("operator"), "Idempotency-Key": key}
        return served.http.post(f"/api/v1/studies/test/ask{query}", headers=headers)

    assert ask("one").status_code == 204
    served.launch(), served.launch()
    first, again = ask("one"), ask("one")
    assert first.status_code == 200
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert ask("two").json()["trial"] != first.json()["trial"]
    assert ask("one", "?lease=5").status_code == 422
    assert ask("three").status_code == 204


def test_asking_waits_for_a_trial(served: Served) -> None:
    assert served.post("ask").status_code == 204
    timer = threading.Timer(0.3, served.launch)
    timer.start()
    assert served.post("ask?wait=30").status_code == 200
    timer.join()


def test_a_lease_that_runs_out_is_lost_and_a_late_tell_refused(served: Served) -> None:
    launch = served.launch()
    token = served.post("ask?lease=1").json()["token"]
    served.listener.until_ended(launch)
    lost = served.listener.outcome(launch)
    assert isinstance(lost, Lost)
    assert lost.kind == "stalled"
    late = served.post(f"attempts/{token}/tell", {"values": 1})
    assert late.status_code == 409
    assert late.headers["content-type"] == "application/problem+json"
    assert late.json()["type"] == "urn:tunesvc:LeaseRefused"
    assert "Drop the attempt" in late.json()["detail"]


def test_what_was_taken_and_never_begun_is_not_blamed(served: Served) -> None:
    launch = served.launch()
    server, agent_id, job = served.agent()
    assert server.poll(agent_id, AgentPoll(1, job=job), 0.0).launches
    server.end(agent_id, "it was killed")
    served.listener.until_ended(launch)
    lost = served.listener.outcome(launch)
    assert isinstance(lost, Lost)
    assert lost.kind == "gone"
    with pytest.raises(LeaseRefused):
        server.poll(agent_id, AgentPoll(1, job=job), 0.0)


def test_a_launch_whose_answer_was_lost_is_sent_again(served: Served) -> None:
    """Fault 50."""
    served.launch()
    server, agent_id, job = served.agent()
    (first,) = server.poll(agent_id, AgentPoll(1, job=job), 0.0).launches
    (again,) = server.poll(agent_id, AgentPoll(1, job=job), 0.0).launches
    assert first == again
    held = (HeldLease(first.token),)
    assert not server.poll(agent_id, AgentPoll(1, job=job, held=held), 0.0).launches


def test_events_that_are_sent_twice_arrive_once(served: Served) -> None:
    """Fault 50."""
    launch = served.launch()
    server, agent_id, job = served.agent()
    (leased,) = server.poll(agent_id, AgentPoll(1, job=job), 0.0).launches
    batch = [event(1, Started("one", 5)), event(2, Reported(0, {"loss": float("nan")}))]
    server.send(leased.token, batch)
    server.send(leased.token, [*batch, event(3, Finished({"loss": 1.0}))])
    server.send(leased.token, [event(3, Finished({"loss": 1.0}))])
    served.listener.until_ended(launch)
    assert len(served.listener.payloads_of(launch)) == 3


def test_two_agents_with_one_token_do_not_share_leases(served: Served) -> None:
    """Fault 48."""
    launches = [served.launch(), served.launch(), served.launch()]
    (one, first, job), (two, second, _) = served.agent("one"), served.agent("two")
    mine = one.poll(first, AgentPoll(2, job=job), 0.0).launches
    others = two.poll(second, AgentPoll(2, job=job), 0.0).launches
    assert sorted(one.trial_id for one in (*mine, *others)) == [
        launch.attempt.trial_id for launch in launches
    ]
    claimed = two.poll(second, AgentPoll(2, job=job, held=(HeldLease(mine[0].token),)), 0.0)
    assert claimed.lost == (mine[0].token,)
    assert {node.address for node in served.executor.capacity().by_node} == {"one", "two"}


def test_no_more_are_leased_than_may_run(served: Served) -> None:
    for _ in range(4):
        served.launch(parallelism=1)
    (one, first, job), (two, second, _) = served.agent("one"), served.agent("two")
    taken = one.poll(first, AgentPoll(2, job=job), 0.0).launches
    assert len(taken) == 1
    assert not two.poll(second, AgentPoll(2, job=job), 0.0).launches
    one.send(taken[0].token, [event(1, Finished({"loss": 1.0}))])
    assert len(two.poll(second, AgentPoll(2, job=job), 5.0).launches) == 1


def test_a_checkpoint_travels_to_the_next_attempt(served: Served, tmp_path: Path) -> None:
    first = served.launch()
    server, agent_id, job = served.agent()
    (leased,) = server.poll(agent_id, AgentPoll(1, job=job), 0.0).launches
    folder = tmp_path / "attempt-1-step-3-1" / "state"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(content := bytes(range(256)) * 20_000)
    path = server.upload(leased.token, folder)
    server.send(leased.token, [event(1, Checkpointed(path, 3)), event(2, Lost("x", "preempted"))])
    served.listener.until_ended(first)
    (saved,) = served.listener.payloads_of(first, Checkpointed)
    attempt = AttemptId(first.attempt.trial_id, 2)
    served.executor.launch(replace(first, attempt=attempt, checkpoint=saved.path))
    (leased,) = server.poll(agent_id, AgentPoll(1, job=job), 0.0).launches
    copy = server.download(leased.token, tmp_path / "copy")
    assert copy == tmp_path / "copy" / "attempt-1-step-3-1" / "state"
    assert (copy / "weights").read_bytes() == content


def test_parts_of_the_data_are_given_out_as_far_as_trials_may_have_them(
    served: Served, tmp_path: Path
) -> None:
    store = DataStore.open(str(tmp_path / "store"))
    store.files.put([TRAIN])
    store.files.put([TEST])
    server, _, _ = served.agent()
    server.data(digest_of(TRAIN), tmp_path / "9f" / "train.arrow")
    assert (tmp_path / "9f" / "train.arrow").read_bytes() == TRAIN
    with pytest.raises(ArtifactMissing, match="trials of this study have no data"):
        server.data(digest_of(TEST), tmp_path / "9f" / "test.arrow")
    assert [path.name for path in (tmp_path / "9f").iterdir()] == ["train.arrow"]


def test_data_that_a_server_has_lost_or_damaged_are_not_asked_for_without_end(
    served: Served, tmp_path: Path
) -> None:
    store = DataStore.open(str(tmp_path / "store"))
    server, _, _ = served.agent()
    path = tmp_path / "9f" / "train.arrow"
    with pytest.raises(ArtifactMissing, match="does not exist"):
        server.data(digest_of(TRAIN), path)
    store.files.put([TRAIN])
    (stored,) = (one for one in (tmp_path / "store").rglob(digest_of(TRAIN)) if one.is_file())
    stored.write_bytes(TRAIN[:-1])
    with pytest.raises(ServerAway):
        server.data(digest_of(TRAIN), path)
    with pytest.raises(ArtifactDamaged, match="delete them in its artifact store"):
        server.data(digest_of(TRAIN), path)
    assert not path.exists()


def launch_from_checkpoint(served: Served, first: Launch) -> None:
    """Launch the second attempt of a trial from the one checkpoint of its first, once that ends."""
    served.listener.until_ended(first)
    (saved,) = served.listener.payloads_of(first, Checkpointed)
    attempt = AttemptId(first.attempt.trial_id, 2)
    served.executor.launch(replace(first, attempt=attempt, checkpoint=saved.path))


def test_a_file_is_a_checkpoint_of_an_asker(served: Served) -> None:
    first = served.launch()
    token = served.post("ask").json()["token"]
    headers, path = served.team.headers("operator"), f"/api/v1/studies/test/attempts/{token}"
    put = served.http.put(
        f"{path}/checkpoint?name=dough.txt&step=2", content=b"rising", headers=headers
    )
    assert put.status_code == 200
    served.post(f"attempts/{token}/tell", {"state": "failed"})
    launch_from_checkpoint(served, first)
    asked = served.post("ask").json()
    assert asked["has_checkpoint"]
    path = f"/api/v1/studies/test/attempts/{asked['token']}/checkpoint"
    assert served.http.get(path, headers=headers).content == b"rising"


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "Reported", "step": 2**70, "metrics": {}},
        {"type": "Reported", "step": -1, "metrics": {"loss": 1}},
        {"type": "Reported", "step": 0, "metrics": {"a\0b": 1}},
        {"type": "Checkpointed", "path": "/etc/passwd", "step": 0},
        {"type": "Checkpointed", "path": "a\0b", "step": 0},
        {"type": "Started", "node": "x", "pid": 2**40},
        {"type": "Failed", "kind": "whim", "message": ""},
        {"type": "SuggestRequested", "name": "x", "distribution": "{}"},
        {"type": "OutputLogged", "stream": "stdnull", "text": ""},
        {"type": "Explode"},
        {},
    ],
)
def test_what_no_coordinator_could_record_is_refused(
    served: Served, payload: dict[str, Any]
) -> None:
    served.launch()
    token = served.post("ask").json()["token"]
    body = [{"number": 0, "payload": payload}]
    assert served.post(f"attempts/{token}/events", body).status_code in (400, 422)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\0b", "a\r\nb", "\u202eb", "\U0001f600" * 100],
    ids=ascii,
)
def test_a_checkpoint_whose_name_is_none_of_a_file_is_refused(served: Served, name: str) -> None:
    """Faults 35 and 39."""
    served.launch()
    token = served.post("ask").json()["token"]
    answer = served.http.put(
        f"/api/v1/studies/test/attempts/{token}/checkpoint",
        params={"name": name, "step": 2},
        content=b"x",
        headers=served.team.headers("operator"),
    )
    assert answer.status_code == 400
    assert "is no name of a file" in answer.json()["detail"]


def test_a_checkpoint_of_any_name_is_downloaded_by_it(served: Served) -> None:
    """Fault 42: no name ends the header in which it is sent."""
    first, name = served.launch(), '=1+1;"ä\u05d0\U0001f600'
    headers = served.team.headers("operator")
    path = "/api/v1/studies/test/attempts/{}/checkpoint"
    token = served.post("ask").json()["token"]
    put = served.http.put(path.format(token), params={"name": name}, content=b"x", headers=headers)
    assert put.status_code == 200
    served.post(f"attempts/{token}/tell", {"state": "failed"})
    launch_from_checkpoint(served, first)
    answer = served.http.get(path.format(served.post("ask").json()["token"]), headers=headers)
    sent = answer.headers["content-disposition"]
    assert sent == f"attachment; filename*=utf-8''{quote(name)}"


def test_a_lease_of_another_study_is_refused(served: Served) -> None:
    assert served.post("attempts/999999/heartbeat").status_code == 409
    assert served.post("agents/999999/poll", {}).status_code == 409


def test_only_operators_run_trials(served: Served) -> None:
    assert served.post("ask", user="viewer").status_code == 403
    with pytest.raises(StudyNotFound):
        HttpAgentServer(served.url, served.team.secrets["outsider"], "test").register(
            "x", {"CPU": 1}
        )
    with pytest.raises(TuneError):
        HttpAgentServer(served.url, "wrong", "test").register("x", {"CPU": 1})


def test_an_agent_imports_no_ray() -> None:
    code = (
        "import sys, tunesvc.execution.agents.agent, tunesvc.client.remote.http_agents\n"
        "import tunesvc.execution.agents.worker_process_main\n"
        "print([name for name in ('ray', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
