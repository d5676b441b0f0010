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
from tunesvc.util.formatting import number, parameters
from tunesvc.views.terminal import cells, clean, indented, table

SHOWN = 12
"""Trials that are listed, at most."""


def replayed(told: StudyReplay) -> RenderableType:
    """How many decisions come out as they were recorded, and the first that does not."""
    parts = [
        *_redrawn("proposals", told.asks),
        *_redrawn("verdicts of the pruner", told.prunes),
    ]
    if told.promotions.compared:
        parts += _redrawn("choices between a paused trial and a new one", told.promotions)
    return Group(*parts)


def _redrawn(what: str, told: ReplayCount) -> list[RenderableType]:
    if not told.compared:
        parts: list[RenderableType] = [Text(f"No {what} to compare.")]
    else:
        style = "green" if told.agreeing == told.compared else "yellow"
        line = f"{told.agreeing} of {told.compared} {what} come out as recorded."
        parts = [Text(line, style)]
    parts += [indented(f"{count} not compared: {clean(why)}") for why, count in told.skipped.items()]
    if told.first is not None:
        first = told.first
        parts += [
            indented(f"The first that differs: trial {first.number}"),
            indented(f"recorded: {clean(first.recorded)}"),
            indented(f"redrawn:  {clean(first.redrawn)}"),
            indented(f"It may differ because {clean(first.why)}."),
        ]
    return parts


def pruner(name: str, told: PrunerComparison) -> RenderableType:
    """What another pruner would have stopped, saved and lost."""
    share = told.steps_saved / told.steps if told.steps else 0.0
    head = (
        f"{name} would have stopped {len(told.stopped)} trials on the recorded curves and saved "
        f"{told.steps_saved:,} of {told.steps:,} steps ({share:.0%})."
    )
    parts: list[RenderableType] = [Text(clean(head))]
    finished = [one for one in told.stopped if one.value is not None]
    parts.append(Text(f"{len(finished)} of them are among the {told.complete} that were run to their end."))
    if told.spared:
        text = f"{told.spared} that were stopped would have gone on; what they would have come to is not known."
        parts.append(Text(text, "dim"))
    if told.lost:
        numbers = ", ".join(f"{one.number} (number {one.rank})" for one in told.lost)
        parts.append(
            Text(
                f"It would have lost good trials, of the best tenth: {numbers}.",
                "yellow",
            )
        )
    elif told.complete:
        parts.append(Text("It would have lost none of the best tenth.", "green"))
    return Group(*parts, *_stopped(told.stopped))


def _stopped(rows: Sequence[ReplayedStop]) -> list[RenderableType]:
    if not rows:
        return []
    made = table(">trial", ">stopped at step", ">steps saved", ">came to", ">rank")
    for one in rows[:SHOWN]:
        made.add_row(
            *cells(
                one.number,
                one.step,
                one.steps_saved,
                number(one.value),
                one.rank or "–",
            )
        )
    left = [Text(f"and {len(rows) - SHOWN} more; --json lists all", "dim")] if len(rows) > SHOWN else []
    return [Text(), made, *left]


def sampler(name: str, told: Sequence[ReplayedProposal]) -> RenderableType:
    """How far another sampler's proposals would have been from those that were run."""
    if not told:
        return Text("No proposal to compare.")
    apart = [one.distance for one in told]
    head = (
        f"{clean(name)}, asked at each of {len(told)} proposals with the history there was: on average "
        f"{fmean(apart):.0%} of the range away from what was run, in the median {median(apart):.0%}. One step ahead "
        "only: what its own trials would have taught it is not known."
    )
    made = table(">trial", ">distance", "would have proposed")
    for one in told[-SHOWN:]:
        made.add_row(*cells(one.number, f"{one.distance:.3f}", parameters(one.params)))
    return Group(Text(head), Text(), made)
