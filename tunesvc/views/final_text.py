"""A study's last stages as text: the result on the test part, and the trained model."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunesvc.queries.operations.final_results import TestResult, TestUse, times
from tunesvc.util.characters import visible
from tunesvc.util.formatting import final_command, number
from tunesvc.views.terminal import STYLES, cells, indented

if TYPE_CHECKING:
    from pathlib import Path

    from tunesvc.models.model_store import ModelMetadata


def test_result(result: TestResult, recommended: int, *, is_new: bool) -> RenderableType:
    """Format a result on the test part.

    Args:
        result: the newest one.
        recommended: number of the trial that is recommended now.
        is_new: True if it was evaluated just now.
    """
    parts: list[RenderableType] = [
        Text.assemble(
            ("Test  ", "bold"),
            (f"{visible(result.metric)} = {number(result.test)}", STYLES["best"]),
            (f"  trial {result.trial}, on {result.rows:,} rows", "dim"),
        ),
        indented(visible(result.verdict)),
    ]
    if result.scores:
        shown = (f"{visible(name)} = {number(value)}" for name, value in result.scores.items())
        parts.append(indented(f"also {', '.join(shown)}"))
    uses = f"The test part of data {result.version} was used {times(len(result.uses))}:"
    parts += [Text(), Text(uses, "dim"), _uses(result.uses)]
    if result.caution:
        parts += [Text(), Text(result.caution, "yellow")]
    if not is_new:
        parts += [Text(), Text("Recorded before; nothing was evaluated now.", "dim")]
    if recommended != result.trial:
        again = f"{final_command(result.study, 'test')} --again"
        parts.append(
            Text(
                f"By now trial {recommended} is recommended. `{again}` evaluates it: a further use,"
                " after which the test part gives no clean estimate.",
                "yellow",
            )
        )
    return Group(*parts)


def trained_model(
    metadata: ModelMetadata,
    store: str,
    out: Path | None,
    uses: tuple[TestUse, ...],
) -> RenderableType:
    """Format what was trained, how good it is, and where it is."""
    metric = visible(metadata.metric)
    value = "not evaluated: there is no test part"
    if metadata.test is not None:
        value = f"{metric} = {number(metadata.test)} on the test part"
    rows = Table.grid(padding=(0, 2))
    rows.add_row(*cells("  model", metadata.file))
    if metadata.validation is not None:
        text = f"{metric} = {number(metadata.validation)}, when it was chosen"
        rows.add_row(*cells("  validation", text))
    for name, score in metadata.scores.items():
        rows.add_row(*cells(f"  {name}", number(score)))
    if uses:
        rows.add_row(*cells("  test part", f"used {times(len(uses))} until now"))
    rows.add_row(*cells("  stored in", store))
    if out is not None:
        rows.add_row(*cells("  folder", str(out)))
    load = f"tunesvc.load_model({metadata.study!r}).predict(rows)"
    if not metadata.preparation_version:
        load = f"tunesvc.load_model({metadata.study!r}).path"
    return Group(
        Text.assemble(
            ("Trained  ", "bold"),
            (value, STYLES["best"]),
            (f"  trial {metadata.trial}, on training and validation part", "dim")
            if metadata.data_version
            else (f"  trial {metadata.trial}", "dim"),
        ),
        rows,
        Text(),
        Text.assemble(load, ("   uses it, in any process", "dim")),
    )


def next_stages(study: str) -> Table:
    """Return the commands that follow a result on the test part."""
    grid = Table.grid(padding=(0, 3))
    grid.add_row(
        Text(f"tune apply {shlex.quote(study)} --train"),
        Text("train it on all data, and store the model", "dim"),
    )
    return grid


def _uses(uses: tuple[TestUse, ...]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for use in uses:
        command = "best --test" if use.kind == "test" else "apply"
        by = f"by {use.by}" if use.by else ""
        value = number(use.value) if use.is_complete else f"{number(use.value)}, not finished"
        cell = cells(f"  {_day(use.at)}", f"{use.study} trial {use.trial}", command)
        grid.add_row(*cell, *cells(value, by))
    return grid


def _day(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M")
