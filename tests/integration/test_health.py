"""Evidence for the health checks of a study, read from a real Postgres."""

from __future__ import annotations

import json

import sqlalchemy as sa
from optuna.distributions import FloatDistribution

from tests.integration.test_queries import LR, writing
from tunesvc.db.engine.database import Database
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.tables import trials
from tunesvc.queries.health import evidence as limits
from tunesvc.queries.health import gather, health
from tunesvc.queries.studies import get_study
from tunesvc.search.pruners.audit import AUDIT

HOSTILE = "<script>alert(1)</script>"


def test_the_evidence_is_what_was_recorded(database: Database) -> None:
    with writing(database) as w:
        for number, value in enumerate([0.5, 0.7, float("nan"), 0.2, 0.2, 0.1]):
            w.trial(number, "complete", value)
            w.param(number, 0, "lr", 0.01 * (number + 1), LR)
        w.trial(
            6, "complete", 0.01, constraints="[1.0]"
        )  # infeasible: no record, and not among the best
        w.trial(7, "fail")
        w.attempt(7, 1, "lost", failure="lost")
        w.attempt(7, 2, "failed", failure="error")
        w.trial(8, "running")
        w.attr(5, "system", AUDIT, json.dumps({"step": 3, "best": 0.3, "chance": 0.01}))
        study_id = w.study_id
        ended = sa.text("now() - make_interval(secs => 100 - number)")
        w.connection.execute(
            sa.update(trials)
            .values(ended_at=ended)
            .where(trials.c.study_id == study_id, trials.c.state != "running")
        )
    seen = gather(database, get_study(database, "digits"))
    assert [(record.place, record.value) for record in seen.records] == [
        (1, 0.5),
        (4, 0.2),
        (6, 0.1),
    ]
    assert [one.number for one in seen.best] == [5, 3, 4, 0, 1]
    assert seen.best[0].params == {"lr": 0.06}
    assert [(one.number, one.failure) for one in seen.failed] == [(7, "error")]
    assert [one.number for one in seen.recent] == list(range(9))
    assert [one.number for one in seen.sampled] == list(range(8))
    assert [values for values, _ in seen.audited] == [[0.1]]
    assert len(seen.attempts) == 2


def test_a_study_without_trials_is_examined_too(database: Database) -> None:
    with writing(database):
        pass
    examined = health(database, get_study(database, "digits"))
    assert examined.findings == ()
    assert all(check.silence is not None for check in examined.checks)


def test_a_large_study_costs_a_bounded_number_of_rows(database: Database) -> None:
    """30,000 trials: what is read of parameters stays below the sum of the limits."""
    with writing(database) as w:
        w.trial(0, "complete", 1.0)
        w.param(0, 0, "lr", 0.5, LR)
        first = trial_id(w.study_id, 0)
        w.connection.execute(
            sa.text("""
            INSERT INTO trials (trial_id, study_id, number, state, "values", ended_at)
            SELECT :first + n, :study, n, CASE WHEN n % 10 = 0 THEN 'fail' ELSE 'complete' END, ARRAY[1.0 + 1.0 / n], now()
            FROM generate_series(1, 30000) n"""),
            {"first": first, "study": w.study_id},
        )
        w.connection.execute(
            sa.text("""
            INSERT INTO trial_params (trial_id, name, position, value, distribution)
            SELECT :first + n, 'lr', 0, 0.0001 + n / 40000.0, distribution FROM trial_params, generate_series(1, 30000) n"""),
            {"first": first},
        )
        w.connection.execute(sa.text("ANALYZE"))
    seen = gather(database, get_study(database, "digits"))
    most = limits.SAMPLED + limits.BEST + limits.FAILED + limits.RECENT
    assert len(seen.sampled) + len(seen.best) + len(seen.failed) + len(seen.recent) <= most
    assert len(seen.failed) == limits.FAILED
    assert all(one.params for one in (*seen.sampled, *seen.best))
    assert len(seen.records) == 1


def test_text_of_a_study_stays_text(database: Database) -> None:
    """Fault 37: names of parameters and failures come back as they are, for faces to escape."""
    kind = FloatDistribution(0.0, 1.0)
    with writing(database, parameters={HOSTILE: {"type": "float", "min": 0.0, "max": 1.0}}) as w:
        for number in range(60):
            bad = number % 2 == 0
            w.trial(number, *(["fail"] if bad else ["complete", 0.5]))
            w.param(number, 0, HOSTILE, 0.9 if bad else 0.1, kind)
            w.attempt(number, 1, "failed" if bad else "finished", failure="error" if bad else None)
    examined = health(database, get_study(database, "digits"))
    assert any(HOSTILE in finding.text for _, finding in examined.findings)
