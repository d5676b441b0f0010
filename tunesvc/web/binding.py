"""Addresses that a server listens on, and proxies that it believes. Pure but for the socket.

A server is reachable from other machines only if tokens cannot be read on the way there, and if
there are accounts.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tunesvc.errors import TuneError

HOST = "127.0.0.1"
PORT = 8088
"""First port to try."""
_PORTS_TRIED = 20

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Binding:
    """Address of a server, its certificate, and the proxy in front of it.

    Raises:
        TuneError: the parts do not fit together.
    """

    host: str = HOST
    port: int | None = None
    """None for `PORT` or the next free one; 0 for any free one."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: str = ""
    """Address or network of the proxy whose forwarded headers count."""
    path_prefix: str = ""
    """Path of the service at the proxy, such as `/tune`."""

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise TuneError("a certificate needs its key: give both --tls-cert and --tls-key")
        for option, file in (("--tls-cert", self.tls_cert), ("--tls-key", self.tls_key)):
            if file is not None and not file.is_file():
                raise TuneError(f"{option} names {file}, which is no file")
        if self.path_prefix and not _is_prefix(self.path_prefix):
            raise TuneError(
                f"--path-prefix is a path such as /tune, without / at its end: {self.path_prefix!r}"
            )
        _ = self.proxy

    @property
    def is_loopback(self) -> bool:
        """True if only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def has_tls(self) -> bool:
        """True if it encrypts by itself."""
        return self.tls_cert is not None

    @cached_property
    def proxy(self) -> Network | None:
        """Addresses of the proxy; None without one."""
        if not self.behind_proxy:
            return None
        try:
            return ipaddress.ip_network(self.behind_proxy, strict=False)
        except ValueError:
            example = "an address such as 10.0.0.7, or a network such as 10.0.0.0/24"
            raise TuneError(f"--behind-proxy is {example}, not {self.behind_proxy!r}") from None

    def check(self, *, has_accounts: bool) -> None:
        """Refuse to be reachable from elsewhere without encryption or accounts.

        Raises:
            TuneError: it would be.
        """
        if self.is_loopback:
            return
        where = f"to listen on {self.host}, which other machines may reach,"
        if not self.has_tls and self.proxy is None:
            raise TuneError(
                f"{where} tokens must not travel in the clear: give --tls-cert and --tls-key, or "
                "--behind-proxy ADDRESS for a proxy that has the certificate"
            )
        if not has_accounts:
            raise TuneError(
                f"{where} the service needs accounts: start `tune serve` here on loopback first, "
                "or add one by `tune user add NAME --admin`"
            )

    def bind(self) -> socket.socket:
        """Return a listening socket.

        Raises:
            TuneError: the port is taken, or the address is not one of this machine.
        """
        ports = range(PORT, PORT + _PORTS_TRIED) if self.port is None else [self.port]
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        for one in ports:
            # With the protocol named, asyncio sends small answers at once: without, after 40 ms.
            bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                bound.bind((self.host, one))
                bound.listen(128)
            except OSError:
                bound.close()
                continue
            return bound
        taken = f"port {self.port}"
        if self.port is None:
            taken = f"every port from {PORT} to {PORT + _PORTS_TRIED - 1}"
        raise TuneError(f"{taken} on {self.host} is taken; name another with --port")


def _is_prefix(text: str) -> bool:
    parts = text.split("/")
    return parts[0] == "" and len(parts) > 1 and all(part and part != ".." for part in parts[1:])
