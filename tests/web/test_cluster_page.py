"""The cluster, in a browser."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.integration.test_cluster_view import running
from tests.support.specs import make_spec
from tests.web.conftest import ON_BOTH, Dashboard
from tunesvc.db import study_records, submissions
from tunesvc.db.engine.database import Database

HOSTILE = '<img src=x onerror="alert(1)">'


def test_without_a_coordinator_it_says_when_nodes_appear(dashboard: Dashboard) -> None:
    expect(dashboard.open("/cluster").get_by_role("heading", name="No nodes yet")).to_be_visible()


def test_nodes_their_trials_and_the_queue_are_there(
    dashboard: Dashboard, database: Database
) -> None:
    simulation = running(database, parallelism=3)
    simulation.sql("UPDATE attempts SET state = 'opened', started_at = NULL WHERE trial_id & 3 = 2")
    page = dashboard.open("/cluster")
    node = page.get_by_role("region", name="simulated", exact=True)
    expect(node).to_contain_text("3 of 8")
    expect(node.get_by_role("link")).to_have_text(["test trial 0", "test trial 1"])
    expect(page.get_by_role("region", name="Queue")).to_contain_text(
        "there is room for it: its worker is starting"
    )
    expect(page.get_by_role("region", name="Coordinators")).to_contain_text("head:7")


def test_a_node_shows_its_part_of_a_gang(dashboard: Dashboard, database: Database) -> None:
    simulation = running(database, parallelism=1, resources={"cpu": 1, "workers": 3})
    simulation.sql("""INSERT INTO nodes (study_id, key, address, host, total, free)
                      SELECT study_id, 'n2', '10.0.0.2', 'second', total, free FROM nodes""")
    simulation.sql("""UPDATE attempts SET bundle_nodes =
                      ARRAY(SELECT key FROM nodes WHERE key <> 'n2') || ARRAY['n2', 'n2']""")
    page = dashboard.open("/cluster")
    for name, part in (("simulated", "1 of gang of 3"), ("second", "2 of gang of 3")):
        expect(page.get_by_role("region", name=name, exact=True)).to_contain_text(part)


def test_a_machine_is_there_once_whatever_ran_on_it_before(
    dashboard: Dashboard, database: Database
) -> None:
    """Each local Ray gives its machine a new key."""
    simulation = running(database, parallelism=3)
    simulation.sql(
        "INSERT INTO nodes SELECT study_id, 'older', address, host, total, free, seen_at - interval '2 min' FROM nodes"
    )
    page = dashboard.open("/cluster")
    expect(page.locator(".node")).to_have_count(1)


@ON_BOTH
def test_names_of_hosts_and_resources_cannot_act(dashboard: Dashboard, database: Database) -> None:
    """Fault 37."""
    simulation = running(database, name=HOSTILE)
    text = HOSTILE.replace('"', '\\"')
    simulation.sql(f"""UPDATE nodes SET host = '{HOSTILE}', total = '{{"{text}"\\: 1}}'""")
    page = dashboard.open("/cluster")
    expect(page.get_by_role("region", name=HOSTILE, exact=True)).to_contain_text(
        f"Seen by {HOSTILE}"
    )


def test_shares_of_submitted_studies_and_their_reasons_are_there(
    dashboard: Dashboard, database: Database
) -> None:
    simulation = running(database, parallelism=3)
    with database.engine.begin() as connection:
        submissions.submit(connection, simulation.record.study_id, submitted_by="ann")
        waiting = study_records.create(
            connection, make_spec(name="later", resources={"cpu": 99}, parallelism=None)
        )
        submissions.submit(connection, waiting.study_id, submitted_by="bob")
    shares = dashboard.open("/cluster").get_by_role("region", name="Shares")
    expect(shares).to_contain_text("ann")
    expect(shares.get_by_role("row", name="later")).to_contain_text("CPU in all")
