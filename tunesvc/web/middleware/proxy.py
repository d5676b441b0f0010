"""Believes the forwarded headers of one named proxy only. Imports nothing of tunesvc.

Behind a proxy, connections from elsewhere are refused: they would not be encrypted, and could
write the headers themselves. Probes of an orchestrator come without the proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_FORWARDED = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"})
_REQUEST_ID = frozenset({b"x-request-id"})


class ProxyMiddleware:
    """ASGI middleware around all others.

    Args:
        app: The wrapped application.
        proxy: Addresses of the proxy; None without one.
        prefix: Path of the service at the proxy, which may strip it or not.
    """

    def __init__(self, app: ASGIApp, proxy: Network | None = None, prefix: str = "") -> None:
        self._app = app
        self._proxy = proxy
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = dict(scope)
            if self._proxy is not None and not self._is_proxy(_address(scope)):
                if scope["path"] not in PROBES:
                    text = "refused: this server answers its proxy only\n"
                    await PlainTextResponse(text, 403)(scope, receive, send)
                    return
                _drop(scope, _REQUEST_ID)
            elif self._proxy is not None:
                _believe(scope, Headers(scope=scope), self._client(scope))
            else:
                _drop(scope, _REQUEST_ID)
            _drop(scope, _FORWARDED)
            _add_prefix(scope, self._prefix)
        await self._app(scope, receive, send)

    def _is_proxy(self, address: str) -> bool:
        try:
            return self._proxy is not None and ipaddress.ip_address(address) in self._proxy
        except ValueError:
            return False

    def _client(self, scope: Scope) -> str:
        """Return the last forwarded address that is not the proxy's: clients write earlier ones."""
        listed = ",".join(Headers(scope=scope).getlist("x-forwarded-for"))
        for address in reversed([part.strip() for part in listed.split(",")]):
            if address and not self._is_proxy(address):
                return address[:100]
        return _address(scope)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


def _believe(scope: Scope, headers: Mapping[str, str], client: str) -> None:
    scope["client"] = (client, 0)
    scheme = headers.get("x-forwarded-proto", "").strip().lower()
    if scheme in ("http", "https"):
        scope["scheme"] = scheme
    host = headers.get("x-forwarded-host", "").strip()
    if host:
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [*others, (b"host", host.encode("latin-1"))]


def _drop(scope: Scope, names: frozenset[bytes]) -> None:
    scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in names]


def _add_prefix(scope: Scope, prefix: str) -> None:
    if not prefix:
        return
    path = scope["path"]
    if path != prefix and not path.startswith(prefix + "/"):
        scope["path"] = prefix + path
        raw: bytes = scope.get("raw_path") or path.encode("utf-8")
        scope["raw_path"] = prefix.encode("latin-1") + raw
    scope["root_path"] = prefix
