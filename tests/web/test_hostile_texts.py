"""Hostile texts in every field of the API and of the forms, with accounts on.

Each is refused with the reason or kept; what is kept cannot act on any page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.integration.test_cluster_view import running
from tests.support.accounts import Team, make_team, serving_accounts
from tests.web.conftest import routes_of
from tests.web.test_every_route import VALUES
from tunesvc.db.engine.database import Database
from tunesvc.queries.studies import get_study
from tunesvc.web import DashboardServer

API = "/api/v1"
MARKUP = "<img src=x onerror=alert(1)>\"'`{{7*7}}"
DIRECTION, ESCAPE = "\u202egnp.exe", "\x1b]0;owned\x07\x9b2J"
TEXTS = {
    "NUL": "a\0b",
    "half a surrogate pair": "a\ud800b",
    "markup": MARKUP,
    "direction": DIRECTION,
    "escapes": ESCAPE,
    "line ends": "a\r\nSet-Cookie: tunesvc=evil\r\n\r\n<script>",
    "formula": "=cmd|' /C calc'!A0",
    "600 characters": "\U0001f600" * 600,
    "path": "../../../../etc/passwd",
    "nothing": "",
    "blank": " \t ",
}
SLOW_S = 15.0
"""No text may keep a server busy for longer; a command waits for a coordinator for 6 s."""
OFTEN = ("NUL", "half a surrogate pair")
"""Texts that nearly every place that stores a text has to refuse or replace."""


@dataclass(frozen=True)
class Served:
    """A server with accounts, and what an administrator sends to it."""

    server: DashboardServer
    client: httpx.Client
    team: Team
    study_id: int

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = self.team.headers("admin") | options.pop("headers", {})
        return self.client.request(method, path, headers=headers, timeout=60, **options)

    def send_json(self, method: str, path: str, body: object) -> httpx.Response:
        content = json.dumps(body).encode()  # escapes, so that half a surrogate pair can be sent
        return self.send(
            method, path, content=content, headers={"Content-Type": "application/json"}
        )


@pytest.fixture(scope="module")
def served(shared_database: Database) -> Iterator[Served]:
    team = make_team(shared_database)
    running(shared_database, name="test")
    study_id = get_study(shared_database, "test").study_id
    team.own(study_id)
    with serving_accounts(shared_database) as (server, client):
        yield Served(server, client, team, study_id)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in OFTEN else pytest.mark.slow) for kind in TEXTS]
)
def test_any_text_in_any_field_of_the_api_is_kept_or_refused(served: Served, kind: str) -> None:
    """Faults 35, 37, 39 and 42, in names, labels, addresses, notes and all else that is sent."""
    document = served.client.get(f"{API}/openapi.json").json()
    broken = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if path.endswith(("/events", "/stream")) and method == "get":
                continue  # without an end
            for place, answer in _asked(served, document, method, path, operation, TEXTS[kind]):
                took_s = answer.elapsed.total_seconds()
                if answer.status_code >= 500 or "Set-Cookie" in answer.headers or took_s > SLOW_S:
                    broken.append((method, path, place, answer.status_code, took_s))
    assert broken == []


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in OFTEN else pytest.mark.slow) for kind in TEXTS]
)
def test_any_text_in_any_field_of_a_form_is_kept_or_refused(served: Served, kind: str) -> None:
    """Faults 35, 37, 39 and 42, in the forms of all pages."""
    broken, text = [], TEXTS[kind].encode("utf-8", "surrogatepass")
    for route in routes_of(served.server):
        for method in sorted(route.methods - {"HEAD"}):
            params = (
                route.dependant.body_params if method == "POST" else route.dependant.query_params
            )
            names = [param.alias for param in params]
            for name in names if route.path != "/events" else ():
                at = filled(route.path, str(served.study_id))
                fields = {one: text if one == name else _FORM.get(one, b"x") for one in names}
                content = b"&".join(
                    one.encode() + b"=" + quote(value).encode() for one, value in fields.items()
                )
                if method == "POST":
                    form = {"Content-Type": "application/x-www-form-urlencoded"}
                    answer = served.send(method, at, content=content, headers=form)
                else:
                    answer = served.send(method, f"{at}?{content.decode()}")
                if answer.status_code >= 500 or "evil" in str(answer.headers):
                    broken.append((method, route.path, name, answer.status_code))
    assert broken == []


def test_what_was_kept_cannot_act_on_any_page(served: Served) -> None:
    """Faults 37 and 39, on the pages of accounts and in what is written about requests."""
    text = MARKUP + DIRECTION
    kept = [
        served.send_json("POST", f"{API}/tokens", {"label": text}),
        served.send_json("POST", f"{API}/studies/test/tags", {"add": [MARKUP]}),
        served.send_json("PUT", f"{API}/studies/test/note", {"text": text}),
        served.send_json("POST", f"{API}/alerts", {"url": f"json://127.0.0.1/{MARKUP}"}),
        served.send("POST", f"{API}/studies/test/ask", params={"name": text}),
        served.send("DELETE", f"{API}/studies/{quote(text, safe='')}"),
        served.send("POST", "/team/projects", data={"name": text}),
    ]
    assert [one.status_code for one in kept] == [201, 200, 200, 201, 204, 404, 400]
    for one in kept:
        assert one.headers["x-content-type-options"] == "nosniff"
    shown = 0
    for path in (
        *("/account", "/audit", "/team", "/studies", "/cluster", "/new"),
        *(f"/studies/{served.study_id}{rest}" for rest in ("", "/requests", "/configuration")),
        f"/nothing/{quote(text)}",
        f"/audit?user={quote(text)}",
        f"/enter?key={quote(text)}",
    ):
        page = served.send("GET", path).text
        assert "<img src=x" not in page, path
        assert "\u202e" not in page, path
        shown += "&lt;img src=x" in page
    assert shown >= 5, "texts are shown, so that they could have acted"


_FORM: Mapping[str, bytes] = {"role": b"viewer", "days": b"30", "is_disabled": b"false"}
"""Fields that are not text; so the other ones are looked at."""


def filled(path: str, study: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: VALUES.get(found[1], study), path)


def _asked(
    served: Served, document: Any, method: str, path: str, operation: Any, text: str
) -> Iterator[tuple[str, httpx.Response]]:
    """Send a request for each place that takes a text; yield the place and the answer."""
    at = API + filled(path, "1")
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema")
    valid = None if schema is None else _example(document, schema)
    is_sendable = "\ud800" not in text
    for one in operation.get("parameters", ()):
        if one["schema"].get("type", "string") != "string" or not is_sendable:
            continue
        if one["in"] == "query":
            answer = served.send(method, at, params={one["name"]: text}, content=_dumped(valid))
        elif one["in"] == "path" and text.strip():
            twice = quote(quote(text, safe=""), safe="")
            there = API + path.replace(f"{{{one['name']}}}", twice)
            answer = served.send(method, filled(there, "1"), content=_dumped(valid))
        else:
            continue
        yield f"{one['in']} {one['name']}", answer
    for place in _texts(valid):
        yield str(place), served.send_json(method, at, _replaced(valid, place, text))


def _dumped(value: object) -> bytes | None:
    return None if value is None else json.dumps(value).encode()


def _example(document: Any, schema: Any, depth: int = 0) -> Any:
    """Return a value of a schema, with something in every field."""
    if schema is True:
        return "x"
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return _example(document, schema[choice][0], depth)
    if "const" in schema or "enum" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    match schema.get("type"):
        case "object" if depth < 3:
            fields = schema.get("properties", {})
            found = {name: _example(document, one, depth + 1) for name, one in fields.items()}
            more = schema.get("additionalProperties")
            return found | ({"x": _example(document, more, depth + 1)} if more else {})
        case "array" if depth < 3:
            return [_example(document, schema.get("items", {}), depth + 1)]
        case "string":
            return "x"
        case "number" | "integer":
            return 1
        case "boolean":
            return False
    return {}


Place = tuple[str | int, ...]


def _texts(value: Any, before: Place = ()) -> Iterator[Place]:
    """Yield where texts are in a value, and keys that may be any."""
    if isinstance(value, str):
        yield before
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, one in items:
        yield from _texts(one, (*before, key))


def _replaced(value: Any, place: Place, text: str) -> Any:
    if not place:
        return text
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = _replaced(value[place[0]], place[1:], text)
    return copy
