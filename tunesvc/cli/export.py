"""Commands that write files: export and plot."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tunesvc.cli.options import DatabaseUrl, StudyName
from tunesvc.words import inert

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["csv", "parquet", "json"]


def export(
    study: StudyName,
    format: Annotated[Format, typer.Option(help="What to write.")] = "csv",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file; standard output when left out.")] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Write all trials of a study: a row each, with parameters, values, states and times (UTC)."""
    from tunesvc import insights
    from tunesvc.store.database import open_database

    if format == "parquet" and out is None:
        raise typer.BadParameter("Parquet is no text: name a file with --out")
    with open_database(database_url) as database:
        frame = insights.dataframe(database, insights.study(database, study))
    if out is None:
        sys.stdout.write(_text(frame, format))
    elif format == "parquet":
        _uniform(frame).to_parquet(out, index=False)
    else:
        out.write_text(_text(frame, format), encoding="utf-8", newline="")
    if out is not None:
        typer.echo(f"wrote {len(frame)} trials to {out}", err=True)


def _text(frame: pd.DataFrame, format: Format) -> str:
    if format == "json":
        from tunesvc.cli.output import to_json

        lines = [{name: _missing_as_none(value) for name, value in row.items()} for row in frame.to_dict("records")]
        return json.dumps(json.loads(to_json(lines)), indent=1, ensure_ascii=False) + "\n"
    safe = frame.map(inert).rename(columns=inert)
    return str(safe.to_csv(index=False, lineterminator="\r\n"))


def _missing_as_none(value: object) -> object:
    import pandas as pd

    # a NaN that an objective returned stays one; only what is absent is null
    return None if value is None or value is pd.NA or value is pd.NaT else value


def _uniform(frame: pd.DataFrame) -> pd.DataFrame:
    """Parquet wants one type per column: a parameter of numbers and words becomes text."""
    mixed = [name for name in frame.columns if frame[name].map(type).nunique() > 1 and frame[name].dtype == object]
    for name in mixed:
        frame[name] = frame[name].map(lambda value: None if value is None else str(value))
    return frame


def plot(
    study: StudyName,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page; STUDY.html when left out.")] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Write a study's charts as one self-contained HTML page."""
    from tunesvc import charts, insights
    from tunesvc.store.database import open_database

    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in study).lstrip(".") or "study"
    path = out or Path(f"{safe[:100]}.html")
    with open_database(database_url) as database:
        view = insights.study(database, study)
        path.write_text(charts.study_page(database, view), encoding="utf-8")
    typer.echo(f"wrote {path} ({view.counts.total} trials)")
