"""A server in a thread: a dashboard on this machine, or with accounts for a team.

On a dashboard, an address with a key signs in a browser. The key works once; the cookie that
replaces it is valid as long as the server runs.
"""

from __future__ import annotations

import threading

import uvicorn

from tunesvc.db.engine.database import Database
from tunesvc.db.people.accounts import has_users
from tunesvc.errors import TuneError
from tunesvc.util.logs import get_logger
from tunesvc.util.user import whoami
from tunesvc.web.access import KeyAccess
from tunesvc.web.account_access import AccountAccess
from tunesvc.web.app import make_app
from tunesvc.web.binding import HOST, Binding
from tunesvc.web.identity_provider import IdentityProvider, ProviderSettings
from tunesvc.web.live.sse import EventHub
from tunesvc.web.live.stream_guard import StreamGuard
from tunesvc.web.live.watcher import Watcher
from tunesvc.web.middleware.proxy import ProxyMiddleware
from tunesvc.web.pages.account import provider_sign_in

_logger = get_logger(__name__)

_START_S = 10.0
_HAS_ACCOUNTS = "this server has accounts: `tune token create` makes a token for it"


class DashboardServer:
    """Dashboard server that runs inside of its context.

    Args:
        database: Database of the studies; the caller closes it.
        port: Port on this machine: None for `PORT` or the next free one; 0 for any free one.
        gpu_price: Price of one GPU hour; 0 hides costs.
        accounts: Where to listen, with the accounts of the database instead of keys and `port`.
        provider: With accounts, the provider at which people may sign in.

    Raises:
        TuneError: the port is taken, or the server does not start.
    """

    def __init__(
        self,
        database: Database,
        *,
        port: int | None = None,
        gpu_price: float = 0.0,
        accounts: Binding | None = None,
        provider: ProviderSettings | None = None,
    ) -> None:
        self.binding = accounts or Binding(port=port)
        self.binding.check(has_accounts=accounts is not None and has_users(database))
        self._socket = self.binding.bind()
        self.port: int = self._socket.getsockname()[1]
        self._keys = None if accounts else KeyAccess(whoami() or "somebody", self._cookie)
        self.hub = EventHub()
        self._watcher = Watcher(database, self.hub)
        self._guard = StreamGuard(database, self.hub)
        self.app = make_app(
            database,
            self._keys or AccountAccess(database, self._cookie),
            self.hub,
            hosts=self._hosts(),
            own_host=self._own_host,
            gpu_price=gpu_price,
        )
        if provider is not None:
            self.app.state.provider = IdentityProvider(provider)
            self.app.include_router(provider_sign_in.router)
        if self._keys is not None:
            self.app.include_router(self._keys.router())
        config = uvicorn.Config(
            ProxyMiddleware(self.app, self.binding.proxy, self.binding.path_prefix),
            log_level="error",
            lifespan="off",
            timeout_graceful_shutdown=4,  # streams end at once: this is for writes
            ws="none",
            proxy_headers=False,  # ours believe one named proxy only
            ssl_certfile=self.binding.tls_cert,
            ssl_keyfile=self.binding.tls_key,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._serve,
            name="tunesvc-dashboard",
            daemon=True,
        )

    @property
    def url(self) -> str:
        """Address without a key; behind a proxy, that of this server."""
        scheme = "https" if self.binding.has_tls else "http"
        host = f"[{self.binding.host}]" if ":" in self.binding.host else self.binding.host
        return f"{scheme}://{host}:{self.port}{self.binding.path_prefix}"

    @property
    def own_url(self) -> str:
        """Address to which browsers are redirected: no other server gets this host's cookies."""
        return f"http://{self._own_host}" if self._own_host else self.url

    def new_address(self) -> str:
        """Return an address that signs in one browser.

        Raises:
            TuneError: the server has accounts, whose links are made elsewhere.
        """
        if self._keys is None:
            raise TuneError(_HAS_ACCOUNTS)
        return self.address_of(self._keys.new_key())

    def address_of(self, key: str) -> str:
        """Return the address that signs in a browser by a key or link."""
        return f"{self.url}/enter?key={key}"

    @property
    def _cookie(self) -> str:
        # Browsers send a host's cookies to all its ports, so each server has a name of its own.
        # Servers of one name behind a proxy share their sessions.
        return f"tunesvc_{self.port}" if self._own_host else "tunesvc"

    @property
    def _own_host(self) -> str:
        is_plain = not (self.binding.has_tls or self.binding.proxy)
        is_local = is_plain and self.binding.is_loopback
        return f"tunesvc-{self.port}.localhost:{self.port}" if is_local else ""

    def _hosts(self) -> list[str] | None:
        if not self._own_host:
            return None
        names = (HOST, "localhost", self.binding.host)
        return [self._own_host, *(f"{name}:{self.port}" for name in names)]

    def new_token(self) -> str:
        """Return a token for a client of the API, valid as long as the server runs."""
        if self._keys is None:
            raise TuneError(_HAS_ACCOUNTS)
        return self._keys.new_token()

    def start(self) -> None:
        """Start serving; returns once the server accepts requests."""
        self._watcher.start()
        if self._keys is None:
            self._guard.start()
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
        self._guard.stop()
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
