"""A server as an agent reaches it: by HTTP, with no port open on the agent's machine.

Repeats nothing by itself: an agent waits for a server that is away as long as it has to.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
from pydantic import ValidationError

from tunesvc.artifacts.checkpoint_archive import pack, unpack
from tunesvc.artifacts.unpacking import unpack as unpack_snapshot
from tunesvc.client.remote.connection import API, error_in, study_path
from tunesvc.client.wire_format import decode, encode
from tunesvc.data.prepared_data import write_whole
from tunesvc.db.agents.agent_messages import AgentEvent, AgentOrders, AgentPoll, LeaseStatus
from tunesvc.errors import (
    ArtifactDamaged,
    DatabaseUnavailable,
    ServerAway,
    ServerError,
    TooManyRequests,
    TuneError,
)

T = TypeVar("T")

TAR = "application/x-tar"
ANSWER_S = 15.0
"""Longest wait for an answer, besides what the server was asked to wait."""
TRANSFER_S = 300.0
"""Longest wait within a transfer: the other end may write to a slow disk."""
CONNECT_S = 5.0
_AWAY = (502, 503, 504)


class HttpAgentServer:
    """Implements `AgentServer` for one study. Any thread may use it."""

    def __init__(self, url: str, token: str | None, study: str) -> None:
        """`url`: address of the server; `token`: of the user, None for none."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        limits = httpx.Limits(max_connections=None)
        address = url.rstrip("/")
        self._http = httpx.Client(
            base_url=address + API, headers=headers, timeout=timeout, limits=limits
        )
        self._address = address
        self._study = study
        self._damaged: dict[str, str] = {}
        """Digest of the content that last arrived, by that of the data that were asked for."""

    def register(self, name: str, total: Mapping[str, float]) -> int:
        """Add an agent to the study, and return its id."""
        return self._post(int, ("agents",), {"name": name, "total": total})

    def poll(self, agent_id: int, poll: AgentPoll, wait_s: float) -> AgentOrders:
        """Renew leases and take launches. Waits up to `wait_s` for something new."""
        return self._post(AgentOrders, ("agents", agent_id, "poll"), poll, wait_s)

    def send(self, token: int, events: Sequence[AgentEvent]) -> LeaseStatus:
        """Send events of an attempt."""
        return self._post(LeaseStatus, ("attempts", token, "events"), events)

    def upload(self, token: int, checkpoint: Path) -> str:
        """Copy a checkpoint to the server; return the copy's path."""
        request = self._http.build_request(
            "PUT",
            study_path(self._study, "attempts", token, "checkpoint"),
            params={"name": checkpoint.parent.name},
            content=pack(checkpoint),
            headers={"Content-Type": TAR},
            timeout=httpx.Timeout(TRANSFER_S, connect=CONNECT_S),
        )
        with self._open(request) as response:
            response.read()
            return self._decoded(str, response)

    def download(self, token: int, folder: Path) -> Path | None:
        """Copy the checkpoint that the attempt starts from into a folder."""
        path = study_path(self._study, "attempts", token, "checkpoint")
        with self._download(path) as response:
            if response.status_code == 204:
                return None
            name = Path(response.headers["X-Checkpoint"]).name
            return unpack(response.iter_bytes(), folder / name)

    def snapshot(self, digest: str, folder: Path) -> None:
        """Unpack the snapshot of the study's folder into a folder."""
        with tempfile.TemporaryDirectory(prefix="tunesvc-snapshot-") as temporary:
            archive = Path(temporary) / f"{digest}.tar"
            with (
                self._download(study_path(self._study, "snapshot")) as response,
                archive.open("wb") as file,
            ):
                for piece in response.iter_bytes():
                    file.write(piece)
            unpack_snapshot(archive, folder)

    def data(self, digest: str, path: Path) -> None:
        """Copy a part of the study's data to a path.

        Raises:
            ServerAway: another content than that of the digest arrived.
            ArtifactDamaged: it arrived for the second time.
        """
        found = hashlib.sha256()
        nothing = found.hexdigest()
        try:
            with self._download(study_path(self._study, "data", digest)) as response:

                def pieces() -> Iterator[bytes]:
                    for piece in response.iter_bytes():
                        found.update(piece)
                        yield piece
                    if found.hexdigest() != digest:
                        raise ServerAway(f"the data {digest} from {self._address} arrived damaged")

                write_whole(path, pieces())
        except ServerAway as error:
            # A server that reads damaged content breaks the answer off, as a lost connection does.
            arrived = found.hexdigest()
            if arrived not in (nothing, digest) and self._damaged.get(digest) == arrived:
                raise ArtifactDamaged(
                    f"the data {digest} of the server {self._address} are damaged: delete them in "
                    "its artifact store, and run the study again, which prepares them"
                ) from error
            self._damaged[digest] = arrived
            raise

    def end(self, agent_id: int, reason: str) -> None:
        """Record that the agent has ended."""
        path = study_path(self._study, "agents", agent_id, "end")
        with self._open(self._http.build_request("POST", path, json={"reason": reason})):
            return

    def _post(self, kind: type[T], parts: Sequence[object], body: object, wait_s: float = 0.0) -> T:
        request = self._http.build_request(
            "POST",
            study_path(self._study, *parts),
            params={"wait": f"{wait_s:.1f}"} if wait_s else None,
            content=encode(body),
            headers={"Content-Type": "application/json"},
            timeout=httpx.Timeout(ANSWER_S + wait_s, connect=CONNECT_S),
        )
        with self._open(request) as response:
            response.read()
            return self._decoded(kind, response)

    @contextmanager
    def _download(self, path: str) -> Iterator[httpx.Response]:
        headers = {"Accept": TAR, "Accept-Encoding": "identity"}
        timeout = httpx.Timeout(TRANSFER_S, connect=CONNECT_S)
        request = self._http.build_request("GET", path, headers=headers, timeout=timeout)
        with self._open(request) as response:
            yield response

    @contextmanager
    def _open(self, request: httpx.Request) -> Iterator[httpx.Response]:
        """Send a request, and yield the response unread.

        Raises:
            ServerAway: there was no answer, or that of a proxy without a server.
            TuneError: the server has refused it.
        """
        try:
            response = self._http.send(request, stream=True)
            try:
                if response.is_error or response.is_redirect:
                    response.read()
                    raise self._error(response)
                yield response
            finally:
                response.close()
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ServerAway(f"the server {self._address} does not answer ({reason})") from error

    def _error(self, response: httpx.Response) -> TuneError:
        error = error_in(response)
        if response.status_code in _AWAY or isinstance(
            error, (DatabaseUnavailable, TooManyRequests)
        ):
            return ServerAway(f"the server {self._address} cannot serve now ({error})")
        return error

    def _decoded(self, kind: type[T], response: httpx.Response) -> T:
        try:
            return decode(kind, response.content)
        except ValidationError as error:
            text = f"{self._address} answers with something else than expected"
            raise ServerError(f"{text}; is it a tunesvc server of this version?") from error
