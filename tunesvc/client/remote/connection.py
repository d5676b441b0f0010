"""The connection to a server's API: requests, retries and errors.

A request that a server may have carried out is sent again with the same idempotency key, so it is
carried out once.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import ValidationError

from tunesvc.client.problems import MEDIA_TYPE, Problem, to_error
from tunesvc.client.remote.event_source import ServerEvent, read_events
from tunesvc.client.wire_format import decode, encode
from tunesvc.errors import ArtifactDamaged, DatabaseUnavailable, ServerError, TuneError

T = TypeVar("T")

API = "/api/v1"
TIMEOUT_S = 60.0
UPLOAD_S = 600.0
"""Longest wait for the answer to an upload, which the server also passes on."""
CONNECT_S = 5.0
RETRY_S = 10.0
"""Time for which a request is tried again while the server cannot be reached."""
_PAUSE_S = 0.25
SILENCE_S = 45.0
"""A stream of events without a heartbeat for so long is opened again: servers send three."""


class ServerConnection:
    """HTTP connections to one server. Thread-safe.

    Args:
        url: Address of the server, with the prefix of a proxy if there is one.
        token: Token of the user; None for none.
        retry_s: How long a request is tried again while the server cannot be reached.

    Raises:
        ServerError: the address is not one of a server.
    """

    def __init__(self, url: str, token: str | None, retry_s: float = RETRY_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ServerError(f"{_shown(url)!r} is no server's address: write https://HOST")
        self.url = url.rstrip("/")
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
        self._http = httpx.Client(base_url=self.url + API, headers=headers, timeout=timeout)
        self._retry_s = retry_s

    def close(self) -> None:
        """Close the connections. Repeatable."""
        self._http.close()

    def get(self, kind: type[T], path: str, **query: object) -> T:
        """Return the value at a path; see `wire_format.decode` for `kind`."""
        return self._read(kind, self._send("GET", path, query=query))

    def post(self, kind: type[T], path: str, body: object) -> T:
        """Create something, or send a command; return the answer."""
        return self._read(kind, self._send("POST", path, body=body))

    def patch(self, kind: type[T], path: str, body: object) -> T:
        """Change something; return the answer."""
        return self._read(kind, self._send("PATCH", path, body=body))

    def put(self, kind: type[T], path: str, body: object) -> T:
        """Replace something; return the answer."""
        return self._read(kind, self._send("PUT", path, body=body))

    def delete(self, kind: type[T], path: str) -> T:
        """Delete something; return the answer."""
        return self._read(kind, self._send("DELETE", path))

    def upload(self, path: str, file: Path, **query: object) -> None:
        """Send a file's content, in pieces."""
        length = str(file.stat().st_size)
        headers = {"Content-Length": length, "Content-Type": "application/octet-stream"}
        self._repeated(
            lambda: self._http.build_request(
                "PUT",
                path,
                params=_params(query),
                content=_pieces(file),
                headers=headers,
                timeout=httpx.Timeout(UPLOAD_S, connect=CONNECT_S),
            )
        )

    def download(self, path: str, file: Path, digest: str) -> None:
        """Write what is at a path to a file, in pieces.

        Raises:
            ArtifactDamaged: it has another SHA-256 than `digest`.
        """
        found = hashlib.sha256()
        with self.stream(path) as response, file.open("wb") as content:
            for piece in response.iter_bytes():
                found.update(piece)
                content.write(piece)
        if found.hexdigest() != digest:
            raise ArtifactDamaged(
                f"content of digest {digest} arrived from {self.url} with digest "
                f"{found.hexdigest()}: try again"
            )

    def events(self, path: str, after: str = "", **query: object) -> Iterator[ServerEvent]:
        """Yield events, and reconnect where the connection is lost, without losing one.

        Args:
            path: Path of the stream.
            after: Position of the last event that was read; empty for the newest.
            query: Parameters.
        """
        failing_since = None
        while True:
            try:
                headers = {"Last-Event-ID": after} if after else {}
                with self.stream(path, headers, timeout_s=SILENCE_S, **query) as response:
                    failing_since = None
                    for event in read_events(response.iter_lines(), after):
                        after = event.id
                        yield event
            except (ServerError, DatabaseUnavailable):
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since >= self._retry_s:
                    raise
            time.sleep(_PAUSE_S)

    @contextmanager
    def stream(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        **query: object,
    ) -> Iterator[httpx.Response]:
        """Open a response that is read in pieces."""
        try:
            with self._http.stream(
                "GET",
                path,
                params=_params(query),
                headers=dict(headers or {}),
                timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
            ) as response:
                if response.is_error:
                    response.read()
                    raise error_in(response)
                yield response
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
    ) -> httpx.Response:
        headers = {} if method == "GET" else {"Idempotency-Key": str(uuid.uuid4())}
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = self._http.build_request(
            method,
            path,
            params=_params(query or {}),
            content=None if body is None else encode(body),
            headers=headers,
        )
        return self._repeated(lambda: request)

    def _repeated(self, make: Callable[[], httpx.Request]) -> httpx.Response:
        """Send a request until the server answers, or for `retry_s`."""
        deadline = time.monotonic() + self._retry_s
        while True:
            try:
                return self._once(make())
            except (httpx.TransportError, DatabaseUnavailable) as error:
                if time.monotonic() >= deadline:
                    raise (
                        error if isinstance(error, TuneError) else self._unreachable(error)
                    ) from error
            time.sleep(_PAUSE_S)

    def _once(self, request: httpx.Request) -> httpx.Response:
        response = self._http.send(request)
        if response.is_error or response.is_redirect:
            raise error_in(response)
        return response

    def _read(self, kind: type[T], response: httpx.Response) -> T:
        try:
            return decode(kind, response.content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            text = f"{self.url} answers with something else than expected: {first['msg']}"
            raise ServerError(f"{text}; is it a tunesvc server of this version?") from error

    def _unreachable(self, error: httpx.HTTPError) -> ServerError:
        reason = str(error) or type(error).__name__
        return ServerError(f"the server {self.url} cannot be reached: {reason}")


def study_path(study: str, *rest: object) -> str:
    """Return the path of a study or of something below it; names may contain any character."""
    return "/".join(["/studies", escaped(study), *map(str, rest)])


def escaped(name: str) -> str:
    """Return a name as a part of a path, whatever it contains."""
    return quote(name, safe="").replace(".", "%2E")


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as content:
        while piece := content.read(2**20):
            yield piece


def _params(query: Mapping[str, object]) -> httpx.QueryParams:
    """Return the parameters that are given; a sequence is one parameter for each item."""
    params: list[tuple[str, str | int | float | bool | None]] = []
    for name, value in query.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        params += [(name, _text(item)) for item in items if item is not None]
    return httpx.QueryParams(params)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def error_in(response: httpx.Response) -> TuneError:
    """Return the error of a problem document, or that the address answers as no server does."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind == MEDIA_TYPE:
        try:
            return to_error(decode(Problem, response.content))
        except ValidationError:
            pass
    place = f"{response.request.url.scheme}://{response.request.url.netloc.decode()}"
    text = f"{place} answers with status {response.status_code}"
    return ServerError(f"{text}: is this the address of a tunesvc server?")


def _shown(url: str) -> str:
    """Return an address without the password that it may contain."""
    return url.rpartition("@")[2]
