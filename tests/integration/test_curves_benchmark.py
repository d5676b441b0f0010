"""The benchmark of pruners runs the real thing: its studies are in the store as any study is."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from benchmarks import curves
from tunesvc.db.engine.database import Database
from tunesvc.queries.studies import get_study
from tunesvc.queries.trials.trial_table import list_trials


@pytest.mark.parametrize("method", ["auto", pytest.param("ray-asha", marks=pytest.mark.slow)])
def test_a_run_spends_its_epochs_as_reports_and_keeps_its_account_by_the_table(
    database: Database, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(curves, "BUDGET", 10 * curves.EPOCHS)
    run = curves.replay(database, "digits", "last", method, 1, 4)
    view = get_study(database, f"digits last {method} 1")
    rows = list_trials(database, view.study_id)
    with database.engine.connect() as connection:
        reported = connection.execute(sa.text("SELECT count(*) FROM reports")).scalar_one()
    assert reported == curves.BUDGET
    assert len(rows) == run.trials
    assert run.stopped > 0
    table = curves.curves_of("digits")
    finals = curves.finals_of(table, "last")
    whole = [row for row in rows if row.state == "complete" and row.last_step == curves.EPOCHS]
    assert whole
    assert all(row.value == finals[curves.row_of(dict(row.params), table)] for row in whole)
    cut = [
        row
        for row in rows
        if row.state not in ("running", "interrupted") and row.last_step != curves.EPOCHS
    ]
    assert {row.state for row in cut} == {"complete" if method == "ray-asha" else "paused"}
    best = min(finals[curves.row_of(dict(row.params), table)] for row in whole)
    assert run.incumbents[-1][2] == pytest.approx(
        (best - finals.min()) / (curves.np.median(finals) - finals.min())
    )
