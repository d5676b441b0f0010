"""What every request and every answer has to keep, whichever route it is for: host, origin, and headers.

Against DNS rebinding: a name that points at this machine is refused unless it is one of ours. Against cross-site
requests: what changes something has to come from our own pages; reading takes the cookie, which other sites' pages
cannot send. Imports nothing of tunesvc.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
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
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware around the whole application.

    Args:
        hosts: the values of `Host` that are ours, port included.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answer = _with_headers(send)
        reason = refusal(scope["method"] if scope["type"] == "http" else "POST", Headers(scope=scope), self._hosts)
        if reason:
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
    if method not in _READING and origin is None and headers.get("sec-fetch-site") != "same-origin":
        return "it would change something, and does not say that it comes from this dashboard's pages"
    return ""


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
