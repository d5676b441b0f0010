"""Templates, and the formatting of values on pages. Jinja escapes all text from studies."""

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

from tunesvc.charts import svg
from tunesvc.util import formatting
from tunesvc.util.characters import left_to_right, strip_control
from tunesvc.web.available_actions import unavailable_actions

_HERE = Path(__file__).parent
STATIC = _HERE / "static"


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a template; it also gets `request`, `url`, `user`, and `can`, what the user may do."""
    loaded = _environment().get_template(template)
    return HTMLResponse(
        loaded.render(
            request=request,
            url=_urls(request),
            user=getattr(request.state, "user", None),
            can=getattr(request.state, "can", _nothing),
            **values,
        ),
        status,
    )


def _nothing(_permission: str, _study_id: int | None = None) -> bool:
    """Return False: without a user, a page offers nothing."""
    return False


def wants_fragment(request: Request) -> bool:
    """Return True if htmx requests a part of the page.

    On Back it requests the whole former page.
    """
    headers = request.headers
    is_restored = headers.get("hx-history-restore-request") == "true"
    return headers.get("hx-request") == "true" and not is_restored


def attachment(name: str, ending: str) -> dict[str, str]:
    """Return the headers of a download that is named after a study."""
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:100].strip("._") or "study"
    return {"Content-Disposition": f'attachment; filename="{safe}{ending}"'}


def sparkline(values: Sequence[float], name: str) -> Markup:
    """Return a small drawing of values; empty for fewer than two."""
    return Markup(svg.sparkline(values, name))  # noqa: S704  # it escapes the name


def moment(at: datetime | None) -> Markup:
    """Format a time, which the page's script converts to the local time zone."""
    if at is None:
        return Markup("–")
    shown = at.strftime("%Y-%m-%d %H:%M UTC")
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), shown)


def ago(at: datetime | None) -> Markup:
    """Format the time since a moment, which the page's script updates."""
    if at is None:
        return Markup("–")
    shown = formatting.ago(at)
    return Markup('<time datetime="{}" data-ago>{}</time>').format(at.isoformat(), shown)


def percent(share: float | None) -> str:
    """Format a share as a whole percentage."""
    return "–" if share is None else f"{share:.0%}"


def count(number: int) -> str:
    """Format a number with thousands separators."""
    return f"{number:,}"


def params(values: Mapping[str, object]) -> Markup:
    """Format parameters in one line, with soft names."""
    pair = Markup("<span>{}</span> {}")
    parts = [pair.format(name, formatting.parameter(value)) for name, value in values.items()]
    return Markup('<span class="params">{}</span>').format(Markup(" · ").join(parts))


def code_spans(text: str) -> Markup:
    """Format a sentence, with text between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # an unpaired backtick
        return escape(text)
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(part) if i % 2 else part for i, part in enumerate(parts))


def named(name: str) -> str:
    """Return a name that is visible and can be clicked: a blank one in quotes."""
    return name if name.strip() else f"“{name}”"


def amount(resource: str, value: float) -> str:
    """Format an amount of one of Ray's resources; memory is in bytes."""
    if "memory" not in resource:
        return f"{value:.4g}"
    return formatting.size(value)


def _finalized(value: Any) -> Any:
    """Replace characters that change the writing direction, as a name could reverse its row.

    Filter `as_written` keeps them, for text that is edited or copied.
    """
    if isinstance(value, str) and not isinstance(value, Markup):
        return left_to_right(value)
    return value


def _urls(request: Request) -> Any:
    def url(name: str, /, **path: object) -> str:
        """Return the URL of a route below the mount path; `query` is added after the path."""
        query = path.pop("query", None)
        at = request.url_for(name, **path).path
        if name == "static":
            return f"{at}?v={_version(str(path['path']))}"
        return f"{at}?{query}" if query else at

    return url


@cache
def _version(path: str) -> str:
    """Return the version of a static file: browsers cache it until this changes."""
    return hashlib.sha256((STATIC / path).read_bytes()).hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=formatting.number,
        bytes=formatting.size,
        parameter=formatting.parameter,
        duration=formatting.duration,
        params=params,
        readable=strip_control,
        coded=code_spans,
        moment=moment,
        ago=ago,
        until=formatting.until,
        percent=percent,
        count=count,
        shell=shlex.quote,
        violations=formatting.violations,
        named=named,
        as_written=escape,
    )
    environment.globals.update(
        amount=amount,
        sparkline=sparkline,
        escape=escape,
        unavailable_actions=unavailable_actions,
    )
    return environment
