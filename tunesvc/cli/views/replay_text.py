"""Replays as text for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from rich.console import Group, RenderableType
from rich.text import Text

from tunesvc.queries.study_replay import StudyReplay
from tunesvc.search.replay import (
    PrunerComparison,
    ReplayCount,
    ReplayedProposal,
    ReplayedStop,
)
from tunesvc.util.characters import visible
from tunesvc.util.formatting import number, parameters
from tunesvc.views.terminal import cells, indented, table

SHOWN = 12
"""Trials listed, at most."""


def replayed(replay: StudyReplay) -> RenderableType:
    """Format how many decisions match the recorded ones, and the first that does not."""
    parts = [
        *_redrawn("proposals", replay.asks),
        *_redrawn("verdicts of the pruner", replay.prunes),
    ]
    if replay.promotions.compared:
        parts += _redrawn("choices between a paused trial and a new one", replay.promotions)
    return Group(*parts)


def _redrawn(what: str, count: ReplayCount) -> list[RenderableType]:
    if not count.compared:
        parts: list[RenderableType] = [Text(f"No {what} to compare.")]
    else:
        style = "green" if count.agreeing == count.compared else "yellow"
        line = f"{count.agreeing} of {count.compared} {what} come out as recorded."
        parts = [Text(line, style)]
    parts += [indented(f"{n} not compared: {visible(why)}") for why, n in count.skipped.items()]
    if count.first is not None:
        first = count.first
        parts += [
            indented(f"The first that differs: trial {first.number}"),
            indented(f"recorded: {visible(first.recorded)}"),
            indented(f"redrawn:  {visible(first.redrawn)}"),
            indented(f"It may differ because {visible(first.why)}."),
        ]
    return parts


def pruner(name: str, comparison: PrunerComparison) -> RenderableType:
    """Format which trials another pruner would have stopped, saved and lost."""
    share = comparison.steps_saved / comparison.steps if comparison.steps else 0.0
    head = (
        f"{name} would have stopped {len(comparison.stopped)} trials on the recorded curves and "
        f"saved {comparison.steps_saved:,} of {comparison.steps:,} steps ({share:.0%})."
    )
    parts: list[RenderableType] = [Text(visible(head))]
    finished = [one for one in comparison.stopped if one.value is not None]
    line = f"{len(finished)} of them are among the {comparison.complete} that ran to their end."
    parts.append(Text(line))
    if comparison.spared:
        text = f"{comparison.spared} stopped trials would have continued, with unknown results."
        parts.append(Text(text, "dim"))
    if comparison.lost:
        numbers = ", ".join(f"{one.number} (number {one.rank})" for one in comparison.lost)
        parts.append(
            Text(
                f"It would have lost good trials, of the best tenth: {numbers}.",
                "yellow",
            )
        )
    elif comparison.complete:
        parts.append(Text("It would have lost none of the best tenth.", "green"))
    return Group(*parts, *_stopped(comparison.stopped))


def _stopped(rows: Sequence[ReplayedStop]) -> list[RenderableType]:
    if not rows:
        return []
    rows_table = table(
        ">trial",
        ">stopped at step",
        ">steps saved",
        ">came to",
        ">rank",
    )
    for one in rows[:SHOWN]:
        rows_table.add_row(
            *cells(
                one.number,
                one.step,
                one.steps_saved,
                number(one.value),
                one.rank or "–",
            )
        )
    parts: list[RenderableType] = [Text(), rows_table]
    if len(rows) > SHOWN:
        parts.append(Text(f"and {len(rows) - SHOWN} more; --json lists all", "dim"))
    return parts


def sampler(name: str, proposals: Sequence[ReplayedProposal]) -> RenderableType:
    """Format the distance between another sampler's proposals and those that ran."""
    if not proposals:
        return Text("No proposal to compare.")
    distances = [one.distance for one in proposals]
    head = (
        f"{visible(name)}, asked at each of {len(proposals)} proposals with the history of that "
        f"time: on average {fmean(distances):.0%} of the range from the trial that ran, median "
        f"{median(distances):.0%}. One step ahead only: it could not learn from its own trials."
    )
    rows_table = table(">trial", ">distance", "would have proposed")
    for one in proposals[-SHOWN:]:
        rows_table.add_row(
            *cells(
                one.number,
                f"{one.distance:.3f}",
                parameters(one.params),
            )
        )
    return Group(Text(head), Text(), rows_table)
