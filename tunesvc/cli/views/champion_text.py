"""Text about champions: a list, one with its history, and the result of a watch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.padding import Padding
from rich.text import Text

from tunesvc.champions.watch_result import OUTCOMES, WatchResult
from tunesvc.client.answers import Announcement, ChampionHistory
from tunesvc.db.champions.champion_records import Champion
from tunesvc.db.champions.champion_tenures import Tenure
from tunesvc.drift.drift_report import ColumnDrift, DriftReport
from tunesvc.util import formatting
from tunesvc.util.characters import visible
from tunesvc.views import terminal

COLUMNS = 8
"""Most columns of a drift report that are shown, beside those that have drifted."""


def print_champions(tenures: Sequence[Tenure]) -> None:
    """Print the champion of each family, by its tenure."""
    heads = (">number", "family", "study", ">trial", "metric", ">value", "data", "since")
    console, lines = terminal.out(), [_cells(tenure) for tenure in tenures]
    console.print(terminal.fitted(heads, lines, console.width, ("metric", "since")))


def _cells(tenure: Tenure) -> tuple[object, ...]:
    champion = tenure.latest
    configuration = champion.configuration
    return (
        champion.champion_id,
        visible(champion.family),
        visible(configuration.study),
        configuration.trial_number,
        configuration.metric,
        describe_value(champion),
        configuration.data_version or "–",
        formatting.ago(tenure.promoted.promoted_at),
    )


def print_champion(history: ChampionHistory) -> None:
    """Print a family's champion, its evidence, its announcements and its history."""
    console, champion, tenure = terminal.out(), history.current, history.tenures[0]
    grid = terminal.table("", "")
    grid.show_header = False
    for label, text in _facts(tenure):
        grid.add_row(*terminal.cells(label, text))
    console.print(grid)
    if champion.evidence.drift is not None:
        print_drift(champion.evidence.drift)
    for announced in history.announcements:
        if announced.champion_id == tenure.promoted.champion_id or announced.is_due:
            console.print(Text(_describe(announced)))
    console.print()
    for line, reason in _lines(history.tenures):
        console.print(line)
        console.print(Padding(Text(visible(reason), style="dim"), (0, 0, 0, 6)))
    commands = [f"tune champion export {_quoted_family(champion)}"]
    if len(history.tenures) > 1:
        commands.append(f"tune champion rollback {_quoted_family(champion)}")
    console.print(Text("\n" + "\n".join(commands), style="cyan"))


def _quoted_family(champion: Champion) -> str:
    """Return the family as a shell takes it."""
    import shlex

    return shlex.quote(champion.family)


def describe_value(champion: Champion) -> str:
    """Return a champion's value with its standard error, which is corrected for shared rows."""
    configuration = champion.configuration
    error = configuration.standard_error
    text = formatting.number(configuration.value)
    return text if error is None else f"{text} ± {error:.2g} (corrected)"


def _facts(tenure: Tenure) -> Iterator[tuple[str, str]]:
    champion = tenure.latest
    configuration, evidence = champion.configuration, champion.evidence
    yield "family", visible(champion.family)
    yield "champion", f"{champion.champion_id}, {champion.kind}, by {champion.user_name}"
    yield "since", formatting.ago(tenure.promoted.promoted_at)
    yield "configuration", f"trial {configuration.trial_number} of {visible(configuration.study)}"
    yield "parameters", visible(formatting.parameters(configuration.params))
    folds = len(configuration.fold_values)
    how = f", mean of {folds} folds" if folds else ", as observed in one trial"
    yield configuration.metric, f"{describe_value(champion)} ({configuration.goal}{how})"
    if configuration.data_version is not None:
        yield "data", configuration.data_version
    yield "reason", visible(evidence.reason)


def _lines(tenures: Sequence[Tenure]) -> Iterator[tuple[Text, str]]:
    """Yield a line and a reason for each promotion, and one of each for the times it stayed."""
    for tenure in tenures:
        if tenure.stays:
            count = f"  ({tenure.stays} times)" if tenure.stays > 1 else ""
            yield _line(tenure.latest).append(count), tenure.latest.evidence.reason
        yield _line(tenure.promoted), tenure.promoted.evidence.reason


def _line(champion: Champion) -> Text:
    configuration = champion.configuration
    origin = f"trial {configuration.trial_number} of {visible(configuration.study)}"
    return Text.assemble(
        (f"{champion.champion_id:>4}  ", "bold"),
        f"{champion.kind}: {origin}, {configuration.metric} {describe_value(champion)}, ",
        (f"{formatting.ago(champion.promoted_at)} by {visible(champion.user_name)}", "dim"),
    )


def _describe(announcement: Announcement) -> str:
    what = f"{announcement.hook} of champion {announcement.champion_id}"
    if announcement.delivered_at is not None:
        return f"{what}: delivered {formatting.ago(announcement.delivered_at)}"
    if announcement.cancelled_at is not None:
        return f"{what}: cancelled, {visible(announcement.error)}"
    error = f": {announcement.error}" if announcement.error else ""
    return f"! {what}: not delivered after {announcement.attempts} attempts{visible(error)}"


def print_drift(report: DriftReport) -> None:
    """Print the tests of columns: those that have drifted, and the next ones."""
    console = terminal.out()
    if report.changed_columns:
        names = ", ".join(map(visible, report.changed_columns))
        console.print(Text(f"columns that came, went, or have another type: {names}"))
    carried = f", without {report.carried} that both have" if report.carried else ""
    console.print(Text(f"{report.after} rows against {report.before}{carried}", style="dim"))
    heads = ("column", "test", ">p, corrected", ">distance", ">PSI", "")
    others = [one for one in report.columns if not one.has_drifted]
    shown = [*report.drifted, *others[:COLUMNS]]
    console.print(terminal.fitted(heads, [_test(one) for one in shown], console.width, ()))
    if rest := len(report.columns) - len(shown):
        console.print(Text(f"and {rest} tests more, none of which shows drift", style="dim"))


def _test(test: ColumnDrift) -> tuple[object, ...]:
    psi = "–" if test.psi is None else f"{test.psi:.3f}"
    marks = [
        text for text, holds in (("target", test.is_target), ("drifted", test.has_drifted)) if holds
    ]
    return (
        visible(test.column),
        test.kind,
        f"{test.adjusted:.2g}",
        f"{test.distance:.3f}",
        psi,
        ", ".join(marks),
    )


def print_result(result: WatchResult) -> None:
    """Print the result of a watch."""
    console = terminal.out()
    data = f" on data {result.data_version}" if result.data_version else ""
    console.print(
        Text.assemble((visible(result.family), "bold"), f"{data}: {OUTCOMES[result.outcome]}")
    )
    if result.detail:
        console.print(Text(visible(result.detail)))
    if result.drift is not None:
        print_drift(result.drift)
    champion = result.champion
    if champion is not None:
        configuration = champion.configuration
        value = f"{configuration.metric} {describe_value(champion)}"
        origin = f"trial {configuration.trial_number} of {visible(configuration.study)}"
        console.print(Text(f"champion {champion.champion_id}: {origin}, {value}"))
    if result.undelivered:
        command = f"tune champion deliver {_quoted_family(champion)}" if champion else ""
        console.print(Text(f"! {result.undelivered} announcements failed: `{command}` tries again"))
