"""A dashboard on this machine: a server in a thread on the loopback interface.

An address with a key signs in a browser. The key works once; the cookie that replaces it is valid
as long as the server runs.
"""

from __future__ import annotations

import socket
import threading

import uvicorn

from tunesvc.db.engine.database import Database
from tunesvc.errors import TuneError
from tunesvc.util.logs import get_logger
from tunesvc.util.user import whoami
from tunesvc.web.access import KeyAccess
from tunesvc.web.app import make_app
from tunesvc.web.live.sse import EventHub
from tunesvc.web.live.watcher import Watcher

_logger = get_logger(__name__)

HOST = "127.0.0.1"
PORT = 8088
"""First port to try."""
_PORTS_TRIED = 20
_START_S = 10.0


class DashboardServer:
    """Dashboard server that runs inside of its context.

    Args:
        database: Database of the studies; the caller closes it.
        port: None for `PORT` or the next free one; 0 for any free one.
        gpu_price: Price of one GPU hour; 0 hides costs.

    Raises:
        TuneError: the port is taken, or the server does not start.
    """

    def __init__(
        self,
        database: Database,
        *,
        port: int | None = None,
        gpu_price: float = 0.0,
    ) -> None:
        self._socket = _bind(port)
        self.port: int = self._socket.getsockname()[1]
        self._access = KeyAccess(whoami() or "somebody", f"tunesvc_{self.port}")
        self.hub = EventHub()
        self._watcher = Watcher(database, self.hub)
        own = f"tunesvc-{self.port}.localhost:{self.port}"
        self.own_url = f"http://{own}"
        """Address to which browsers are redirected: no other server gets this host's cookies."""
        hosts = [own, *(f"{name}:{self.port}" for name in (HOST, "localhost"))]
        app = make_app(
            database,
            self._access,
            self.hub,
            hosts=hosts,
            own_host=own,
            gpu_price=gpu_price,
        )
        app.include_router(self._access.router())
        config = uvicorn.Config(
            app,
            log_level="error",
            lifespan="off",
            timeout_graceful_shutdown=1,
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._serve,
            name="tunesvc-dashboard",
            daemon=True,
        )

    @property
    def url(self) -> str:
        """Address without a key."""
        return f"http://{HOST}:{self.port}"

    def new_address(self) -> str:
        """Return an address that signs in one browser."""
        return f"{self.url}/enter?key={self._access.new_key()}"

    def new_token(self) -> str:
        """Return a token for a client of the API, valid as long as the server runs."""
        return self._access.new_token()

    def start(self) -> None:
        """Start serving; returns once the server accepts requests."""
        self._watcher.start()
        self._thread.start()
        deadline = threading.Event()
        for _ in range(int(_START_S / 0.02)):
            if self._server.started:
                _logger.info("serving at %s", self.url)
                return
            if not self._thread.is_alive():
                break
            deadline.wait(0.02)
        self.stop()
        raise TuneError(f"the dashboard does not start at {self.url}; try another --port")

    def stop(self) -> None:
        """End all streams and the server. Repeatable."""
        self.hub.close()
        self._watcher.stop()
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(5)
        else:
            self._socket.close()

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            # Only here: on a busy machine the server may run longer than `stop` waits.
            self._socket.close()

    def __enter__(self) -> DashboardServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _bind(port: int | None) -> socket.socket:
    ports = range(PORT, PORT + _PORTS_TRIED) if port is None else [port]
    for one in ports:
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((HOST, one))
            bound.listen(128)
        except OSError:
            bound.close()
            continue
        return bound
    taken = f"port {port}"
    if port is None:
        taken = f"every port from {PORT} to {PORT + _PORTS_TRIED - 1}"
    raise TuneError(f"{taken} on {HOST} is taken; name another with --port")
