"""A TCP proxy in front of a Postgres, which does to its connections what networks do.

It reads just enough of the protocol to know a COMMIT when it sees one. It asks for no encryption on
the client's behalf, so `sslmode` may be anything that does not require it.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum
from typing import Self

import sqlalchemy as sa

_ENCRYPTION_REQUESTS = (80877103, 80877104)  # SSLRequest, GSSENCRequest
_CHUNK = 65536


class Mode(Enum):
    """Treatment of the bytes that pass."""

    PASS = "pass"
    SWALLOW = "swallow"
    """Packets are taken, and go nowhere: a half-open connection, to both sides."""
    SWALLOW_ANSWERS = "swallow answers"
    """The server hears the client, and not the other way round."""


class Proxy:
    """Listens on a loopback port and forwards to `dial()`. A context manager; thread-safe."""

    def __init__(self, dial: Callable[[], socket.socket], port: int = 0) -> None:
        self.mode = Mode.PASS
        self.accepted = 0
        """Number of connections accepted."""
        self.answers_lost = 0
        """Number of commits that reached the server whose answer did not reach the client."""
        self.is_plain = False
        self._dial = dial
        self._lose_next_answer = False
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self.port = self._listen(port)

    @classmethod
    def before(cls, url: sa.URL | str) -> Self:
        """A proxy for the server of `url`, by TCP or by Unix socket."""
        where = _address(sa.make_url(url))
        return cls(lambda: _connected(where))

    @classmethod
    def plain(cls, where: tuple[str, int]) -> Self:
        """A proxy for a server of any protocol, which knows of no commits."""
        proxy = cls(lambda: socket.create_connection(where))
        proxy.is_plain = True
        return proxy

    def url(self, url: sa.URL | str) -> str:
        """`url`, by way of this proxy."""
        return _through(sa.make_url(url), self.port)

    def refuse(self) -> None:
        """Stop listening; existing connections stay."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            _shut(listener)

    def accept(self) -> None:
        """Listen again, on the same port."""
        if self._listener is None:
            self._listen(self.port)

    def cut(self) -> None:
        """End all connections now."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()

    def silence(self) -> None:
        """From now on nothing comes through the connections that are there; new ones are not
        concerned."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.has_hole = True

    def lose_next_commit(self) -> None:
        """Let the next COMMIT through, wait for its answer, and cut the connection instead of
        delivering it."""
        self._lose_next_answer = True

    def close(self) -> None:
        """End everything. Repeatable."""
        self.refuse()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self, port: int) -> int:
        listener = socket.create_server(("127.0.0.1", port))
        with self._lock:
            self._listener = listener
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()
        return int(listener.getsockname()[1])

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = self._dial()
        except OSError:
            _shut(client)
            return
        link = _Link(self, client, server)
        with self._lock:
            self._links.add(link)
        threading.Thread(target=link.carry_answers, daemon=True).start()
        link.carry_requests()
        with self._lock:
            self._links.discard(link)

    def takes_answer_of(self, request: bytes) -> bool:
        """Return whether the answer to this message is the one to lose."""
        if not (
            self._lose_next_answer
            and request.startswith(b"Q")
            and request[5:].upper().startswith(b"COMMIT")
        ):
            return False
        self._lose_next_answer = False
        return True


class _Link:
    """One client's connection and the server's, and the two directions between them.

    Once it has swallowed something it swallows for ever: a stream with a hole in it is of no use.
    """

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._loses_answer = False
        self.has_hole = False

    def carry_requests(self) -> None:
        with suppress(OSError, EOFError):
            for message in self._requests():
                self._loses_answer = self._proxy.takes_answer_of(message)
                if not self._swallows(Mode.SWALLOW):
                    self._server.sendall(message)
        self.close()

    def carry_answers(self) -> None:
        with suppress(OSError):
            while chunk := self._server.recv(_CHUNK):
                if self._loses_answer:
                    self._proxy.answers_lost += 1
                    return self.close()
                if not self._swallows(Mode.SWALLOW, Mode.SWALLOW_ANSWERS):
                    self._client.sendall(chunk)
        if not self.has_hole:  # else the client does not even learn that the server has hung up
            self.close()
        return None

    def _swallows(self, *modes: Mode) -> bool:
        self.has_hole = self.has_hole or self._proxy.mode in modes
        return self.has_hole

    def close(self) -> None:
        _shut(self._client)
        _shut(self._server)

    def _requests(self) -> Iterator[bytes]:
        if self._proxy.is_plain:
            yield from iter(lambda: self._client.recv(_CHUNK), b"")
            return
        yield self._startup()
        while True:
            head = _read(self._client, 5)
            yield head + _read(self._client, struct.unpack("!I", head[1:])[0] - 4)

    def _startup(self) -> bytes:
        """The first message, after any wish for encryption was declined."""
        while True:
            head = _read(self._client, 8)
            length, code = struct.unpack("!II", head)
            if code not in _ENCRYPTION_REQUESTS:
                return head + _read(self._client, length - 8)
            self._client.sendall(b"N")


def _read(source: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = source.recv(size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def _address(url: sa.URL) -> str | tuple[str, int]:
    host = str(url.query.get("host") or url.host or "127.0.0.1")
    port = int(str(url.query.get("port") or url.port or 5432))
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def _connected(where: str | tuple[str, int]) -> socket.socket:
    if isinstance(where, tuple):
        return socket.create_connection(where)
    server = socket.socket(socket.AF_UNIX)
    server.connect(where)
    return server


def _through(url: sa.URL, port: int) -> str:
    rest = {name: value for name, value in url.query.items() if name not in ("host", "port")}
    return url.set(host="127.0.0.1", port=port, query=rest).render_as_string(hide_password=False)
