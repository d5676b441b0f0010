"""A server under load: latency of its API, and what the load costs the study that it runs.

    python -m benchmarks.service_load [--clients 200] [--listeners 500] [--window 20] [--rounds 3]

One `tune serve` with a local Ray runs a study of short trials. In turns, nothing and the load are on
it: clients that each read the study once a second, with the entity tag of the last answer; and
listeners to its events. The load comes from one process on the same machine, so it takes processor
time from the server, which a team's browsers do not: `clients_cpu` is how much of one core it took.

    p50, p95        of all answers, in milliseconds, and the share of 304s
    events_per_s    of all listeners together
    trials_per_s    of the study in the quiet and the loaded windows, medians, and their ratio
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

PATIENCE_S = 120.0
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
    """What clients and listeners saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    events: int = 0
    lost: int = 0
    """Requests and streams that failed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--listeners", type=int, default=500)
    parser.add_argument("--window", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # run by root, Postgres runs as another user
        print(json.dumps(_measure(Path(folder), options), indent=2))


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    study = folder / "study"
    study.mkdir()
    (study / "objective.py").write_text(OBJECTIVE)
    (study / "study.yaml").write_text(STUDY)
    os.environ["TUNE_HOME"] = str(folder / "home")
    with _server() as server:
        os.environ |= {"TUNE_SERVER": server["url"], "TUNE_TOKEN": server["token"]}
        subprocess.run(_tune("submit", str(study / "study.yaml")), check=True)
        _await_trials(server)
        quiet, loaded, seen = [], [], Load()
        cpu_s = 0.0
        for _ in range(options.rounds):
            quiet.append(_rate(server, options.window))
            began_s = time.process_time()
            loaded.append(asyncio.run(_under_load(server, options, seen)))
            cpu_s += time.process_time() - began_s
        _get(server, "")
    return {
        **_latencies(seen),
        "requests": len(seen.seconds),
        "not_modified": round(seen.statuses.count(304) / max(1, len(seen.statuses)), 3),
        "lost": seen.lost,
        "events_per_s": round(seen.events / (options.rounds * options.window), 1),
        "clients_cpu": round(cpu_s / (options.rounds * options.window), 2),
        "trials_per_s": {
            "quiet": round(statistics.median(quiet), 1),
            "loaded": round(statistics.median(loaded), 1),
            "ratio": round(statistics.median(loaded) / statistics.median(quiet), 2),
        },
    }


def _tune(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tunesvc", *arguments]


@contextmanager
def _server() -> Iterator[dict[str, str]]:
    process = subprocess.Popen(
        _tune("serve", "--port", "0", "--json"), stdout=subprocess.PIPE, text=True
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


async def _under_load(server: dict[str, str], options: argparse.Namespace, seen: Load) -> float:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        base_url=server["url"], headers=_headers(server), limits=limits, timeout=60
    ) as client:
        tasks = [asyncio.create_task(_poll(client, i, seen)) for i in range(options.clients)]
        tasks += [asyncio.create_task(_listen(client, seen)) for _ in range(options.listeners)]
        await asyncio.sleep(3)  # until all are connected
        rate = await asyncio.to_thread(_rate, server, options.window)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return rate


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
        seen.statuses.append(answer.status_code)
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
