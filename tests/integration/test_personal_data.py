"""Data about a person: all of it is handed over, and erased without losing a result."""

from __future__ import annotations

import json
import re

import pytest
import sqlalchemy as sa

from tests.support.simulation import Simulation
from tests.support.specs import make_spec
from tunesvc.champions.promotion import promote, roll_back
from tunesvc.db import alerts, study_records, submissions
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.people import accounts, audit_log
from tunesvc.db.people.personal_data import NAMES, forget, naming_columns, personal_rows
from tunesvc.db.schema.tables import metadata, trial_attrs
from tunesvc.errors import AccountNotFound
from tunesvc.queries.operations.final_runs import BY
from tunesvc.queries.studies import get_study
from tunesvc.runtime import study_requests

ELSEWHERE = {
    *("studies.name", "users.name", "projects.name", "agents.name", "nodes.host", "deletions.name"),
    *("study_attrs.name", "trial_attrs.name", "trial_params.name"),
    "leases.owner",
}
"""Text columns whose names suggest a person, but that name something else."""


@pytest.fixture
def steered(database: Database) -> Database:
    """A study that ann owns, submitted, steered and discussed; and one of bob's."""
    study = Simulation(database, make_spec(name="anns", budget={"trials": 3}))
    study.run()
    with database.engine.begin() as connection:
        user_id = accounts.add_user(connection, "ann")
        accounts.create_token(connection, user_id, accounts.TokenKind.TOKEN, label="laptop")
        connection.execute(sa.text("UPDATE studies SET owner = 'ann'"))
        submissions.submit(connection, study.record.study_id, submitted_by="ann")
        alerts.add_target(connection, "ann", "json://user:planted-secret@host/hook")
        study_records.create(connection, make_spec(name="bobs"), owner="bob")
    promote(database, get_study(database, "anns"), 0, "ann")
    promote(database, get_study(database, "anns"), 1, "ann")
    roll_back(database, "anns", "ann")
    trial, *_ = PgStorage(database).get_all_trials(study.record.study_id)
    started = {"trial_id": trial._trial_id, "kind": "user", "name": BY, "value": '"ann"'}
    with database.engine.begin() as connection:
        connection.execute(sa.insert(trial_attrs).values(started))
    study_requests.note(database, study.record.study_id, 1, "good", asked_by="ann")
    return database


def test_all_that_names_a_user_is_handed_over_without_secrets(steered: Database) -> None:
    with steered.engine.connect() as connection:
        rows = list(personal_rows(connection, "ann"))
    tables = {row.table for row in rows}
    assert {"users", "tokens", "studies", "submissions", "commands", "alert_targets"} <= tables
    assert {"champions", "trial_attrs"} <= tables
    text = json.dumps([row.values for row in rows], default=str)
    assert "planted-secret" not in text
    assert "bobs" not in text


def test_a_forgotten_user_is_named_nowhere_and_the_results_stay(steered: Database) -> None:
    with steered.engine.begin() as connection:
        pseudonym = forget(connection, "ann")
    with steered.engine.connect() as connection:
        assert list(personal_rows(connection, "ann")) == []
        owners = set(connection.scalars(sa.text("SELECT owner FROM studies")))
        assert owners == {pseudonym, "bob"}
        for table in metadata.sorted_tables:
            rows = [dict(row._mapping) for row in connection.execute(sa.select(table))]
            assert not re.search(r"\bann\b", json.dumps(rows, default=str)), table.name
        assert connection.scalar(sa.text("SELECT count(*) FROM trials")) == 3
        assert connection.scalar(sa.text("SELECT count(*) FROM tokens")) == 0
    with steered.engine.begin() as connection, pytest.raises(AccountNotFound, match="'ann'"):
        forget(connection, "ann")


def test_a_name_without_an_account_can_be_forgotten(steered: Database) -> None:
    with steered.engine.begin() as connection:
        assert forget(connection, "bob").startswith("former user ")
        assert list(personal_rows(connection, "bob")) == []


def test_no_column_that_may_name_a_person_is_overlooked() -> None:
    hints = ("user", "owner", "_by", "name", "host", "author", "login", "email")
    found = {
        f"{table.name}.{column.name}"
        for table in metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, sa.Text) and any(hint in column.name for hint in hints)
    }
    covered = {f"{column.table.name}.{column.name}" for column in naming_columns()}
    assert found - covered == ELSEWHERE
    assert all(column.name in NAMES for column in naming_columns())


def test_a_forgotten_user_is_not_mentioned_in_the_audit_log_either(steered: Database) -> None:
    subjects = {
        "/api/v1/users/ann/links": "/api/v1/users/{}/links",
        "/api/v1/projects/ann/members/ann": "/api/v1/projects/{0}/members/{0}",
        "vision: ann": "vision: {}",
        "/api/v1/users/anna/links": "/api/v1/users/anna/links",
        "/api/v1/users/jo.ann": "/api/v1/users/jo.ann",
    }
    for subject in subjects:
        audit_log.begin(steered, "root", "a change", subject)
    with steered.engine.begin() as connection:
        found = [row for row in personal_rows(connection, "ann") if row.table == "audit"]
        assert len(found) == 3
        pseudonym = forget(connection, "ann")
        left = connection.scalars(sa.text("SELECT subject FROM audit ORDER BY audit_id")).all()
    assert list(left) == [one.format(pseudonym) for one in subjects.values()]


def test_an_address_is_forgotten_as_it_is_written_in_paths(database: Database) -> None:
    audit_log.begin(database, "root", "a change", "/api/v1/users/ada%40example%2Eorg")
    with database.engine.begin() as connection:
        accounts.add_user(connection, "ada@example.org")
        forget(connection, "ada@example.org")
        (left,) = connection.scalars(sa.text("SELECT subject FROM audit"))
    assert left.startswith("/api/v1/users/former user ")
