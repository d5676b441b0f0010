"""Commands for prepared data: data ls, show, diff, rm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesvc.cli.chosen_client import MachineCommand
from tunesvc.cli.cli_options import DatabaseUrl, Json

if TYPE_CHECKING:
    from tunesvc.preparation.data_difference import DataDifference
    from tunesvc.preparation.data_store import DataManifest

app = typer.Typer(help="Look after the prepared data of studies.", no_args_is_help=True)

Version = Annotated[
    str,
    typer.Argument(help="A version, its beginning, or the name of a study.", metavar="VERSION"),
]
_SHOWN = 20
"""Most rows and values that are listed."""


@app.command(cls=MachineCommand)
def ls(database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """List the versions of prepared data, the newest first, and the studies that used them."""
    from tunesvc.preparation.data_store import DataStore
    from tunesvc.views import terminal

    manifests = list(DataStore.open().list())
    used = _studies_by_version(database_url)
    if as_json:
        listed = [_summary(one, used.get(one.version, [])) for one in manifests]
        terminal.print_json(listed)
        return
    if not manifests:
        typer.echo("no data is prepared: write `data:` into a study file, see docs/data.md")
        return
    grid = terminal.table("version", "prepared", "source", "rows", "columns", "size", "studies")
    for one in manifests:
        grid.add_row(*terminal.cells(*_row(one, used.get(one.version, []))))
    terminal.out().print(grid)


@app.command(cls=MachineCommand)
def show(version: Version, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """Show what a version was made from, its columns, and what may spoil a study."""
    from tunesvc.preparation.data_store import DataStore
    from tunesvc.views import terminal

    manifest = DataStore.open().get(version)
    used = _studies_by_version(database_url).get(manifest.version, [])
    if as_json:
        terminal.print_json({**asdict(manifest), "studies": used})
        return
    grid = terminal.table("", "")
    grid.show_header = False
    for name, text in _facts(manifest, used).items():
        grid.add_row(*terminal.cells(name, text))
    terminal.out().print(grid)
    columns = terminal.table(*_STATISTICS)
    for column in manifest.columns:
        columns.add_row(*terminal.cells(*_statistics(column)))
    terminal.out().print(columns)
    for text in manifest.warnings:
        typer.echo(f"! {text}")


@app.command(cls=MachineCommand)
def diff(
    before: Version,
    after: Version,
    key: Annotated[
        str | None,
        typer.Option(help="Column that names a row; by default equal rows are paired."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the columns, rows and values that differ between two versions."""
    from tunesvc.preparation.data_difference import compare
    from tunesvc.preparation.data_store import DataStore
    from tunesvc.views import terminal

    store = DataStore.open()
    difference = compare(store, store.get(before), store.get(after), key)
    if as_json:
        terminal.print_json(asdict(difference))
        return
    for line in _lines(difference):
        typer.echo(line)


@app.command(cls=MachineCommand)
def rm(
    version: Version,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also if studies used it, which then cannot be continued."),
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Delete a version, here and in the artifact store."""
    import shutil

    from tunesvc.data.prepared_data import node_folders
    from tunesvc.preparation.data_store import DataStore

    store = DataStore.open()
    manifest = store.get(version)
    used = _studies_by_version(database_url).get(manifest.version, [])
    if used and not force:
        raise typer.BadParameter(
            f"version {manifest.version} is the data of {', '.join(used)}: `--force` deletes it all"
            " the same, or delete these studies first, `tune rm`"
        )
    store.remove(manifest)
    for folder in node_folders(manifest.version):
        shutil.rmtree(folder, ignore_errors=True)
    typer.echo(f"deleted version {manifest.version}")


def _studies_by_version(database_url: str | None) -> Mapping[str, list[str]]:
    from tunesvc.db.engine.database import open_database
    from tunesvc.queries.operations.data_lineage import list_studies_of_data

    used: dict[str, list[str]] = {}
    with open_database(database_url) as database:
        for study in list_studies_of_data(database):
            used.setdefault(study.data.version, []).append(study.name)
    return used


def _summary(manifest: DataManifest, used: Sequence[str]) -> dict[str, Any]:
    return {
        "version": manifest.version,
        "created_at": manifest.created_at,
        "source": manifest.source,
        "rows": {name: part.rows for name, part in manifest.whole_parts.items()},
        "features": len(manifest.features),
        "bytes": manifest.bytes,
        "studies": list(used),
    }


def _row(manifest: DataManifest, used: Sequence[str]) -> tuple[object, ...]:
    from datetime import datetime

    from tunesvc.util.formatting import ago, size

    prepared = ago(datetime.fromisoformat(manifest.created_at))
    counts = (manifest.rows, len(manifest.features), size(manifest.bytes))
    source = manifest.source
    if manifest.refit_of:
        source = f"{manifest.refit_of}, validation part trained on"
    return manifest.version, prepared, source, *counts, ", ".join(used)


def _facts(manifest: DataManifest, used: Sequence[str]) -> dict[str, str]:
    from tunesvc.util.formatting import duration, size

    inputs = [f"{one.name} ({size(one.bytes)})" for one in manifest.inputs]
    parts = [f"{part.rows} {name}" for name, part in manifest.whole_parts.items()]
    return {
        "version": manifest.version,
        "prepared": f"{manifest.created_at[:19]} UTC, in {duration(manifest.seconds)}",
        "source": manifest.source,
        **({"fitted again": f"from {manifest.refit_of}"} if manifest.refit_of else {}),
        "inputs": ", ".join(inputs[:10]),
        "rows": ", ".join(parts),
        **({"folds": f"{manifest.folds} of the training part"} if manifest.folds else {}),
        "features": ", ".join(manifest.features[:40]),
        "size": size(manifest.bytes),
        "studies": ", ".join(used) or "none",
    }


_STATISTICS = (
    "column",
    "type",
    "count",
    "missing",
    "distinct",
    "mean",
    "deviation",
    "range",
    "top",
)


def _statistics(column: Mapping[str, Any]) -> tuple[object, ...]:
    numbers = [_number(column.get(name)) for name in ("mean", "deviation")]
    span = ""
    if "min" in column:
        span = f"{_number(column['min'])} ... {_number(column['max'])}"
    top = ", ".join(f"{value} ({count})" for value, count in column.get("top", ())[:3])
    counts = [column.get(name, "") for name in ("count", "missing", "distinct")]
    return column["name"], column["type"], *counts, *numbers, span, top


def _number(value: object) -> str:
    return "" if value is None else str(value) if isinstance(value, str) else f"{value:.4g}"


def _lines(difference: DataDifference) -> list[str]:
    if difference.is_empty:
        return ["nothing differs"]
    lines = []
    for label, names in (
        ("settings", difference.settings),
        ("new columns", difference.added_columns),
        ("removed columns", difference.removed_columns),
        ("new rows", difference.added_rows),
        ("removed rows", difference.removed_rows),
    ):
        if names:
            lines.append(f"{label}: {_some(names)}")
    for name, (before, after) in difference.retyped_columns.items():
        lines.append(f"column {name} was {before}, is {after}")
    if difference.changed:
        counts = [f"{name} ({count})" for name, count in difference.changed_columns.items()]
        lines.append(f"changed columns: {', '.join(counts)}")
        lines.append(f"changed rows: {_some(difference.changed_rows)}")
    return lines + [
        f"  row {one.row}, {one.column}: {one.before!r} -> {one.after!r}"
        for one in difference.changed[:_SHOWN]
    ]


def _some(names: Sequence[object]) -> str:
    rest = len(names) - _SHOWN
    shown = ", ".join(map(str, names[:_SHOWN]))
    return f"{shown}{f' and {rest} more' if rest > 0 else ''}"
