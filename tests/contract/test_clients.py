"""One suite for both clients: on the database, and through the API of a server on the same one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import sqlalchemy as sa

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tests.support.stored_studies import fill
from tunesvc.client.interface import TuneClient
from tunesvc.client.local.local_client import LocalClient
from tunesvc.client.remote.http_client import Client
from tunesvc.client.study_inputs import (
    BudgetChange,
    NewStudy,
    ParallelismChange,
    ParameterChange,
    StudyPatch,
)
from tunesvc.db import study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.states import Priority
from tunesvc.db.schema.tables import logs
from tunesvc.errors import (
    BadName,
    ChampionNotFound,
    FilterError,
    SpecError,
    StudyExists,
    StudyNotFound,
    TuneError,
)
from tunesvc.queries.rows import StudyStatus
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.spec.yaml.document import written
from tunesvc.web import DashboardServer

HOSTILE = ["a/b", "..", "50 % ?#&+;=:@", "ü 漢 🚀", "%2F", "a//b/", "trials/0"]
"""Names of studies that mean something in an address."""


@pytest.fixture(scope="module")
def server(shared_database: Database) -> Iterator[DashboardServer]:
    fill(shared_database, 40, name="bowl", tags=["nice"])
    Simulation(shared_database, make_spec(name="done", seed=1)).run()
    ann = LocalClient(shared_database, "ann")
    ann.commands.send("done", "promote", {"number": 1})
    ann.commands.send("done", "promote", {"number": 2, "reason": "it is faster"})
    with shared_database.engine.begin() as connection:
        for name in HOSTILE:
            study_records.create(connection, make_spec(name=name), owner="eve")
    with DashboardServer(shared_database, port=0) as server:
        yield server


@pytest.fixture(scope="module", params=["local", "http"])
def client(
    request: pytest.FixtureRequest, server: DashboardServer, shared_database: Database
) -> TuneClient:
    is_local = request.param == "local"
    return LocalClient(shared_database, "ada") if is_local else request.getfixturevalue("remote")


def test_studies_come_in_pages_newest_first(client: TuneClient) -> None:
    first = client.studies.page(limit=3)
    rest = client.studies.page(after=first.after or "")
    assert len(first.rows) == 3
    names = [row.name for row in (*first.rows, *rest.rows)]
    assert names == ["bowl", "done", *HOSTILE][::-1]
    assert rest.after is None


def test_studies_are_found_by_their_labels(client: TuneClient) -> None:
    assert [row.name for row in client.studies.page(tags=["nice"]).rows] == ["bowl"]
    assert [row.name for row in client.studies.page(states=[StudyStatus.RUNNING]).rows] == ["bowl"]
    assert {row.name for row in client.studies.page(owner="eve").rows} == set(HOSTILE)
    assert [row.name for row in client.studies.page(search="漢").rows] == ["ü 漢 🚀"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_study_may_have_any_name(client: TuneClient, name: str) -> None:
    assert client.studies.get(name).name == name
    assert client.trials.page(name).rows == ()


def test_a_study_is_returned_with_its_spec(client: TuneClient) -> None:
    assert client.studies.get("bowl").spec == make_spec(name="bowl", tags=["nice"])


def test_trials_come_in_pages_of_any_order(client: TuneClient) -> None:
    pages, after = [], ""
    while True:
        page = client.trials.page("bowl", where="x < 0.5", sort="-x", after=after, limit=7)
        pages.append(page)
        if page.after is None:
            break
        after = page.after
    rows = [row for page in pages for row in page.rows]
    assert len(rows) == client.trials.count("bowl", where="x < 0.5") > 7
    values = [row.params["x"] for row in rows]
    assert values == sorted(values, reverse=True)


def test_a_trial_is_returned_with_its_attempts(client: TuneClient) -> None:
    detail = client.trials.get("bowl", 3)
    assert detail.row.number == 3
    assert [attempt.pid for attempt in detail.attempts] == [103]


def test_a_request_is_answered_and_listed(client: TuneClient) -> None:
    answer = client.commands.send("bowl", "extend", {"trials": 2})
    assert "carries it out" in answer
    newest = client.commands.page("bowl", limit=1)
    assert newest.rows[0].text == "extend by 2 trials"
    client.commands.send("bowl", "pause")
    assert client.commands.page("bowl", limit=1).after is not None


READS: dict[str, Callable[[TuneClient], object]] = {
    "names": lambda client: client.studies.names("b"),
    "study": lambda client: client.studies.get("done"),
    "compare studies": lambda client: client.studies.compare(["done", "a/b"]),
    "trials": lambda client: client.trials.page("done", sort="-value"),
    "trial": lambda client: client.trials.get("done", 3),
    "curve": lambda client: client.trials.curve("done", 2),
    "curves": lambda client: client.trials.curves("bowl", max_points=3, after="5", limit=4),
    "attempts": lambda client: client.trials.attempts("done", after="5"),
    "decisions": lambda client: client.trials.decisions("done", limit=4),
    "logs": lambda client: client.trials.logs("done", 1),
    "csv": lambda client: b"".join(client.trials.export("done", "csv", sort="-x", limit=3)),
    "json": lambda client: b"".join(client.trials.export("done", "json", where="x < 0.5")),
    "jsonl": lambda client: b"".join(client.trials.export("done", "jsonl")),
    "parquet": lambda client: b"".join(client.trials.export("done", "parquet")),
    "empty": lambda client: b"".join(client.trials.export("a/b", "json")),
    "compare trials": lambda client: client.trials.compare("done", [1, 2]),
    "best": lambda client: client.insights.best("done"),
    "overview": lambda client: client.insights.overview("done"),
    "explain": lambda client: client.insights.explain("done"),
    "explain a trial": lambda client: client.insights.explain("done", 5),
    "health": lambda client: client.insights.health("done"),
    "confirmation": lambda client: client.insights.confirmation("done"),
    "replay": lambda client: client.insights.replay("done"),
    "replay a pruner": lambda client: client.insights.replay_pruner("done", "{name: asha, min: 1}"),
    "replay a sampler": lambda client: client.insights.replay_sampler("done", "random"),
    "figure": lambda client: client.insights.figure("done", "history"),
    "figure of two": lambda client: client.insights.figure("done", "rank", params=["x", "n"]),
    "requests": lambda client: client.commands.page("done"),
    "queue": lambda client: client.service.queue(),
    "shares": lambda client: client.service.shares(),
    "info": lambda client: client.service.info().version,
    "champions": lambda client: client.service.champions(),
    "champion history": lambda client: client.service.champion_history("done"),
}
"""What does not change between two calls."""


@pytest.fixture(scope="module")
def remote(server: DashboardServer) -> Iterator[Client]:
    with Client(server.url, server.new_token()) as remote:
        yield remote


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_both_clients_read_the_same(
    remote: TuneClient, shared_database: Database, read: Callable[[TuneClient], object]
) -> None:
    assert read(remote) == read(LocalClient(shared_database, "ada"))


def test_what_changes_all_the_time_is_read_too(client: TuneClient) -> None:
    assert client.service.cluster().coordinators[0].study == "bowl"
    assert client.insights.diagnose("bowl").study.name == "bowl"
    assert "<html" in client.insights.report("done")


def test_output_is_followed_to_the_end(client: TuneClient, shared_database: Database) -> None:
    study_id = client.studies.get("done").study_id
    with shared_database.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM logs"))
        for seq in range(1, 6):
            row = {"trial_id": trial_id(study_id, 1), "attempt": 1, "seq": seq}
            row |= {"stream": "stdout", "text": f"line {seq}\n"}
            connection.execute(sa.insert(logs).values(row))
    followed = list(client.trials.follow("done", 1, after="1-2"))
    assert [row.text for row in followed] == ["line 3\n", "line 4\n", "line 5\n"]
    page = client.trials.logs("done", 1, limit=2)
    assert page.after == "1-2"
    assert client.trials.logs("done", 1, after=page.after).rows == tuple(followed)


def test_changes_are_seen_as_they_come(client: TuneClient, shared_database: Database) -> None:
    events = client.service.events("a/b")
    stop = threading.Event()

    def change() -> None:
        for number in count():
            if stop.wait(0.3):
                return
            client.studies.tag("a/b", add=[f"tag-{number}"])
            with shared_database.engine.begin() as connection:
                connection.execute(
                    sa.text("UPDATE studies SET next_number = next_number + 1 WHERE name = 'a/b'")
                )

    thread = threading.Thread(target=change)
    thread.start()
    try:
        assert next(events).studies == ("a/b",)
    finally:
        stop.set()
        thread.join()


def test_a_study_is_created_changed_annotated_and_deleted(client: TuneClient) -> None:
    text = written(make_spec(name="new", tags=["first"]))
    keys = make_spec(name="keys").model_dump(mode="json", exclude_defaults=True)
    assert client.studies.create(NewStudy(spec=keys)).spec == make_spec(name="keys")
    client.studies.delete("keys")
    made = client.studies.create(NewStudy(text))
    assert (made.name, made.source_text, made.owner != "") == ("new", text, True)
    patch = StudyPatch(
        budget=BudgetChange(trials=30),
        parallelism=ParallelismChange(None),
        parameters={"x": ParameterChange(max=2.0)},
        note="wider",
    )
    assert len(client.studies.change("new", patch)) == 4
    assert client.studies.tag("new", add=["second"], remove=["first"]) == ("second",)
    changed = client.studies.get("new")
    assert changed.spec is not None
    assert changed.spec.budget.trials == 30
    assert changed.spec.parallelism is None
    assert changed.spec.parameters["x"].max == 2.0  # type: ignore[union-attr]
    assert (changed.note, changed.tags) == ("wider", ("second",))
    with pytest.raises(StudyExists):
        client.studies.create(NewStudy(text))
    with pytest.raises(SpecError, match="only grows"):
        client.studies.change("new", StudyPatch(budget=BudgetChange(trials=3)))
    assert client.studies.delete("new").startswith("deleted new")
    with pytest.raises(StudyNotFound):
        client.studies.get("new")


def test_a_submitted_study_waits_and_changes_its_priority(client: TuneClient) -> None:
    made = client.submissions.submit(
        NewSubmission(make_spec(name="queued", entrypoint=None, command=["true"]))
    )
    assert made.submission is not None
    assert made.state is StudyStatus.QUEUED
    assert [row.name for row in client.service.queue().rows] == ["queued"]
    client.studies.change("queued", StudyPatch(priority=Priority.HIGH))
    submission = client.studies.get("queued").submission
    assert submission is not None
    assert submission.priority is Priority.HIGH
    assert client.commands.page("queued").rows[0].text == "priority high"
    client.studies.delete("queued")


def test_the_best_trials_of_a_submitted_study_are_repeated(
    client: TuneClient, shared_database: Database
) -> None:
    with pytest.raises(TuneError, match="was not submitted"):
        client.submissions.confirm("done")
    with shared_database.engine.begin() as connection:
        submissions.submit(connection, client.studies.get("done").study_id)
    try:
        for repeats, waiting in ((2, 4), (3, 6)):
            made = client.submissions.confirm("done", top=2, repeats=repeats)
            assert (made.name, made.counts.waiting) == ("done:confirm", waiting)
            assert made.state is StudyStatus.QUEUED
        found = client.insights.confirmation("done")
        assert found is not None
        assert len(found.finalists) == 2
    finally:
        client.studies.delete("done:confirm")
        with shared_database.engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM submissions"))


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (StudyNotFound, lambda client: client.studies.get("bowll")),
        (StudyNotFound, lambda client: client.trials.get("bowl", 40)),
        (BadName, lambda client: client.studies.get("a\0b")),
        (FilterError, lambda client: client.trials.page("bowl", where="x <")),
        (TuneError, lambda client: client.trials.page("bowl", sort="nothing")),
        (TuneError, lambda client: client.studies.page(after="x")),
        (StudyNotFound, lambda client: client.trials.curve("bowl", 99)),
        (StudyNotFound, lambda client: client.insights.explain("bowl", 99)),
        (TuneError, lambda client: client.trials.logs("bowl", 1, after="x")),
        (TuneError, lambda client: client.trials.export("bowl", "csv", sort="nothing")),
        (TuneError, lambda client: client.insights.figure("bowl", "pareto")),
        (TuneError, lambda client: client.trials.best_checkpoint("bowl")),
        (SpecError, lambda client: client.insights.replay_pruner("done", "nothing")),
        (
            SpecError,
            lambda client: client.studies.create(NewStudy("name: [")),
        ),
        (SpecError, lambda client: client.studies.create(NewStudy())),
        (SpecError, lambda client: client.commands.send("bowl", "extend", {})),
        (SpecError, lambda client: client.commands.send("bowl", "stop_trial", {"number": 99})),
    ],
)
def test_errors_are_the_same(
    client: TuneClient, shared_database: Database, error: type[TuneError], call: object
) -> None:
    with pytest.raises(error) as local:
        call(LocalClient(shared_database, "ada"))  # type: ignore[operator]
    with pytest.raises(error) as raised:
        call(client)  # type: ignore[operator]
    assert isinstance(local.value, type(raised.value))
    assert str(raised.value) == str(local.value)
    assert vars(raised.value).items() <= vars(local.value).items()


def test_servers_are_asked_to_watch_and_to_stop(client: TuneClient) -> None:
    spec = make_spec(
        name="shop/ü",
        entrypoint="json:dumps",
        data={"source": "s3://bucket/rows.csv"},
        watch={"on_promote": "https://example.org"},
    )
    made = client.submissions.watch(NewSubmission(spec, "name: shop"), every_s=60.0, always=True)
    assert (made.family, made.interval_s, made.always) == ("shop/ü", 60.0, True)
    again = client.submissions.watch(NewSubmission(spec, "name: shop"))
    assert (again.interval_s, again.always) == (60.0, False)
    assert client.submissions.watches() == (again,)
    with pytest.raises(
        SpecError, match="the interval of servers is a minute to 366 days, not 59 s"
    ):
        client.submissions.watch(NewSubmission(spec), every_s=59.0)
    with pytest.raises(SpecError, match="servers cannot watch study 'test': it needs `data`"):
        client.submissions.watch(NewSubmission(make_spec(entrypoint="json:dumps")))
    with pytest.raises(TuneError, match="is not stored: upload it"):
        client.submissions.watch(NewSubmission(spec, snapshot="ab" * 32))
    assert client.submissions.unwatch("shop/ü") == again
    with pytest.raises(ChampionNotFound, match="servers do not watch a family 'shop/ü'"):
        client.submissions.unwatch("shop/ü")


def test_champions_are_promoted_and_rolled_back(client: TuneClient) -> None:
    before = len(client.service.champion_history("done").champions)
    answer = client.commands.send("done", "promote", {"number": 3, "reason": "x"})
    assert answer.endswith("of done is trial 3 of done")
    request = client.commands.page("done", limit=1).rows[0]
    assert (request.kind, request.text) == ("promote", "make trial 3 the champion of done")
    assert (request.asked_by, request.done_at is None) == (client.service.info().user, False)
    assert client.service.champion_history("done").current.evidence.reason == "x"
    client.commands.send("done", "rollback", {"reason": "y"})
    assert client.commands.page("done", limit=1).rows[0].text.startswith("restore champion ")
    history = client.service.champion_history("done").champions
    assert len(history) == before + 2
    assert (history[0].kind, history[0].configuration.trial_number) == ("rollback", 2)
    with pytest.raises(ChampionNotFound, match="'dome' has no champion, did you mean .done."):
        client.service.champion_history("dome")
    with pytest.raises(ChampionNotFound, match="has no trial 99"):
        client.commands.send("done", "promote", {"number": 99})
    with pytest.raises(SpecError, match="`number` is a whole number"):
        client.commands.send("done", "promote", {"number": "3"})
