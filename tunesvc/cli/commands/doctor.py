"""`tune doctor` checks the installation; `tune doctor STUDY` explains a study's state and
health."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from tunesvc.cli.chosen_client import opened_client, typed_server
from tunesvc.cli.cli_options import DatabaseUrl, Json, ServerUrl, complete_study
from tunesvc.cli.views.finding_text import DatabaseFinding

LITTLE_SPACE = 2e9
"""Free bytes below which a study may run out of space."""


def doctor(
    study: Annotated[
        str | None,
        typer.Argument(help="A study to explain.", autocompletion=complete_study, metavar="STUDY"),
    ] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Check Python, Ray, Postgres, GPUs, disk space and the `tune` command, or explain a STUDY:
    which process runs it, what waits and why, and the health of its space, metric, pruner, sampler
    and workers. With `--server`, check the server from here.

    Exit code 1 if something is broken.
    """
    if study is not None:
        _explain(study, server, database_url, as_json=as_json)
        return
    if (named := typed_server()) is not None:
        findings = list(examine_server(named))
    else:
        findings = list(examine(database_url))
    _print(findings, as_json=as_json)


def _explain(name: str, server: str | None, database_url: str | None, *, as_json: bool) -> None:
    from tunesvc.cli.views import diagnosis_text
    from tunesvc.views import terminal

    with opened_client(database_url, server) as client:
        diagnosis = client.insights.diagnose(name)
        examined = client.insights.health(name)
    findings = [
        *diagnosis_text.findings(diagnosis),
        *diagnosis_text.format_health(name, examined),
    ]
    if as_json:
        terminal.print_json(
            {
                "findings": findings,
                "diagnosis": diagnosis,
                "health": examined,
            }
        )
    else:
        _print(findings, as_json=False)
        if diagnosis.live:
            terminal.out().print(
                "",
                diagnosis_text.live_table(diagnosis.live, terminal.out().width),
                sep="\n",
            )


def _print(findings: Sequence[DatabaseFinding], *, as_json: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from tunesvc.views import terminal

    if as_json:
        terminal.print_json(findings)
    else:
        marks = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "broken": ("✗", "red")}
        grid = Table.grid(padding=(0, 2))
        for finding in findings:
            mark, style = marks[finding.verdict]
            grid.add_row(
                *terminal.cells(
                    Text(mark, style),
                    Text(finding.name, "bold"),
                    finding.text,
                )
            )
        terminal.out().print(grid)
    if any(finding.verdict == "broken" for finding in findings):
        raise typer.Exit(1)


def examine(database_url: str | None) -> Iterator[DatabaseFinding]:
    """Run all checks, one after the other."""
    yield _python()
    yield _packages()
    yield command_name(shutil.which("tune"))
    yield _postgres(database_url)
    yield _ray()
    yield _gpus()
    yield _space()


def examine_server(server: str) -> Iterator[DatabaseFinding]:
    """Check from outside that a server answers, knows the user, and has this program's version."""

    def look() -> str:
        with opened_client(None, server) as client:
            info = client.service.info()
        return f"{server} answers {info.user or 'you'}; it has version {info.version}"

    yield _python()
    yield _packages()
    yield _tried("Server", look)


def _python() -> DatabaseFinding:
    text = f"{platform.python_version()} at {sys.executable}, {os.cpu_count()} CPUs"
    return DatabaseFinding(
        "Python",
        "ok" if sys.version_info >= (3, 11) else "broken",
        text,
    )


def _packages() -> DatabaseFinding:
    names = ("tunesvc", "optuna", "ray", "sqlalchemy")
    return DatabaseFinding(
        "Packages",
        "ok",
        ", ".join(f"{name} {metadata.version(name)}" for name in names),
    )


def command_name(path: str | None) -> DatabaseFinding:
    """Check that `tune` on the path is ours: Ray and torchtune install a command of that name
    too."""
    if path is None:
        return DatabaseFinding(
            "Command",
            "warn",
            "`tune` is not on the path; `python -m tunesvc` is the same program",
        )
    try:
        script = Path(path).read_bytes()[:4096]
    except OSError as error:
        return DatabaseFinding(
            "Command",
            "warn",
            f"{path} cannot be read: {error.strerror}",
        )
    if b"tunesvc" in script:
        return DatabaseFinding("Command", "ok", f"tune is {path}")
    return DatabaseFinding(
        "Command",
        "warn",
        f"{path} belongs to another package, which was installed later (Ray and torchtune bring "
        "one too): type `tunesvc` instead, or install tunesvc again",
    )


def _postgres(database_url: str | None) -> DatabaseFinding:
    from tunesvc.db.engine.database import connect

    def look() -> str:
        with connect(database_url) as database, database.engine.connect() as connection:
            version = ".".join(map(str, connection.dialect.server_version_info or ()))
            return f"{version}, {database.name}"

    return _tried("Postgres", look)


def _ray() -> DatabaseFinding:
    def look() -> str:
        import ray

        address = os.environ.get("RAY_ADDRESS")
        mode = f"joins {address}" if address else "a local cluster is started for each run"
        return f"{ray.__version__}, {mode}"

    return _tried("Ray", look)


def _gpus() -> DatabaseFinding:
    def look() -> str:
        from tunesvc.execution.ray_internals import accelerator_counts

        accelerators = [f"{count} {name}" for name, count in accelerator_counts().items() if count]
        return ", ".join(accelerators) or "none on this machine"

    return _tried("Accelerators", look)


def _space() -> DatabaseFinding:
    from tunesvc.util.paths import home_directory

    home = home_directory()
    there = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / 1e9:.1f} GB free for {home}"
    return DatabaseFinding("Disk", "ok" if free >= LITTLE_SPACE else "warn", text)


def _tried(name: str, look: Callable[[], str]) -> DatabaseFinding:
    try:
        return DatabaseFinding(name, "ok", look())
    except Exception as error:  # noqa: BLE001 - whatever breaks is the finding
        return DatabaseFinding(name, "broken", f"{type(error).__name__}: {error}")
