"""A server under load: latency of its API, and what the load costs the study that it runs.

    python -m benchmarks.service_load [--clients 200] [--listeners 500] [--window 20] [--rounds 3]

One `tune serve` with a local Ray runs a study of short trials. In turns, nothing and the load are on
it: clients that each read the study once a second, with the entity tag of the last answer; and
listeners to its events. The load comes from two processes on the same machine, one for clients and
one for listeners, so it takes processor time from the server, which a team's browsers do not:
`load_cpu` is how much of one core each took. With `--apart`, a second server without studies answers.

    p50, p95        of all answers, in milliseconds
    events_per_s    of all listeners together
    trials_per_s    of the study in the quiet and the loaded windows, medians, and their ratio
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

PATIENCE_S = 120.0
CONNECT_S = 5.0
OBJECTIVE = """
import time


def train(x, *, trial):
    for step in range(5):
        time.sleep(0.02)
        trial.report(step, loss=x + 1 / (1 + step))
    return x
"""
STUDY = """
name: load
entrypoint: objective:train
metric: {name: loss, goal: minimize}
parameters:
  x: {type: float, min: 0.0, max: 1.0}
sampler: random
pruner: none
budget: {trials: 1000000}
resources: {cpu: 0.5}
"""


@dataclass
class Load:
    """Observations of clients and listeners."""

    seconds: list[float] = field(default_factory=list)
    events: int = 0
    lost: int = 0
    """Requests and streams that failed."""
    cpu_s: float = 0.0
    """Processor time of the process that made them."""

    def add(self, other: Load) -> None:
        """Add what was seen in another round."""
        self.seconds += other.seconds
        self.events += other.events
        self.lost += other.lost
        self.cpu_s += other.cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--listeners", type=int, default=500)
    parser.add_argument("--window", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--apart", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # run by root, Postgres runs as another user
        print(json.dumps(_measure(Path(folder), options), indent=2))


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    study = folder / "study"
    study.mkdir()
    (study / "objective.py").write_text(OBJECTIVE)
    (study / "study.yaml").write_text(STUDY)
    os.environ["TUNE_HOME"] = str(folder / "home")
    with ExitStack() as stack:
        server = stack.enter_context(_server())
        os.environ |= {"TUNE_SERVER": server["url"], "TUNE_TOKEN": server["token"]}
        subprocess.run(_tune("submit", str(study / "study.yaml")), check=True)
        _await_trials(server)
        loaded_server = server
        if options.apart:
            other = stack.enter_context(_server("--studies", "0"))
            loaded_server = {**other, "token": server["token"]}
        quiet, loaded, seen = [], [], [Load(), Load()]
        for _ in range(options.rounds):
            quiet.append(_rate(server, options.window))
            rate, found = _under_load(server, loaded_server, options)
            loaded.append(rate)
            for whole, part in zip(seen, found, strict=True):
                whole.add(part)
    clients, listeners = seen
    loaded_s = options.rounds * (options.window + CONNECT_S)
    return {
        **_latencies(clients),
        "requests_per_s": round(len(clients.seconds) / loaded_s, 1),
        "lost": clients.lost + listeners.lost,
        "events_per_s": round(listeners.events / loaded_s, 1),
        "load_cpu": [round(part.cpu_s / loaded_s, 2) for part in seen],
        "trials_per_s": {
            "quiet": round(statistics.median(quiet), 1),
            "loaded": round(statistics.median(loaded), 1),
            "ratio": round(statistics.median(loaded) / statistics.median(quiet), 2),
        },
    }


def _tune(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tunesvc", *arguments]


@contextmanager
def _server(*options: str) -> Iterator[dict[str, str]]:
    process = subprocess.Popen(
        _tune("serve", "--port", "0", "--json", *options), stdout=subprocess.PIPE, text=True
    )
    try:
        first = "" if process.stdout is None else process.stdout.readline()
        yield json.loads(first)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _headers(server: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {server['token']}"}


def _get(server: dict[str, str], path: str) -> dict[str, Any]:
    answer = httpx.get(
        f"{server['url']}/api/v1/studies/load{path}", headers=_headers(server), timeout=30
    )
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def _complete(server: dict[str, str]) -> int:
    return int(_get(server, "")["counts"]["complete"])


def _await_trials(server: dict[str, str]) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while _complete(server) < 50:
        if time.monotonic() > give_up_s:
            raise SystemExit("the study does not begin")
        time.sleep(0.5)


def _rate(server: dict[str, str], seconds: float) -> float:
    before, began_s = _complete(server), time.monotonic()
    time.sleep(seconds)
    return (_complete(server) - before) / (time.monotonic() - began_s)


def _under_load(
    server: dict[str, str], loaded_server: dict[str, str], options: argparse.Namespace
) -> tuple[float, list[Load]]:
    """Return the study's rate under load, and what clients and listeners saw."""
    ends_at = time.time() + CONNECT_S + options.window
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        futures = [
            pool.submit(_make_load, loaded_server, options.clients, 0, ends_at),
            pool.submit(_make_load, loaded_server, 0, options.listeners, ends_at),
        ]
        time.sleep(CONNECT_S)  # until all are connected
        rate = _rate(server, options.window)
        return rate, [future.result() for future in futures]


def _make_load(server: dict[str, str], clients: int, listeners: int, ends_at: float) -> Load:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    seen = Load()
    asyncio.run(_load_until(server, clients, listeners, ends_at, seen))
    seen.cpu_s = time.process_time()
    return seen


async def _load_until(
    server: dict[str, str], clients: int, listeners: int, ends_at: float, seen: Load
) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        base_url=server["url"], headers=_headers(server), limits=limits, timeout=60
    ) as client:
        tasks = [asyncio.create_task(_poll(client, i, seen)) for i in range(clients)]
        tasks += [asyncio.create_task(_listen(client, seen)) for _ in range(listeners)]
        await asyncio.sleep(max(0.0, ends_at - time.time()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _poll(client: httpx.AsyncClient, number: int, seen: Load) -> None:
    tag = ""
    await asyncio.sleep(number % 100 / 100)
    while True:
        began_s = time.perf_counter()
        try:
            answer = await client.get("/api/v1/studies/load", headers={"If-None-Match": tag})
        except httpx.HTTPError:
            seen.lost += 1
            await asyncio.sleep(1)
            continue
        seen.seconds.append(time.perf_counter() - began_s)
        seen.lost += answer.status_code not in (200, 304)
        tag = answer.headers.get("etag", tag)
        await asyncio.sleep(max(0.0, 1 - (time.perf_counter() - began_s)))


async def _listen(client: httpx.AsyncClient, seen: Load) -> None:
    while True:
        try:
            async with client.stream("GET", "/api/v1/events") as stream:
                seen.lost += stream.status_code != 200
                async for line in stream.aiter_lines():
                    seen.events += line.startswith("data:")
        except httpx.HTTPError:
            seen.lost += 1
        await asyncio.sleep(1)


def _latencies(seen: Load) -> dict[str, float]:
    cuts = statistics.quantiles(seen.seconds, n=100)
    return {"p50_ms": round(1000 * cuts[49], 1), "p95_ms": round(1000 * cuts[94], 1)}


if __name__ == "__main__":
    main()
