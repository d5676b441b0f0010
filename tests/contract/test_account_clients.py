"""One suite for the accounts of both clients."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.accounts import Team, make_team, serving_accounts
from tests.support.specs import make_spec
from tunesvc.client.account_operations import AccountOperations
from tunesvc.client.local.local_client import LocalClient
from tunesvc.client.remote.http_client import Client
from tunesvc.client.study_inputs import NewStudy
from tunesvc.db.engine.database import Database
from tunesvc.db.people.accounts import Role
from tunesvc.errors import (
    AccountExists,
    AccountNotFound,
    Forbidden,
    SpecError,
    StudyNotFound,
    TuneError,
    Unauthenticated,
)
from tunesvc.queries.rows import StudyView
from tunesvc.runtime.new_submission import NewSubmission


@pytest.fixture(scope="module")
def team(shared_database: Database) -> Team:
    return make_team(shared_database)


@pytest.fixture(scope="module")
def address(team: Team) -> Iterator[str]:
    with serving_accounts(team.database) as (server, _):
        yield server.url


@pytest.fixture(scope="module")
def clients(team: Team, address: str) -> Iterator[dict[str, AccountOperations]]:
    secrets = {**team.secrets, "stranger": "tune_token_wrong"}
    made = {name: Client(address, secret) for name, secret in secrets.items()}
    yield {
        "local": LocalClient(team.database, "admin").accounts,
        "http": made["admin"].accounts,
        **{name: client.accounts for name, client in made.items()},
    }
    for client in made.values():
        client.close()


@pytest.fixture(params=["local", "http"])
def accounts(
    request: pytest.FixtureRequest, clients: dict[str, AccountOperations]
) -> AccountOperations:
    return clients[request.param]


@pytest.fixture
def suffix(request: pytest.FixtureRequest) -> str:
    """Names that each run of a test has for itself."""
    return request.node.callspec.id


def test_a_user_sees_itself(accounts: AccountOperations) -> None:
    me = accounts.me()
    assert (me.name, me.is_admin, me.roles) == ("admin", True, {})


def test_a_token_is_listed_without_its_secret_until_it_is_revoked(
    accounts: AccountOperations,
) -> None:
    issued = accounts.create_token("laptop", days=2)
    assert issued.user == "admin"
    assert issued.secret not in repr(issued)
    token = accounts.tokens()[0]
    assert (token.label, token.kind) == ("laptop", "token")
    assert token.expires_at is not None
    assert abs(token.expires_at - datetime.now(UTC) - timedelta(days=2)) < timedelta(minutes=1)
    accounts.revoke_token(token.token_id)
    assert token.token_id not in [one.token_id for one in accounts.tokens()]
    accounts.create_token("for ever", days=None)
    assert accounts.tokens()[0].expires_at is None


@pytest.mark.parametrize("days", [0.0, -1.0, 1e300])
def test_a_token_lasts_for_a_positive_time(accounts: AccountOperations, days: float) -> None:
    with pytest.raises(SpecError):
        accounts.create_token("", days)


def test_users_are_added_disabled_and_enabled(accounts: AccountOperations, suffix: str) -> None:
    name = f"new.{suffix}@example.org"
    link = accounts.add_user(name)
    assert link.secret.startswith("tune_link_")
    with pytest.raises(AccountExists, match="exists already"):
        accounts.add_user(name)
    accounts.disable_user(name)
    assert {user.name: user.disabled_at is None for user in accounts.users()}[name] is False
    accounts.enable_user(name)
    assert {user.name: user.disabled_at is None for user in accounts.users()}[name]
    assert accounts.make_link(name).secret != link.secret
    with pytest.raises(AccountNotFound, match="there is no user 'nobody'"):
        accounts.disable_user("nobody")
    with pytest.raises(SpecError, match="cannot name a user"):
        accounts.add_user("a b/..")


def test_projects_have_members(accounts: AccountOperations, suffix: str) -> None:
    name = f"project.{suffix}"
    assert accounts.add_project(name, 2.5) == name
    accounts.set_member(name, "outsider", Role.VIEWER)
    accounts.set_member(name, "outsider", Role.OPERATOR)
    assert [(one.user, one.role) for one in accounts.members(name)] == [("outsider", "operator")]
    (project,) = [one for one in accounts.projects() if one.name == name]
    assert (project.weight, project.members, project.studies) == (2.5, 1, 0)
    accounts.set_member(name, "outsider", None)
    accounts.set_member(name, "outsider", None)
    assert accounts.members(name) == ()
    for project_name, user in (("none", "outsider"), (name, "nobody")):
        with pytest.raises(AccountNotFound):
            accounts.set_member(project_name, user, Role.VIEWER)
    with pytest.raises(SpecError):
        accounts.add_project(f"{name}-2", 0.0)


def test_the_audit_log_comes_in_pages(
    accounts: AccountOperations, clients: dict[str, AccountOperations]
) -> None:
    for label in ("a", "b", "c"):
        clients["http"].create_token(label)
    first = accounts.audit(user="admin", limit=2)
    rest = accounts.audit(user="admin", after=first.after or "", limit=1)
    ids = [entry.audit_id for entry in (*first.rows, *rest.rows)]
    assert ids == sorted(ids, reverse=True)
    assert {(one.action, one.outcome) for one in (*first.rows, *rest.rows)} == {
        ("POST /tokens", 201)
    }
    with pytest.raises(TuneError):
        accounts.audit(after="x")


def test_a_project_is_managed_by_its_administrators(
    clients: dict[str, AccountOperations],
) -> None:
    clients["manager"].set_member("vision", "outsider", Role.VIEWER)
    assert [one.name for one in clients["outsider"].projects()] == ["vision"]
    for user in ("outsider", "operator"):
        with pytest.raises(Forbidden):
            clients[user].set_member("vision", user, Role.ADMIN)
    clients["manager"].set_member("vision", "outsider", None)
    with pytest.raises(AccountNotFound, match="there is no project 'vision'"):
        clients["outsider"].members("vision")
    for user in ("outsider", "manager"):
        with pytest.raises(Forbidden):
            clients[user].users()
        with pytest.raises(Forbidden):
            clients[user].audit()
    clients["admin"].add_project("elsewhere")
    with pytest.raises(AccountNotFound):
        clients["manager"].set_member("elsewhere", "manager", Role.ADMIN)
    with pytest.raises(Unauthenticated, match="tune login"):
        clients["stranger"].me()


def test_a_token_of_another_user_cannot_be_revoked(
    clients: dict[str, AccountOperations],
) -> None:
    clients["viewer"].create_token("mine")
    mine = clients["viewer"].tokens()[0].token_id
    with pytest.raises(AccountNotFound):
        clients["admin"].revoke_token(mine)
    assert mine in [one.token_id for one in clients["viewer"].tokens()]


def test_a_link_is_exchanged_for_a_token_once(
    clients: dict[str, AccountOperations], address: str
) -> None:
    link = clients["admin"].add_user("linked").secret
    with Client(address, link) as client:
        issued = client.redeem_link("laptop")
        assert issued.user == "linked"
        with pytest.raises(Unauthenticated, match="was used"):
            client.redeem_link("again")
        with pytest.raises(Unauthenticated):
            client.accounts.me()
    with Client(address, issued.secret) as client:
        assert client.accounts.me().name == "linked"
        assert [one.label for one in client.accounts.tokens()] == ["laptop"]


SPEC = {
    "command": ["python", "train.py"],
    "metric": "loss",
    "parameters": {"x": {"type": "float", "min": 0.0, "max": 1.0}},
    "budget": {"trials": 5},
}


def test_a_study_belongs_to_a_project_in_which_its_user_may_create_studies(
    clients: dict[str, AccountOperations], team: Team, address: str
) -> None:
    def create(user: str, name: str, project: str | None = None, **spec: object) -> StudyView:
        with Client(address, team.secrets[user]) as client:
            new = NewStudy(spec={**SPEC, "name": name, **spec}, project=project)
            return client.studies.create(new)

    assert create("operator", "first").project == "vision", "the only one"
    assert create("admin", "free").project == ""
    assert create("admin", "given", "vision").project == "vision"
    for user, project, error in (
        ("viewer", None, Forbidden),
        ("viewer", "vision", Forbidden),
        ("outsider", "vision", Forbidden),
        ("operator", "no-such", AccountNotFound),
    ):
        with pytest.raises(error):
            create(user, "refused", project)
    clients["admin"].add_project("second")
    with pytest.raises(AccountNotFound, match="there is no project 'second'"):
        create("operator", "refused", "second")
    clients["admin"].set_member("second", "operator", Role.VIEWER)
    with pytest.raises(Forbidden):
        create("operator", "refused", "second")
    clients["admin"].set_member("second", "operator", Role.OPERATOR)
    with pytest.raises(SpecError, match="name the project"):
        create("operator", "refused")
    assert create("operator", "named", "second").project == "second"
    with pytest.raises(StudyNotFound, match="there is no study named 'free'"):
        create("operator", "refused", "second", warm_start=["free"])
    with Client(address, team.secrets["viewer"]) as client:
        assert {row.name for row in client.studies.page().rows} == {"first", "given"}


def test_a_study_is_moved_by_an_administrator(
    accounts: AccountOperations,
    clients: dict[str, AccountOperations],
    team: Team,
    address: str,
    suffix: str,
) -> None:
    name = f"moved.{suffix}"
    with Client(address, team.secrets["admin"]) as client:
        client.studies.create(NewStudy(spec={**SPEC, "name": name}))
    with Client(address, team.secrets["viewer"]) as client:
        for project, is_visible in (("vision", True), (None, False)):
            accounts.move_study(name, project)
            assert (name in client.studies.names()) is is_visible
    with pytest.raises(AccountNotFound):
        accounts.move_study(name, "none")
    with pytest.raises(StudyNotFound):
        accounts.move_study("none", "vision")
    with pytest.raises(StudyNotFound):
        clients["manager"].move_study(name, "vision")
    accounts.move_study(name, "vision")
    with pytest.raises(Forbidden):
        clients["manager"].move_study(name, None)


def test_a_submitted_study_has_its_users_project(team: Team, address: str) -> None:
    new = NewSubmission(make_spec(name="sent"), project="vision")
    with Client(address, team.secrets["manager"]) as client:
        assert client.submissions.submit(new).project == "vision"
    with (
        Client(address, team.secrets["outsider"]) as client,
        pytest.raises(Forbidden),
    ):
        client.submissions.submit(new)


def test_weights_and_limits_are_set_and_removed(accounts: AccountOperations, suffix: str) -> None:
    name = f"sharing.{suffix}"
    accounts.add_project(name)
    assert accounts.set_share("project", name, weight=3, limits={"gpus": 4, "cost": 100}) == {
        "gpus": 4,
        "cost": 100,
    }
    assert accounts.set_share("project", name, limits={"cost": None}) == {"gpus": 4}
    (project,) = [one for one in accounts.projects() if one.name == name]
    assert (project.weight, project.limits) == (3, {"gpus": 4})
    accounts.add_user(name)
    assert accounts.set_share("user", name, limits={"trials": 2}) == {"trials": 2}
    with pytest.raises(SpecError, match="there is no limit 'gpu', did you mean `gpus`"):
        accounts.set_share("project", name, limits={"gpu": 1})
    with pytest.raises(SpecError, match="gpus is a number from 0 on, not -1"):
        accounts.set_share("project", name, limits={"gpus": -1})
    with pytest.raises(SpecError, match="positive number"):
        accounts.set_share("project", name, weight=0)
    with pytest.raises(AccountNotFound, match="there is no project 'none'"):
        accounts.set_share("project", "none", weight=2)


def test_a_user_is_handed_its_data_and_forgotten(accounts: AccountOperations, suffix: str) -> None:
    name = f"leaving.{suffix}"
    accounts.add_user(name)
    tables = [row.table for row in accounts.personal_data(name)]
    assert "users" in tables
    assert accounts.forget_user(name).startswith("former user ")
    assert accounts.personal_data(name) == ()
    with pytest.raises(AccountNotFound, match="nothing here names a user"):
        accounts.forget_user(name)
