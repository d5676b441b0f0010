"""`tune dashboard`: serve the pages on this machine until Ctrl-C."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc.cli.cli_options import DatabaseUrl

if TYPE_CHECKING:
    from tunesvc.db.engine.database import Database
    from tunesvc.web import DashboardServer

Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port on this machine; 0 picks a free one."),
]
GpuPrice = Annotated[
    float,
    typer.Option("--gpu-price", min=0.0, help="Price of one GPU hour, to show costs."),
]


def dashboard(
    port: Port = None,
    browser: Annotated[
        bool,
        typer.Option("--browser/--no-browser", help="Open the browser."),
    ] = True,
    gpu_price: GpuPrice = 0.0,
    database_url: DatabaseUrl = None,
) -> None:
    """Show studies in the browser, as they run. Ctrl-C ends it; studies keep running.

    The link works in one browser, once; Enter prints another. It is served to this machine only.
    """
    from tunesvc.db.engine.database import open_database
    from tunesvc.views.terminal import out

    with (
        open_database(database_url) as database,
        served(database, port=port, gpu_price=gpu_price) as server,
    ):
        print_address(server)
        if browser:
            open_browser(server)
        if sys.stdin.isatty():
            threading.Thread(target=_answer_enter, args=(server,), daemon=True).start()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            out().print("\nThe dashboard has ended.", markup=False)


@contextmanager
def served(
    database: Database,
    *,
    port: int | None = None,
    gpu_price: float = 0.0,
) -> Iterator[DashboardServer]:
    """Serve a dashboard until the context ends."""
    from tunesvc.web import DashboardServer

    with DashboardServer(database, port=port, gpu_price=gpu_price) as server:
        yield server


def print_address(server: DashboardServer) -> None:
    """Print the address, which is valid for one browser."""
    from tunesvc.views.terminal import out

    out().print(f"dashboard  {server.new_address()}", markup=False, soft_wrap=True)


def open_browser(server: DashboardServer) -> None:
    """Open the address through a file that only this user can read: other users can see a browser's
    arguments."""
    import webbrowser

    folder = Path(tempfile.mkdtemp(prefix="tunesvc-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = folder / "open.html"
    file.write_text(
        f'<meta http-equiv="refresh" content="0; url={server.new_address()}">',
        encoding="utf-8",
    )
    webbrowser.open(file.as_uri())


def _answer_enter(server: DashboardServer) -> None:
    for _ in sys.stdin:
        print_address(server)
