"""Templates, and how values look on a page. Everything from a study is text: Jinja escapes it."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tunesvc.util import formatting
from tunesvc.web.available_actions import unavailable_actions

_HERE = Path(__file__).parent
STATIC = _HERE / "static"


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A rendered template; `request` and the dashboard's staleness are known in it too."""
    text = _environment().get_template(template).render(request=request, url=_urls(request), **values)
    return HTMLResponse(text, status)


def wants_fragment(request: Request) -> bool:
    """Whether htmx asks for a part of the page to put into it; for the page before, on Back, it wants all of it."""
    headers = request.headers
    return headers.get("hx-request") == "true" and headers.get("hx-history-restore-request") != "true"


def attachment(name: str, ending: str) -> dict[str, str]:
    """Headers of an answer that is kept as a file, which is called after a study."""
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:100].strip("._") or "study"
    return {"Content-Disposition": f'attachment; filename="{safe}{ending}"'}


def spark(values: Sequence[float]) -> list[tuple[float, float]]:
    """Points of a small line, 0 ... 1 from left to right and from top (the largest) to bottom."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    across = max(len(values) - 1, 1)
    return [(i / across, (high - value) / span) for i, value in enumerate(values)]


def moment(at: datetime | None) -> Markup:
    """A time that the page shows in its reader's zone."""
    if at is None:
        return Markup("–")
    shown = at.strftime("%Y-%m-%d %H:%M UTC")
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), shown)


def ago(at: datetime | None) -> Markup:
    """A time as how long ago it was, which the page keeps counting."""
    if at is None:
        return Markup("–")
    shown = formatting.ago(at)
    return Markup('<time datetime="{}" data-ago>{}</time>').format(at.isoformat(), shown)


def percent(share: float | None) -> str:
    """A share as a whole percentage."""
    return "–" if share is None else f"{share:.0%}"


def count(number: int) -> str:
    """A number with its thousands set apart."""
    return f"{number:,}"


def params(values: Mapping[str, object]) -> Markup:
    """Parameters in one line, names soft."""
    parts = (Markup("<span>{}</span> {}").format(name, formatting.parameter(value)) for name, value in values.items())
    return Markup('<span class="params">{}</span>').format(Markup(" · ").join(parts))


def code_spans(text: str) -> Markup:
    """A sentence, with what stands between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one is left over
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def named(name: str) -> str:
    """A name that can be seen and clicked: one of blanks stands in quotes."""
    return name if name.strip() else f"“{name}”"


def amount(resource: str, value: float) -> str:
    """How much of one of Ray's resources; memory is in bytes."""
    if "memory" not in resource:
        return f"{value:.4g}"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} bytes"


def _finalized(value: Any) -> Any:
    """Text without the characters that turn the direction of what follows: a name could reverse a row.

    Filter `as_written` keeps them, for text that is edited or copied.
    """
    return _BIDI.sub("\ufffd", value) if isinstance(value, str) and not isinstance(value, Markup) else value


_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")


def _urls(request: Request) -> Any:
    def url(name: str, /, **path: object) -> str:
        """The address of a route, wherever the application is mounted; keyword `query` is for what follows the path."""
        query = path.pop("query", None)
        at = request.url_for(name, **path).path
        if name == "static":
            return f"{at}?v={_version(str(path['path']))}"
        return f"{at}?{query}" if query else at

    return url


@cache
def _version(path: str) -> str:
    """Of a static file: browsers keep it until it changes."""
    return hashlib.sha256((STATIC / path).read_bytes()).hexdigest()[:12]


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=formatting.number,
        parameter=formatting.parameter,
        duration=formatting.duration,
        params=params,
        readable=formatting.strip_control,
        coded=code_spans,
        moment=moment,
        ago=ago,
        percent=percent,
        count=count,
        shell=shlex.quote,
        violations=formatting.violations,
        named=named,
        as_written=escape,
    )
    made.globals.update(
        amount=amount,
        spark=spark,
        escape=escape,
        against=unavailable_actions,
    )
    return made
