"""A server that is killed and restarted under clients that write all the time, and listeners."""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.support.agent_service import Service, agent_service
from tests.support.specs import make_spec
from tunesvc.client.remote.event_source import ServerEvent, read_events
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RETRIED = frozenset({429, 500, 502, 503})
"""500 is uvicorn's answer to a request that outlasts an orderly end."""
STUDY = """
name: {name}
command: [python, train.py, "--x={{x}}"]
metric: loss
parameters: {{x: {{min: 0.0, max: 1.0}}}}
budget: {{trials: 10}}
agents: only
"""
PAUSE_S = 0.05


@dataclass
class Writers:
    """Clients that write until they are stopped, each write with a key of its own."""

    service: Service
    stop: threading.Event = field(default_factory=threading.Event)
    answered: Counter[str] = field(default_factory=Counter)
    """Writes that were answered with 2xx, by what they wrote."""
    problems: list[str] = field(default_factory=list)

    def client(self) -> httpx.Client:
        url = f"http://127.0.0.1:{self.service.port}/api/v1"
        headers = {"Authorization": f"Bearer {self.service.token}"}
        return httpx.Client(base_url=url, headers=headers, timeout=20)

    def send(self, client: httpx.Client, method: str, path: str, **what: Any) -> httpx.Response:
        """Repeat a request with one key until a server answers it."""
        headers = {"Idempotency-Key": str(uuid.uuid4()), **what.pop("headers", {})}
        while True:
            try:
                answer = client.request(method, path, headers=headers, **what)
                if answer.status_code not in RETRIED:
                    return answer
            except httpx.TransportError:
                pass
            if self.stop.wait(0.1):
                return httpx.Response(503)

    def write(self, make: Callable[[int], tuple[str, str, str, dict[str, Any]]]) -> None:
        """Send one write after another; `make` returns its mark, method, path and content."""
        with self.client() as client:
            for number in itertools.count():
                if self.stop.wait(PAUSE_S):
                    return
                mark, method, path, what = make(number)
                answer = self.send(client, method, path, **what)
                if answer.is_success:
                    self.answered[mark] += 1
                elif answer.status_code not in (409, 503):  # 409: its server died with it
                    self.problems.append(f"{mark}: {answer.status_code} {answer.text[:300]}")

    def tell(self) -> None:
        """Ask for trials, and tell each a value of its own."""
        with self.client() as client:
            for number in itertools.count(1):
                if self.stop.wait(PAUSE_S):
                    return
                asked = self.send(client, "POST", "/studies/test/ask?wait=1&lease=60")
                if asked.status_code != 200:
                    continue
                path = f"/studies/test/attempts/{asked.json()['token']}/tell"
                told = self.send(client, "POST", path, json={"values": number / 1024})
                if told.is_success:
                    self.answered[f"told {number / 1024}"] += 1


@dataclass
class Listener:
    """A client that reads events, and connects again where it was."""

    writers: Writers
    last_id: str = ""
    opened: list[str] = field(default_factory=list)
    """First event of each connection."""
    changed: int = 0

    def listen(self) -> None:
        with self.writers.client() as client:
            while not self.writers.stop.wait(0.1):
                try:
                    self._read(client)
                except httpx.TransportError:
                    continue

    def _read(self, client: httpx.Client) -> None:
        headers = {"Last-Event-ID": self.last_id}
        with client.stream("GET", "/events", headers=headers) as answer:
            if answer.status_code != 200:
                return
            events: Iterator[ServerEvent] = read_events(answer.iter_lines(), self.last_id)
            for number, event in enumerate(events):
                if not number:
                    self.opened.append(event.name)
                self.last_id = event.id
                self.changed += (
                    event.name == "changed" and "steady" in json.loads(event.data)["studies"]
                )
                if self.writers.stop.is_set():
                    return


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Service]:
    with agent_service(database, tmp_path) as service:
        yield service


def _stored(database: Database) -> Counter[str]:
    """Return what is in the database, by the marks of the writes."""
    found: Counter[str] = Counter()
    for sql in (
        "SELECT 'study ' || name FROM studies",
        "SELECT kind || ' ' || coalesce(payload->'add'->>0, payload->>'note', "
        "payload->'params'->>'x') FROM commands WHERE kind IN ('tag', 'note', 'enqueue')",
        "SELECT 'told ' || (\"values\")[1] FROM trials WHERE state = 'complete'",
    ):
        found.update(database.scalars(sa.text(sql)))
    return found


def test_what_was_answered_is_kept_once_though_the_server_is_killed_three_times(
    service: Service,
) -> None:
    """Fault 60."""
    with service.database.engine.begin() as connection:
        study_records.create(connection, make_spec(name="steady"), None, None)
    service.submit(budget={"trials": 100_000}, parallelism=2)
    server = service.start_server()
    writers = Writers(service)
    listeners = [Listener(writers) for _ in range(3)]
    yaml = {"Content-Type": "application/yaml"}
    writes: list[Callable[[int], tuple[str, str, str, dict[str, Any]]]] = [
        lambda n: (
            f"study stored-{n}",
            "POST",
            "/studies",
            {"content": STUDY.format(name=f"stored-{n}"), "headers": yaml},
        ),
        lambda n: (
            f"study submitted-{n}",
            "POST",
            "/submissions",
            {"json": {"source_text": STUDY.format(name=f"submitted-{n}")}},
        ),
        lambda n: (
            f"tag t{n}",
            "POST",
            "/studies/steady/tags",
            {"json": {"add": [f"t{n}"], "remove": [f"t{n - 1}"]}},
        ),
        lambda n: (f"note n{n}", "PUT", "/studies/steady/note", {"json": {"text": f"n{n}"}}),
        lambda n: (
            f"enqueue {(n + 1) / 8192}",
            "POST",
            "/studies/steady/commands",
            {"json": {"kind": "enqueue", "payload": {"params": {"x": (n + 1) / 8192, "n": 1}}}},
        ),
    ]
    with ThreadPoolExecutor(20) as pool:
        running = [pool.submit(writers.write, write) for write in writes]
        running += [pool.submit(writers.tell)]
        running += [pool.submit(listener.listen) for listener in listeners]
        try:
            for sign in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
                before = writers.answered.total()
                service.until(lambda before=before: writers.answered.total() > before + 60)  # type: ignore[misc]
                server.send_signal(sign)
                server.wait(60)
                server = service.start_server()
            before = writers.answered.total()
            service.until(lambda: writers.answered.total() > before + 60)
        finally:
            writers.stop.set()
        for one in running:
            one.result()
    assert writers.problems == []
    assert {mark.split()[0] for mark in writers.answered} == {
        "study", "tag", "note", "enqueue", "told",
    }  # fmt: skip

    until_s = time.monotonic() + 60.0
    while lost := writers.answered.keys() - _stored(service.database).keys():
        assert time.monotonic() < until_s, lost  # a coordinator records the results
        time.sleep(0.2)
    stored = _stored(service.database)
    assert [mark for mark, times in stored.items() if times != 1] == []
    for listener in listeners:
        first, *later = listener.opened
        assert first == "position"
        assert len(later) >= 4
        assert set(later) == {"gap"}
        assert listener.changed > 0
