"""Figures as they are sent: cached, distinguished, compressed, and as files, by the real server."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from tests.support.stored_studies import add, fill
from tunesvc.db.engine.database import Database
from tunesvc.web import DashboardServer
from tunesvc.web.render import STATIC


@pytest.fixture
def client(database: Database) -> Iterator[httpx.Client]:
    with (
        DashboardServer(database, port=0) as server,
        httpx.Client(base_url=server.url, follow_redirects=True, timeout=60) as client,
    ):
        client.get(server.new_address())
        yield client


def test_a_figure_changes_its_tag_only_when_it_looks_different(
    client: httpx.Client, database: Database
) -> None:
    study = fill(database, 20, 2)
    first = client.get(f"/studies/{study}/figures/history")
    assert first.json()["title"] == "History of loss"
    with database.engine.begin() as connection:  # a commit that brings no result
        connection.execute(sa.text("UPDATE leases SET batch = batch + 1"))
    tag = {"If-None-Match": first.headers["etag"]}
    assert client.get(f"/studies/{study}/figures/history", headers=tag).status_code == 304
    with database.engine.begin() as connection:
        add(connection, study, 20, 1)
        connection.execute(sa.text("UPDATE studies SET state = 'finished'"))
        connection.execute(sa.text("UPDATE trials SET state = 'fail' WHERE state = 'running'"))
    after = client.get(f"/studies/{study}/figures/history", headers=tag)
    assert after.status_code == 200
    assert after.headers["x-fresh-in"] == "0.0", "of a study that is over the newest is shown"
    assert after.headers["content-encoding"] == "gzip"


def test_options_choose_objective_parameters_and_what_is_drawn(
    client: httpx.Client, database: Database
) -> None:
    study = fill(database, objectives=2, metrics=({"name": "loss"}, {"name": "size"}))
    at = f"/studies/{study}/figures"
    assert client.get(f"{at}/importance?objective=1").json()["title"] == "Importance for size"
    assert client.get(f"{at}/history?objective=9").json()["title"] == "History of loss"
    with database.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE reports SET metrics = jsonb_build_object('size', step * 2)")
        )
    lines = client.get(f"{at}/curves/data.csv?objective=1").text.splitlines()
    assert lines[:4] == ["trial,step,size", "0,0,0.0", "0,1,2.0", "0,2,4.0"]
    pair = client.get(f"{at}/rank?p=n&p=x").json()["figure"]["layout"]
    assert [pair[axis]["title"]["text"] for axis in ("xaxis", "yaxis")] == ["n", "x"]
    assert (
        client.get(f"{at}/contour?deviation=true")
        .json()["note"]
        .startswith("how unsure the model is")
    )
    assert client.get(f"{at}/contour?p=nothing&p=x").json()["figure"] is None


def test_a_file_of_a_figure_holds_all_of_it_and_no_formulas(
    client: httpx.Client, database: Database
) -> None:
    parameters = {
        "=1+1": {"type": "float", "min": 0.0, "max": 1.0},
        "n": {"type": "int", "min": 1, "max": 8},
    }
    study = fill(database, 30, 0, parameters=parameters, name="a b/=c")
    answer = client.get(f"/studies/{study}/figures/slice/data.csv")
    lines = answer.text.splitlines()
    assert lines[0] == "trial,loss,'=1+1,n"
    assert len(lines) == 1 + 30
    complete = client.get(
        f"/studies/{study}/figures/slice/data.csv?state=complete"
    ).text.splitlines()
    assert len(complete) == 1 + 28, "without the pruned"
    assert 'filename="a_b__c-slice.csv"' in answer.headers["content-disposition"]


def test_a_figure_of_nothing_is_not_found(client: httpx.Client, database: Database) -> None:
    study = fill(database, 5)
    assert client.get("/studies/99/figures/history").status_code == 404
    assert client.get(f"/studies/{study}/figures/nonsense").status_code == 422


def test_only_trials_that_there_are_can_be_selected(
    client: httpx.Client, database: Database
) -> None:
    study = fill(database, 5)
    page = client.get(f"/studies/{study}/selected?trials=3,1,99,<b>,3").text
    assert page.count('<th scope="row">') == 2
    assert client.get(f"/studies/{study}/selected").text.strip() == ""


def test_no_part_of_a_page_throttles_by_itself() -> None:
    """htmx forgets what comes while it waits, and so the last change; `app.js` paces all parts."""
    for template in (STATIC.parent / "templates").glob("*.html"):
        assert "throttle:" not in template.read_text(), template.name


def test_the_drawing_library_travels_compressed_and_is_kept(client: httpx.Client) -> None:
    answer = client.get("/static/vendor/plotly-cartesian.min.js?v=1")
    assert answer.headers["content-encoding"] == "gzip"
    assert "immutable" in answer.headers["cache-control"]
    assert int(answer.headers["content-length"]) < 600_000
