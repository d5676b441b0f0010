"""Checks of host and origin, and security headers, for every route.

Own host: browsers send the cookies of 127.0.0.1 to every server on it, on any port. So browsers
that resolve names below localhost are redirected to a host that no other server uses.

DNS rebinding: a request for a host that is not one of ours is refused. Cross-site requests:
requests that change something have to come from our own pages, or have a token in their header;
reading needs the cookie, which pages of other sites cannot send. Imports nothing of tunesvc.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from starlette.datastructures import URL, Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""Hash of an empty `<style>`. Plotly inserts one and fills it through the DOM, which is allowed."""

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
    # Not `no-referrer`: with it, browsers hide the origin of our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class SecurityMiddleware:
    """ASGI middleware around the whole application.

    Args:
        app: The wrapped application.
        hosts: Allowed values of `Host`, including the port; None for a server with a name of its
            own, where no other site gets cookies.
        own: The one of them that no other server uses; browsers are redirected there.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None, own: str = "") -> None:
        self._app = app
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._own = own.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        send_with_headers = _with_headers(send)
        headers = Headers(scope=scope)
        method = scope["method"] if scope["type"] == "http" else "POST"
        hosts = (headers.get("host", "").lower(),) if self._hosts is None else self._hosts
        reason = refusal(method, headers, hosts)
        if reason:
            refused = PlainTextResponse(f"refused: {reason}\n", 403)
            await refused(scope, receive, send_with_headers)
        elif self._is_elsewhere(headers) and _can_redirect(scope, headers):
            own_url = URL(scope=scope).replace(netloc=self._own)
            await RedirectResponse(own_url, 307)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _is_elsewhere(self, headers: Headers) -> bool:
        return bool(self._own) and headers["host"].lower() != self._own


def refusal(method: str, headers: Headers, hosts: Container[str]) -> str:
    """Return the reason to refuse a request; empty to accept it."""
    host = headers.get("host", "").lower()
    if host not in hosts:
        return f"the host {host!r} is not this dashboard's; open the address that it printed"
    origin = headers.get("origin")
    if origin is not None and not _is_ours(origin, hosts):
        return f"the request comes from {origin!r}, not from this dashboard's pages"
    if method in _READING or has_bearer(headers):
        return ""
    if not _is_form(headers):
        return "it would change something, and its body is not a form"
    if origin is None and headers.get("sec-fetch-site") != "same-origin":
        change = "it would change something"
        return f"{change}, and does not say that it comes from this dashboard's pages"
    return ""


def has_bearer(headers: Headers) -> bool:
    """Return True for a request with a token, which pages of other sites cannot send."""
    return headers.get("authorization", "").lower().startswith("bearer ")


def _is_form(headers: Headers) -> bool:
    """Return True for a form or an empty body: routes would read other bodies as empty fields."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in _FORMS or (not kind and headers.get("content-length", "0") == "0")


def _can_redirect(scope: Scope, headers: Headers) -> bool:
    """Return True if a browser that resolves every name below localhost opens a page."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return False
    agent = headers.get("user-agent", "")
    resolves_names = "Chrome/" in agent or "Firefox/" in agent
    return resolves_names and headers.get("sec-fetch-dest") == "document"


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
