"""Faults of agents: processes that are killed, frozen or cut off, and a server that is killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_service import Service, agent_service
from tests.support.invariant_checker import assert_holds
from tests.support.postgres_proxy import Mode, Proxy
from tests.support.processes import processes
from tunesvc.db.engine.database import Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CLOCK_OFF_BY_A_DAY = """
import time
_real = time.time
time.time = lambda: _real() + 86_400
"""


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Service]:
    with agent_service(database, tmp_path) as service:
        yield service


def test_eight_agents_finish_a_study_though_three_of_them_fail(service: Service) -> None:
    """Faults 44, 45, 46 and 47.

    One is killed, one frozen past its lease, one cut off, and the clock of one is off by a day.
    """
    service.start_server()
    service.submit(budget={"trials": 80}, pruner={"name": "median"})
    off = service.folder / "off"
    off.mkdir()
    (off / "sitecustomize.py").write_text(CLOCK_OFF_BY_A_DAY)
    with Proxy.plain(("127.0.0.1", service.port)) as proxy:
        killed, frozen = service.start_agent("killed"), service.start_agent("frozen")
        cut = service.start_agent("cut", proxy.port)
        others = [service.start_agent(f"agent-{number}") for number in range(4)]
        others.append(service.start_agent("clock", PYTHONPATH=str(off)))
        running = "attempts WHERE state = 'running' AND node = '{}'"
        for name in ("killed", "frozen", "cut"):
            service.until(lambda name=name: service.count(running.format(name)) == 1)  # type: ignore[misc]
        children = [one.pid for one in processes() if one.parent == killed.pid]
        assert children
        for name, strike in (
            ("killed", killed.kill),
            ("frozen", lambda: frozen.send_signal(signal.SIGSTOP)),
            ("cut", lambda: setattr(proxy, "mode", Mode.SWALLOW)),
        ):
            service.until(lambda name=name: service.count(running.format(name)) == 1)  # type: ignore[misc]
            strike()
        service.until(lambda: not {one.pid for one in processes()} & set(children), 10.0)
        service.until(lambda: service.count("attempts WHERE failure = 'stalled'") >= 2)
        frozen.send_signal(signal.SIGCONT)
        proxy.mode = Mode.PASS
        proxy.cut()
        service.until(service.is_finished)
        for agent in (*others, frozen, cut):
            assert agent.wait(60) == 0, service.logs()
    assert service.count("trials WHERE state IN ('complete', 'pruned')") == 80
    assert service.count("trials") == 80
    assert service.count("trials WHERE state = 'pruned'") > 0
    assert service.count("attempts WHERE failure IS NOT NULL AND failure <> 'stalled'") == 0
    assert service.count("attempts WHERE node = 'clock' AND state IN ('finished', 'pruned')") > 0
    assert_holds(service.history, service.database)


def test_agents_outlive_a_server_that_is_killed_and_started_again(service: Service) -> None:
    """Fault 49."""
    server = service.start_server()
    service.submit(budget={"trials": 30})
    agents = [service.start_agent(f"agent-{number}") for number in range(3)]
    service.until(lambda: service.count("attempts WHERE state = 'finished'") >= 5)
    server.kill()
    server.wait()
    time.sleep(2.0)  # agents continue meanwhile
    service.start_server()
    service.until(service.is_finished)
    assert service.count("trials WHERE state = 'complete'") == 30
    assert service.count("attempts") == 30, "none was run twice"
    for agent in agents:
        assert agent.wait(60) == 0, service.logs()
    assert_holds(service.history, service.database)


def test_a_machine_that_cannot_run_a_study_does_not_end_it(service: Service) -> None:
    """An agent without a package would fail every trial at once."""
    service.start_server()
    service.submit(budget={"trials": 3})
    elsewhere = service.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "program.py").write_text("import not_installed_here")
    misfit = service.start_agent("misfit", options=("--folder", str(elsewhere)))
    assert misfit.wait(60) == 1
    assert "No module named 'not_installed_here'" in (service.folder / "misfit.log").read_text()
    service.start_agent("fit")
    service.until(service.is_finished)
    assert service.count("trials WHERE state = 'complete'") == 3


def test_a_terminated_agent_gives_its_trial_back_at_once(service: Service) -> None:
    service.start_server()
    service.submit(budget={"trials": 6})
    first = service.start_agent("first")
    service.until(lambda: service.count("attempts WHERE state = 'running'") == 1)
    first.terminate()
    assert first.wait(30) == 0
    service.until(lambda: service.count("attempts WHERE failure = 'preempted'") == 1, 5.0)
    service.start_agent("second")
    service.until(service.is_finished)
    assert service.count("trials WHERE state = 'complete'") == 6
    assert_holds(service.history, service.database)
