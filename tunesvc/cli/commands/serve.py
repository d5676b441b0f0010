"""`tune serve`: run the studies that people submit, and show all studies, until it is stopped."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc.cli.cli_options import DatabaseUrl, Json
from tunesvc.cli.commands.dashboard import GpuPrice, Port
from tunesvc.cli.exits import ExitCode
from tunesvc.util import logs

if TYPE_CHECKING:
    from tunesvc.db.engine.database import Database
    from tunesvc.execution.driver.ray_pool import RayPool
    from tunesvc.service.study_supervisor import StudySupervisor
    from tunesvc.web import DashboardServer


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
    studies: Annotated[
        int,
        typer.Option(min=1, help="Most studies that this server runs at a time."),
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
    """
    if cluster is not None:
        os.environ["RAY_ADDRESS"] = cluster  # its driver processes inherit it
    os.environ.setdefault(logs.LEVEL, "info")
    logs.configure()
    with ExitStack() as stack:
        stopped = stack.enter_context(_signals())
        database, rays = _open(stack, database_url)
        supervisor = _supervisor(database, rays, studies)
        server = stack.enter_context(_served(database, supervisor, port, gpu_price))
        supervisor.start()
        _print_address(server, database, as_json=as_json)
        stopped.wait()
        supervisor.stop()


def _open(stack: ExitStack, database_url: str | None) -> tuple[Database, RayPool]:
    import optuna

    from tunesvc.db.engine.database import open_database
    from tunesvc.execution.driver.ray_pool import RayPool

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database = stack.enter_context(open_database(database_url))
    return database, stack.enter_context(RayPool(of_several=True))


def _supervisor(database: Database, rays: RayPool, studies_max: int) -> StudySupervisor:
    from tunesvc.service.served_study import ServedStudy
    from tunesvc.service.study_supervisor import StudySupervisor

    run = partial(ServedStudy, database=database, make_executor=rays.executor)
    return StudySupervisor(
        database,
        lambda study_id, interrupt: run(study_id, interrupt=interrupt),
        studies_max=studies_max,
    )


def _served(
    database: Database,
    supervisor: StudySupervisor,
    port: int | None,
    gpu_price: float,
) -> DashboardServer:
    from tunesvc.service.readiness import find_problems
    from tunesvc.web import DashboardServer
    from tunesvc.web.probes import probe_router

    server = DashboardServer(database, port=port, gpu_price=gpu_price)
    server.app.include_router(probe_router(partial(find_problems, database, supervisor)))
    return server


def _print_address(server: DashboardServer, database: Database, *, as_json: bool) -> None:
    from tunesvc.views.terminal import out, print_json

    address = server.new_address()
    if as_json:
        print_json(
            {
                "event": "serving",
                "url": server.url,
                "address": address,
                "database": database.name,
                "pid": os.getpid(),
            }
        )
        return
    out().print(f"serving    {address}", markup=False, soft_wrap=True)
    out().print(f"database   {database.name}", markup=False, soft_wrap=True)
    out().print("Ctrl-C ends the server.", markup=False)


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C and SIGTERM set; the second one exits at once."""
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if stopped.is_set():
            os.write(2, b"Killed. Another server continues the studies in a few seconds.\n")
            os._exit(ExitCode.INTERRUPTED)
        stopped.set()
        os.write(2, b"Stopping: studies are handed over. Again to exit at once.\n")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
