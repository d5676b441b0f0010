"""Answers to calls of URLs: their status is read, in bounded time and memory."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tunesvc.champions import announcements


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that answers its first call so."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(2**16)
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        thread.join(10.0)
        assert not thread.is_alive(), "the connection was closed"


def endless(status: str) -> Callable[[socket.socket], None]:
    """Return an answer whose content has no end."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\n\r\n".encode())
        while True:
            connection.sendall(b"x" * 2**16)

    return answer


def slow(connection: socket.socket) -> None:
    """Answer with headers that have no end, a little at a time."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"x-more: x\r\n")
        time.sleep(0.02)


@pytest.mark.timeout(30)
def test_the_content_of_an_answer_is_not_read() -> None:
    with answering(endless("200 OK")) as url:
        assert announcements._post(url, "{}") == ""
    with answering(endless("500 Error")) as url:
        assert announcements._post(url, "{}") == "the answer was 500"


@pytest.mark.timeout(30)
def test_a_slow_answer_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcements, "ANSWER_S", 0.3)
    with answering(slow) as url:
        assert announcements._post(url, "{}") == "no answer within 0.3 s"
