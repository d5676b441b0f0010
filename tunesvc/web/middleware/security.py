"""What every request and every answer has to keep, whichever route it is for: host, origin, and headers.

A host of its own: browsers send the cookies of 127.0.0.1 to every server on it, whatever its port, so those that
resolve names below localhost are sent to one that no other server has.

Against DNS rebinding: a name that points at this machine is refused unless it is one of ours. Against cross-site
requests: what changes something has to come from our own pages; reading takes the cookie, which other sites' pages
cannot send. Imports nothing of tunesvc.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from starlette.datastructures import URL, Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""An empty `<style>`: Plotly puts one in and fills it through the DOM, which a policy does not see as inline."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src 'self' {_EMPTY_STYLE}",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # not `no-referrer`, under which browsers hide the origin of our own forms
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class SecurityMiddleware:
    """ASGI middleware around the whole application.

    Args:
        hosts: the values of `Host` that are ours, port included.
        own: the one of them that is no other server's; browsers are sent there.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], own: str = "") -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._own = own.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answer, headers = _with_headers(send), Headers(scope=scope)
        reason = refusal(
            scope["method"] if scope["type"] == "http" else "POST",
            headers,
            self._hosts,
        )
        if not reason and self._own and headers["host"].lower() != self._own and _may_move(scope, headers):
            at = URL(scope=scope).replace(netloc=self._own)
            await RedirectResponse(at, 307)(scope, receive, answer)
        elif reason:
            await PlainTextResponse(f"refused: {reason}\n", 403)(scope, receive, answer)
        else:
            await self._app(scope, receive, answer)


def refusal(method: str, headers: Headers, hosts: Container[str]) -> str:
    """Why a request is refused; empty when it is not."""
    host = headers.get("host", "").lower()
    if host not in hosts:
        return f"the host {host!r} is not this dashboard's; open the address that it printed"
    origin = headers.get("origin")
    if origin is not None and not _is_ours(origin, hosts):
        return f"the request comes from {origin!r}, not from this dashboard's pages"
    if method not in _READING and not _is_form(headers):
        return "it would change something, and its body is no form"
    if method not in _READING and origin is None and headers.get("sec-fetch-site") != "same-origin":
        return "it would change something, and does not say that it comes from this dashboard's pages"
    return ""


def _is_form(headers: Headers) -> bool:
    """Whether a body is a form, or there is none: what else a route reads from it would be empty fields."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in _FORMS or (not kind and headers.get("content-length", "0") == "0")


def _may_move(scope: Scope, headers: Headers) -> bool:
    """Whether a browser opens a page, and one that resolves every name below localhost by itself."""
    opens = scope["type"] == "http" and scope["method"] == "GET" and headers.get("sec-fetch-dest") == "document"
    return opens and any(name in headers.get("user-agent", "") for name in ("Chrome/", "Firefox/"))


def _is_ours(origin: str, hosts: Container[str]) -> bool:
    scheme, _, host = origin.lower().partition("://")
    return scheme in ("http", "https") and host in hosts


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return answer
