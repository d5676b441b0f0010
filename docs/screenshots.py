"""Pictures of every page of the dashboard, light and dark, into docs/images: `python
docs/screenshots.py`.

Runs two of the examples, one of them still while the pictures are taken. A minute or two; needs
Debian's chromium.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-sync",
)
PAGES = {
    "studies": "/studies",
    "study": "/studies/{live}",
    "figures": "/studies/{done}",
    "trials": "/studies/{done}/trials?where=val_error+%3C+0.1+and+lr+%3E+0.001&sort=val_error",
    "trial": "/studies/{done}/trials/{number}",
    "compare": "/compare?study={done}&trials=0,1,{number}",
    "health": "/studies/{done}/health",
    "requests": "/studies/{live}/requests",
    "cluster": "/cluster",
    "new": "/new?copy={done}",
}


def main() -> None:
    home = Path(tempfile.mkdtemp(prefix="tunesvc-pictures-"))
    home.chmod(0o755)
    os.environ["TUNE_HOME"] = str(home)
    try:
        _tune("run", "studies/digits.yaml", "--trials", "60", "--quiet")
        _tune("run", "studies/tradeoff.yaml", "--quiet")
        _tune("tag", "digits", "baseline", "scikit-learn")
        _tune("note", "digits", "The reference for the new optimiser.")
        with _running("studies/digits.yaml", "digits-wide"):
            _tune("widen", "digits-wide", "lr=..0.3")
            _tune("enqueue", "digits-wide", "--near", "0")
            _take()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _take() -> None:
    from tunesvc.db.engine.database import open_database
    from tunesvc.queries.studies import list_studies
    from tunesvc.queries.trials.trial_table import list_trials
    from tunesvc.web import DashboardServer

    with (
        open_database() as database,
        DashboardServer(database, port=0) as server,
        sync_playwright() as playwright,
    ):
        ids = {row.name: row.study_id for row in list_studies(database)}
        pruned = list_trials(database, ids["digits"], states=["pruned"], order="newest", limit=1)
        known = {
            "done": ids["digits"],
            "live": ids["digits-wide"],
            "number": pruned[0].number if pruned else 5,
        }
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(_QUIET)
        )
        for scheme in ("light", "dark"):
            context = browser.new_context(
                viewport={"width": 1280, "height": 900},
                color_scheme=scheme,
                timezone_id="UTC",
                locale="en-GB",
            )
            page = context.new_page()
            page.goto(server.new_address())
            for name, path in PAGES.items():
                page.goto(server.url + path.format(**known))
                _settle(page, whole=name == "figures")
                page.screenshot(
                    path=IMAGES / f"dashboard-{name}-{scheme}.png",
                    full_page=name == "figures",
                    # below that stands a folder of whoever takes the picture
                    clip={"x": 0, "y": 0, "width": 1280, "height": 830} if name == "new" else None,
                )
            context.close()
        browser.close()


def _settle(page: Page, *, whole: bool) -> None:
    """Wait until what is in sight is drawn; for the whole page, bring everything into sight
    once."""
    if whole:
        for _ in range(12):
            page.mouse.wheel(0, 500)
            page.wait_for_timeout(400)
        page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(2_500)


@contextmanager
def _running(file: str, name: str) -> Iterator[None]:
    command = [
        sys.executable,
        "-m",
        "tunesvc",
        "run",
        file,
        "--name",
        name,
        "--trials",
        "4000",
        "--quiet",
    ]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        time.sleep(30)
        yield
    finally:
        process.terminate()
        process.wait(60)


def _tune(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "tunesvc", *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
