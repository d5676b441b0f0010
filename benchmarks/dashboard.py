"""Our dashboard beside optuna-dashboard: time until a page is useful, and bytes sent.

    python -m benchmarks.dashboard --sizes 1000 10000 100000

The same made-up studies on one Postgres, in our schema and in Optuna's; both served on this machine
and opened in the same headless Chromium, a fresh browser each time. Useful is: the study page shows
its history with the data drawn; the table (optuna-dashboard: list) of trials shows rows. Needs
`optuna-dashboard`, and Debian's chromium.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import sqlalchemy as sa
from playwright.sync_api import Browser, Error, Page, Response, sync_playwright

from benchmarks.large_studies import make_optunas, make_ours
from tunesvc.db.embedded.embedded_server import EmbeddedServer
from tunesvc.db.engine.database import open_database
from tunesvc.web import DashboardServer

PATIENCE_S = 180.0
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-sync",
)
_DRAWN = ".js-plotly-plot .scatterlayer .point, .js-plotly-plot canvas, .js-plotly-plot .scatterlayer path.point"


@dataclass(frozen=True)
class Visit:
    """One page opened once."""

    paint_s: float
    """Time until anything was painted."""
    useful_s: float
    sent_mb: float
    """Bytes sent until it was useful."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--visits", type=int, default=3)
    parser.add_argument(
        "--peer-up-to",
        type=int,
        default=100_000,
        help="optuna-dashboard on studies of at most so many",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tunesvc-benchmark-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedServer(Path(folder))
        try:
            _run(server, options.sizes, options.visits, options.peer_up_to)
        finally:
            server.close()


def _run(server: EmbeddedServer, sizes: list[int], visits: int, peer_up_to: int) -> None:
    for name in ("ours", "optunas"):
        _create(server, name)
    ours_url = server.url.set(database="ours").render_as_string(hide_password=False)
    theirs_url = server.url.set(database="optunas").render_as_string(hide_password=False)
    engine = sa.create_engine(theirs_url)
    with open_database(ours_url) as database, sync_playwright() as playwright:
        ours = {size: make_ours(database, f"made-{size}", size) for size in sizes}
        theirs = {
            size: make_optunas(engine, theirs_url, f"made-{size}", size)
            for size in sizes
            if size <= peer_up_to
        }
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(_QUIET)
        )
        print(
            f"{'page':10} {'trials':>8} {'dashboard':16} {'paint':>8} {'useful':>8} {'sent':>9} {'ours is':>10}"
        )
        with DashboardServer(database, port=0) as dashboard, _optuna_dashboard(theirs_url) as peer:
            for size in sizes:
                for page in ("study", "trials"):
                    enter = dashboard.new_address
                    path = f"{dashboard.url}/studies/{ours[size]}" + (
                        "/trials" if page == "trials" else ""
                    )
                    own = _visits(
                        browser,
                        visits,
                        enter,
                        path,
                        _study_is_useful if page == "study" else _has_rows,
                    )
                    _print(page, size, "tunesvc", own, "")
                    if size in theirs:
                        path = f"{peer}/dashboard/studies/{theirs[size]}" + (
                            "/trials" if page == "trials" else ""
                        )
                        other = _visits(
                            browser, visits, None, path, _is_drawn if page == "study" else _has_list
                        )
                        faster = other.useful_s / own.useful_s if own and other else float("nan")
                        _print(page, size, "optuna-dashboard", other, f"{faster:.1f} x")
        browser.close()
    engine.dispose()


def _print(page: str, size: int, name: str, visit: Visit | None, ratio: str) -> None:
    told = f"{'more than':>8} {PATIENCE_S:>7.0f}s {'':>9}"
    if visit is not None:
        told = f"{visit.paint_s:>7.2f}s {visit.useful_s:>7.2f}s {visit.sent_mb:>7.2f}MB"
    print(f"{page:10} {size:>8,} {name:16} {told} {ratio:>10}", flush=True)


def _visits(
    browser: Browser,
    count: int,
    enter: Callable[[], str] | None,
    path: str,
    useful: Callable[[Page], None],
) -> Visit | None:
    """Return the visit of median time; None if a page was not useful within `PATIENCE_S`."""
    made = []
    for _ in range(count):
        visit = _visit(browser, enter() if enter else None, path, useful)
        if visit is None:
            return None
        made.append(visit)
    middle = statistics.median_low(visit.useful_s for visit in made)
    return next(visit for visit in made if visit.useful_s == middle)


def _visit(
    browser: Browser, enter: str | None, path: str, useful: Callable[[Page], None]
) -> Visit | None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_S * 1000)
    page = context.new_page()
    try:
        if enter is not None:  # the cookie only: no part of the measured page is fetched before
            page.request.get(enter, max_redirects=0)
        sent: list[int] = []
        page.on("response", lambda response: sent.append(_size(response)))
        began_s = time.monotonic()
        page.goto(path, wait_until="commit")
        useful(page)
        useful_s = time.monotonic() - began_s
        paint_ms = page.evaluate(
            "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN"
        )
        return Visit(paint_ms / 1000, useful_s, sum(sent) / 1e6)
    except Error as error:
        if not any(
            told in str(error) for told in ("Timeout", "TIMED_OUT")
        ):  # the latter if it did not connect
            raise
        return None
    finally:
        context.close()


def _size(response: Response) -> int:
    try:
        return int(response.headers.get("content-length") or len(response.body()))
    except Error:  # a stream, or closed with its page
        return 0


def _study_is_useful(page: Page) -> None:
    page.wait_for_selector("h1")
    _is_drawn(page)


def _is_drawn(page: Page) -> None:
    page.wait_for_selector(_DRAWN, state="attached")


def _has_rows(page: Page) -> None:
    page.wait_for_selector("tbody tr td", state="visible")


def _has_list(page: Page) -> None:
    page.wait_for_selector(
        "text=/^Trial \\d+$/", state="visible"
    )  # it shows trials as a list beside the first of them


@contextmanager
def _optuna_dashboard(url: str) -> Iterator[str]:
    port = multiprocessing.get_context("spawn").Value("i", 0)
    process = multiprocessing.get_context("spawn").Process(
        target=_serve_optuna, args=(url, port), daemon=True
    )
    process.start()
    while not port.value and process.is_alive():
        time.sleep(0.05)
    if not port.value:
        sys.exit("optuna-dashboard does not start; pip install optuna-dashboard")
    yield f"http://127.0.0.1:{port.value}"
    process.terminate()
    process.join()


def _serve_optuna(url: str, port: object) -> None:
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    import optuna
    from optuna_dashboard import wsgi

    class Silent(WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            """Do nothing."""

    app = wsgi(optuna.storages.RDBStorage(url))
    with make_server("127.0.0.1", 0, app, handler_class=Silent) as server:
        port.value = server.server_port  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        threading.Event().wait()


def _create(server: EmbeddedServer, name: str) -> None:
    url: sa.URL = server.url
    connection = psycopg2.connect(
        host=url.query["host"],
        port=url.query["port"],
        user=url.username,
        password=url.password,
        dbname="postgres",
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    connection.close()


if __name__ == "__main__":
    main()
