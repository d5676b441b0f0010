"""Ids of requests: in answers, errors and logs; those of the named proxy only are kept."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.accounts import make_team, serving_accounts
from tunesvc.db.engine.database import Database
from tunesvc.util.logs import REQUEST_ID, configure
from tunesvc.web.middleware.proxy import ProxyMiddleware
from tunesvc.web.middleware.request_ids import HEADER, RequestIdMiddleware

pytest.importorskip("pythonjsonlogger")


def test_an_error_of_the_api_names_its_request(shared_database: Database) -> None:
    team = make_team(shared_database)
    with serving_accounts(shared_database) as (_, client):
        client.headers.update(team.headers("viewer"))
        missing = client.get("/api/v1/studies/nothing", headers={HEADER: "forged"})
        assert missing.status_code == 404
        assert missing.headers[HEADER] != "forged"
        assert missing.json()["instance"] == f"urn:tunesvc:request:{missing.headers[HEADER]}"
        other = client.get("/studies", headers={HEADER: "forged"})
        assert other.headers[HEADER] not in ("forged", missing.headers[HEADER])


@pytest.mark.parametrize(
    ("proxy", "given", "is_kept"),
    [
        ("127.0.0.1/32", "from-proxy:1", True),
        ("127.0.0.1/32", "two words", False),
        ("127.0.0.1/32", "x" * 129, False),
        (None, "from-anybody", False),
    ],
)
def test_only_the_proxys_id_is_kept_and_logged(
    monkeypatch: pytest.MonkeyPatch, proxy: str | None, given: str, is_kept: bool
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    logger = logging.getLogger("tunesvc")
    before = [*logger.handlers], logger.level, logger.propagate
    configure({"TUNE_LOG_LEVEL": "info", "TUNE_LOG_FORMAT": "json"})

    async def app(scope: object, receive: object, send: object) -> None:
        logging.getLogger("tunesvc.web").info("answered")
        await send({"type": "http.response.start", "status": 204, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body"})  # type: ignore[operator]

    network = None if proxy is None else ipaddress.ip_network(proxy)
    wrapped = ProxyMiddleware(RequestIdMiddleware(app), network)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(wrapped)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.get("/", headers={HEADER: given})

    try:
        # in a thread, since a browser's loop may run in this one
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(asyncio.run, ask()).result()
    finally:
        logger.handlers[:], logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
    assert (answer.headers[HEADER] == given) is is_kept
    assert json.loads(log.getvalue())["request"] == answer.headers[HEADER]
    assert REQUEST_ID.get() is None
