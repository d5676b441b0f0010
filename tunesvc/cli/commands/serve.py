"""`tune serve`: run the studies that people submit, and show all studies, until it is stopped."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc.cli.cli_options import DatabaseUrl, Json
from tunesvc.cli.commands.dashboard import GpuPrice, Port
from tunesvc.cli.exits import ExitCode
from tunesvc.util import logs

if TYPE_CHECKING:
    from fastapi import APIRouter

    from tunesvc.coordinator.progress_events import Observer
    from tunesvc.db.engine.database import Database
    from tunesvc.db.people.accounts import FirstSecrets
    from tunesvc.execution.driver.ray_pool import RayPool
    from tunesvc.service.served_study import ServedStudy
    from tunesvc.service.server_metrics import ServerMetrics
    from tunesvc.service.study_supervisor import StudySupervisor
    from tunesvc.service.trial_traces import TrialTracer
    from tunesvc.web import DashboardServer
    from tunesvc.web.binding import Binding
    from tunesvc.web.identity_provider import ProviderSettings


def serve(
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Address of the Ray cluster for studies that name none; a local Ray by default.",
            envvar="RAY_ADDRESS",
            show_envvar=True,
        ),
    ] = None,
    port: Port = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; another one needs TLS or a proxy."),
    ] = "127.0.0.1",
    tls_cert: Annotated[
        Path | None,
        typer.Option(help="File with the certificate chain, PEM.", show_default=False),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(help="File with the certificate's key, PEM.", show_default=False),
    ] = None,
    behind_proxy: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address or network of the proxy that encrypts; its forwarded headers count.",
            show_default=False,
        ),
    ] = "",
    path_prefix: Annotated[
        str,
        typer.Option(help="Path of the service at the proxy, as /tune.", show_default=False),
    ] = "",
    oidc_issuer: Annotated[
        str | None,
        typer.Option(
            help="OpenID Connect provider where people may sign in, as https://id.example.org. The "
            "client's secret, if it has one, is in TUNE_OIDC_CLIENT_SECRET.",
            show_default=False,
        ),
    ] = None,
    oidc_client_id: Annotated[
        str,
        typer.Option(help="This service at the provider.", show_default=False),
    ] = "",
    oidc_claim: Annotated[
        str,
        typer.Option(help="Claim of the provider that is a user's name."),
    ] = "email",
    studies: Annotated[
        int,
        typer.Option(
            min=0,
            help="Most studies that this server runs at a time; 0 to serve pages and the API only.",
        ),
    ] = 20,
    gpu_price: GpuPrice = 0.0,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Run the studies that people submit, and show all studies in the browser.

    Several servers may use one database: each study is run by one of them, and when that one is
    gone by another. SIGTERM or Ctrl-C ends it in order: on a shared cluster, trials run on and the
    next server continues their studies; on a local Ray, trials are interrupted and continue later.
    A second signal ends it at once.

    The first start adds an administrator and prints a link that signs in a browser. It listens to
    this machine only, unless --tls-cert and --tls-key, or --behind-proxy, protect the way to it.
    """
    from tunesvc.service.alert_sender import AlertSender
    from tunesvc.service.artifact_collector import ArtifactCollector
    from tunesvc.service.model_keeper import ModelKeeper
    from tunesvc.service.watch_schedule import WatchSchedule
    from tunesvc.web.binding import Binding

    binding = Binding(host, port, tls_cert, tls_key, behind_proxy, path_prefix)
    provider = _provider(oidc_issuer, oidc_client_id, oidc_claim)
    if cluster is not None:
        os.environ["RAY_ADDRESS"] = cluster  # its driver processes inherit it
    os.environ.setdefault(logs.LEVEL, "info")
    logs.configure()
    with ExitStack() as stack:
        stopped = stack.enter_context(_signals())
        database, rays = _open(stack, database_url)
        metrics = stack.enter_context(_metrics(database))
        tracer = _tracer(stack, database)
        supervisor = _supervisor(database, rays, metrics, studies, tracer)
        first = _first_secrets(database)
        probes = _probes(database, supervisor, metrics)
        made = _served(database, probes, binding, provider, gpu_price)
        if tracer is not None:
            _trace_requests(made, tracer)
        server = stack.enter_context(made)
        supervisor.start()
        stack.enter_context(AlertSender(database))
        stack.enter_context(ArtifactCollector(database))
        if studies:  # a server that only shows studies runs no process for them either
            stack.enter_context(WatchSchedule(database))
        stack.enter_context(ModelKeeper(database))
        _print_address(server, database, first, as_json=as_json)
        stopped.get()
        supervisor.stop()


def _open(stack: ExitStack, database_url: str | None) -> tuple[Database, RayPool]:
    import optuna

    from tunesvc.db.engine.database import open_database
    from tunesvc.execution.driver.ray_pool import RayPool

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database = stack.enter_context(open_database(database_url))
    return database, stack.enter_context(RayPool(of_several=True))


def _metrics(database: Database) -> ServerMetrics:
    from tunesvc.service.server_metrics import ServerMetrics

    return ServerMetrics(database)


def _tracer(stack: ExitStack, database: Database) -> TrialTracer | None:
    from tunesvc.service.trial_traces import TrialTracer, open_provider

    provider = open_provider()
    return None if provider is None else stack.enter_context(TrialTracer(database, provider))


def _trace_requests(server: DashboardServer, tracer: TrialTracer) -> None:
    from tunesvc.web.middleware.request_spans import trace_requests

    trace_requests(server.app.state.api, tracer.tracer)


def _supervisor(
    database: Database,
    rays: RayPool,
    metrics: ServerMetrics,
    studies_max: int,
    tracer: TrialTracer | None,
) -> StudySupervisor:
    from tunesvc.service.served_study import ServedStudy
    from tunesvc.service.study_supervisor import StudySupervisor

    def serve_study(
        study_id: int,
        *,
        interrupt: threading.Event,
        back_s: float,
    ) -> ServedStudy:
        observer: Observer = metrics.observer()
        if tracer is not None:
            observer = tracer.observer(study_id, observer)
        return ServedStudy(
            study_id,
            database,
            make_executor=rays.executor,
            interrupt=interrupt,
            observer=observer,
            back_s=back_s,
        )

    # A local Ray holds the machine, which `tune run` may need.
    supervisor = StudySupervisor(
        database,
        serve_study,
        studies_max=studies_max,
        on_idle=rays.end,
    )
    metrics.add_server(supervisor)
    return supervisor


def _probes(
    database: Database,
    supervisor: StudySupervisor,
    metrics: ServerMetrics,
) -> APIRouter:
    from tunesvc.service.readiness import find_problems
    from tunesvc.web.probes import probe_router

    return probe_router(partial(find_problems, database, supervisor), metrics.text)


def _served(
    database: Database,
    probes: APIRouter,
    binding: Binding,
    provider: ProviderSettings | None,
    gpu_price: float,
) -> DashboardServer:
    from tunesvc.web import DashboardServer

    server = DashboardServer(database, gpu_price=gpu_price, accounts=binding, provider=provider)
    server.app.include_router(probes)
    return server


def _provider(issuer: str | None, client_id: str, claim: str) -> ProviderSettings | None:
    if issuer is None:
        return None
    from tunesvc.web.identity_provider import ProviderSettings

    secret = os.environ.get("TUNE_OIDC_CLIENT_SECRET", "")
    return ProviderSettings(issuer, client_id, secret, claim)


def _first_secrets(database: Database) -> FirstSecrets | None:
    from tunesvc.db.people.accounts import bootstrap
    from tunesvc.util.user import whoami

    return bootstrap(database, whoami())


def _print_address(
    server: DashboardServer,
    database: Database,
    first: FirstSecrets | None,
    *,
    as_json: bool,
) -> None:
    """Print where it serves, and until the first administrator has signed in, how to do that.

    A token is printed to this machine only: what a server elsewhere prints is kept in logs.
    """
    from tunesvc.views.terminal import out, print_json

    link = server.address_of(first.link) if first else None
    token = first.token if first and server.binding.is_loopback else None
    if as_json:
        print_json(
            {
                "event": "serving",
                "url": server.url,
                "link": link,
                "token": token,
                "database": database.name,
                "pid": os.getpid(),
            }
        )
        return
    lines = {
        "serving": server.url,
        "sign in": link and f"{link} (works once, within a day)",
        "token": token and f"{token} (for `tune login {server.url}`)",
        "database": database.name,
    }
    for name, text in lines.items():
        if text:
            out().print(f"{name:10} {text}", markup=False, soft_wrap=True)
    if first is None:
        out().print("Sign in with a token; `tune token create` here makes one.", markup=False)
    out().print("Ctrl-C ends the server.", markup=False)


@contextmanager
def _signals() -> Iterator[SimpleQueue[int]]:
    """Yield a queue that gets the first Ctrl-C or SIGTERM; the second one exits at once."""
    # Not an event: a handler may interrupt another one, which then holds the event's lock.
    stopped: SimpleQueue[int] = SimpleQueue()
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if received:
            os.write(2, b"Killed. Another server continues the studies in a few seconds.\n")
            os._exit(ExitCode.INTERRUPTED)
        received.append(number)
        stopped.put(number)
        os.write(2, b"Stopping: studies are handed over. Again to exit at once.\n")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
