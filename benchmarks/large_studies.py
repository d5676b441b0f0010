"""Artificial studies of any size, the same in our schema and in Optuna's, to measure their readers.

Ten parameters, ten reports a trial, three of ten trials pruned. Written by SQL, so 100,000 trials
take a minute and not a day; every number follows from the trial's, so both databases hold the same
study.
"""

from __future__ import annotations

import json

import optuna
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json

from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import trial_id
from tunesvc.spec import StudySpec

FLOATS = 9
STEPS = 10
CHOICES = ("sgd", "adam", "rmsprop", "lion")
_DRAW = "((hashint8(n * 1000 + {key}) & 2147483647) / 2147483647.0)"
"""0 ... 1, from a trial's number `n` and a key."""
_LOSS = "((p0 - 0.3) ^ 2 + 0.4 * (p1 - 0.7) ^ 2 + 0.2 * p2 * p3 + 0.05 * choice + 0.05 * noise)"
_TRIALS = f"""
    CREATE TEMP TABLE made ON COMMIT DROP AS
    SELECT n, {", ".join(f"{_DRAW.format(key=i)} AS p{i}" for i in range(FLOATS))},
           (hashint8(n * 1000 + 99) & 3) AS choice, {_DRAW.format(key=98)} AS noise,
           n % 10 IN (3, 6, 9) AS pruned, now() - make_interval(secs => :trials - n) AS at
    FROM generate_series(0, :trials - 1) AS n
"""
_LAST = f"CASE WHEN pruned THEN {STEPS // 3} ELSE {STEPS} END"


def spec(name: str, trials: int) -> StudySpec:
    """Return the spec of such a study."""
    floats = {f"p{i}": {"type": "float", "min": 0.0, "max": 1.0} for i in range(FLOATS)}
    return StudySpec.model_validate_json(
        json.dumps(
            {
                "name": name,
                "entrypoint": "train:train",
                "metrics": [{"name": "loss"}],
                "parameters": {
                    **floats,
                    "optimizer": {"type": "categorical", "values": list(CHOICES)},
                },
                "budget": {"trials": trials},
            }
        )
    )


def make_ours(database: Database, name: str, trials: int) -> int:
    """Create a finished study in our schema; returns its id."""
    with database.long_transaction() as connection:
        study = study_records.create(connection, spec(name, trials)).study_id
        run = _Runner(connection, trials, first=trial_id(study, 0), study=study)
        run(_TRIALS)
        run(
            f"""INSERT INTO trials (trial_id, study_id, number, state, "values", started_at, ended_at)
                SELECT :first + n, :study, n, CASE WHEN pruned THEN 'pruned' ELSE 'complete' END,
                       ARRAY[{_LOSS}], at - interval '8 s', at FROM made"""
        )
        for position, (column, distribution) in enumerate(_parameters()):
            run(
                f"""INSERT INTO trial_params (trial_id, name, position, value, distribution)
                    SELECT :first + n, :name, {position}, {column}, :distribution FROM made""",
                name="optimizer" if column == "choice" else column,
                distribution=distribution,
            )
        run(
            """INSERT INTO attempts (trial_id, number, token, state, opened_at, started_at, ended_at, cpus, node, pid)
               SELECT :first + n, 1, 1, CASE WHEN pruned THEN 'pruned' ELSE 'finished' END,
                      at - interval '8 s', at - interval '8 s', at, 1, 'node-' || n % 2, n % 8 FROM made"""
        )
        run(
            f"""INSERT INTO reports (trial_id, attempt, step, value, reported_at)
                SELECT :first + n, 1, step, {_LOSS} + 0.5 / step, at
                FROM made, generate_series(1, {STEPS}) AS step WHERE step <= {_LAST}"""
        )
        run(
            """INSERT INTO decisions (study_id, trial_number, kind, reason, decided_at)
               SELECT :study, n, 'ask', 'proposed by tpe from ' || n || ' finished trials', at FROM made"""
        )
        run(
            """UPDATE studies SET next_number = :trials, state = 'finished', active_s = :trials, ended_at = now()
               WHERE study_id = :study"""
        )
    _analyze(database.engine)
    return study


def make_optunas(engine: sa.Engine, url: str, name: str, trials: int) -> int:
    """Create the same in the schema of Optuna's RDBStorage, which must exist; returns its id."""
    study = int(optuna.create_study(storage=url, study_name=name)._study_id)
    with engine.begin() as connection:
        first = int(connection.scalar(sa.text("SELECT coalesce(max(trial_id), 0) + 1 FROM trials")))
        run = _Runner(connection, trials, first=first, study=study)
        run(_TRIALS)
        run(
            """INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete)
               SELECT :first + n, n, :study, CAST(CASE WHEN pruned THEN 'PRUNED' ELSE 'COMPLETE' END AS trialstate),
                      at - interval '8 s', at FROM made"""
        )
        run(
            f"""INSERT INTO trial_values (trial_id, objective, value, value_type)
                SELECT :first + n, 0, {_LOSS}, 'FINITE' FROM made"""
        )
        for column, distribution in _parameters():
            run(
                f"""INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
                    SELECT :first + n, :name, {column}, :distribution FROM made""",
                name="optimizer" if column == "choice" else column,
                distribution=distribution,
            )
        run(
            f"""INSERT INTO trial_intermediate_values (trial_id, step, intermediate_value, intermediate_value_type)
                SELECT :first + n, step, {_LOSS} + 0.5 / step, 'FINITE'
                FROM made, generate_series(1, {STEPS}) AS step WHERE step <= {_LAST}"""
        )
        run("SELECT setval('trials_trial_id_seq', :first + :trials)")
    _analyze(engine)
    return study


class _Runner:
    """Run statements with the study's values."""

    def __init__(self, connection: sa.Connection, trials: int, **known: int) -> None:
        self._connection = connection
        self._known = {"trials": trials, **known}

    def __call__(self, sql: str, **more: object) -> None:
        statement = sa.text(sql)
        known = {**self._known, **more}
        self._connection.execute(
            statement, {name: known[name] for name in statement.compile().params}
        )


def _parameters() -> list[tuple[str, str]]:
    number = distribution_to_json(FloatDistribution(0.0, 1.0))
    choice = distribution_to_json(CategoricalDistribution(CHOICES))
    return [*((f"p{i}", number) for i in range(FLOATS)), ("choice", choice)]


def _analyze(engine: sa.Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
