"""Commands that read: ls, show, best, trials, logs."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesvc.cli.chosen_client import chosen_server, opened_client
from tunesvc.cli.cli_options import (
    DatabaseUrl,
    Json,
    Limit,
    Quiet,
    ServerUrl,
    StudyName,
    TrialNumber,
    Where,
)
from tunesvc.db.schema.states import STATES_SHOWN
from tunesvc.util import formatting
from tunesvc.util.characters import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tunesvc.client.answers import BestTrials
    from tunesvc.client.interface import TuneClient
    from tunesvc.queries.rows import LogRow, StudyRow, StudyView, TrialRow
    from tunesvc.queries.trials.population_tree import Schedule
    from tunesvc.search.analysis.recommend import Recommendation


def parse_state(text: str) -> str:
    """Parse a trial's state; `fail` is Optuna's word for `failed`.

    Raises:
        typer.BadParameter: there is no such state.
    """
    if text != "fail" and text not in STATES_SHOWN:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(STATES_SHOWN)}")
    return "failed" if text == "fail" else text


def ls(
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Only studies with this tag; may be repeated."),
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Only studies of this owner.")] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List studies, the newest first."""
    from tunesvc.client.paging import rows_of_pages
    from tunesvc.views import terminal

    with opened_client(database_url, server) as client:
        pages = partial(client.studies.page, tags=tag or (), owner=owner)
        rows = list(rows_of_pages(lambda after, most: pages(after=after, limit=most), limit))
    if as_json:
        terminal.print_json(rows)
    elif not rows and (tag or owner):
        terminal.err().print("No study matches.")
    elif not rows:
        begin = "run" if chosen_server(server) is None else "submit"
        terminal.out().print(
            f"No studies yet. `tune init` writes one to start from, `tune {begin} FILE` runs it.",
            markup=False,
        )
    else:
        console = terminal.out()
        console.print(_studies_table(rows, console.width))


def _studies_table(rows: Sequence[StudyRow], width: int) -> RenderableType:
    from tunesvc.views import terminal

    spare = ["objective", "created", "owner", "tags"]
    is_priced = any(row.prices for row in rows)
    if is_priced:
        spare = [">cost", *spare]
    heads = (
        "study",
        "state",
        "budget",
        ">trials",
        ">pruned",
        ">failed",
        ">best",
        *spare,
    )
    lines = [_study_cells(row, is_priced) for row in rows]
    return terminal.fitted(heads, lines, width, (">pruned", ">failed", *spare))


def _study_cells(row: StudyRow, is_priced: bool) -> list[object]:
    from tunesvc.views import terminal

    state = terminal.state_text(str(row.state))
    goals = [("max" if one.maximize else "min", one.name) for one in row.objectives]
    objective = ", ".join(f"{goal} {name}" for goal, name in goals)
    done = str(row.counts.done)
    if row.counts.done != row.counts.total:
        done += f"/{row.counts.total}"
    budget = terminal.bar(row.fraction) if row.budget else "–"
    best = formatting.number(row.best_value)
    counts = (done, row.counts.pruned, row.counts.failed)
    labels = (row.owner, ", ".join(row.tags))
    return [
        row.name,
        state,
        budget,
        *counts,
        best,
        *([row.cost_text or "–"] if is_priced else []),
        objective,
        formatting.ago(row.created_at),
        *labels,
    ]


def show(
    study: StudyName,
    trial: Annotated[
        int | None,
        typer.Argument(help="A trial's number, to see it in detail.", metavar="TRIAL", min=0),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            "-f",
            help="Show the study's progress until it has ended; Ctrl-C leaves it running.",
        ),
    ] = False,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Show a study's progress and best trial, or one trial's attempts, decisions and failure."""
    if follow and trial is not None:
        raise typer.BadParameter("--follow is for a study: `tune logs --follow` is for a trial")
    with opened_client(database_url, server) as client:
        if follow:
            from tunesvc.cli.following import follow as follow_studies

            view = client.studies.get(study)
            raise typer.Exit(follow_studies(client, [view], as_json=as_json, quiet=False))
        if trial is None:
            _show_study(client, study, as_json)
        else:
            _show_trial(client, study, trial, as_json)


def _show_study(client: TuneClient, study: str, as_json: bool) -> None:
    from tunesvc.views import study_text, terminal

    overview = client.insights.overview(study)
    view, rows = overview.study, overview.best.rows
    if as_json:
        extra = {
            "best": rows if len(view.objectives) > 1 else rows[:1],
            "recommended": overview.best.recommendation,
            "forecast": overview.forecast,
            "outlook": overview.outlook,
            "audit": overview.audit,
        }
        terminal.print_json({**terminal.plain(view), **terminal.plain(extra)})
        return
    console = terminal.out()
    console.print(
        study_text.overview(
            view,
            rows,
            overview.newest,
            console.width,
            answer=overview.best.recommendation,
            forecast=overview.forecast,
            outlook=overview.outlook,
            audit=overview.audit,
        )
    )


def _show_trial(client: TuneClient, study: str, number: int, as_json: bool) -> None:
    from tunesvc.views import study_text, terminal

    detail = client.trials.get(study, number)
    curve = client.trials.curve(study, number)
    if as_json:
        terminal.print_json({**terminal.plain(detail), "curve": terminal.plain(curve.points)})
        return
    terminal.out().print(study_text.trial(client.studies.get(study), detail, curve))


def best(
    study: StudyName,
    yaml: Annotated[bool, typer.Option("--yaml", help="The parameters alone, as YAML.")] = False,
    schedule: Annotated[
        bool,
        typer.Option(
            "--schedule",
            help="The parameters along its lineage in a population, as YAML for `tune run "
            "--schedule`.",
        ),
    ] = False,
    test: Annotated[
        bool,
        typer.Option(
            "--test",
            help="Evaluate it on the test part, once, and say how far validation was optimistic.",
        ),
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="With --test: evaluate although the test part was used, which is recorded.",
        ),
    ] = False,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print the recommended trial; for several objectives, the Pareto front.

    The best according to the repeats of `tune confirm`, otherwise the best observed one, or if
    results are noisy the best according to the model of all trials. If another trial has the best
    observed value, it is shown too: as probably a lucky draw, or as one that cannot be
    distinguished from the first.

    `--test` trains it as before and evaluates it on the test part of the study's data, which no
    trial has read. That happens once, as the study `STUDY:test`: later calls show what is recorded.
    Ctrl-C stops it cleanly, and the same command continues it. A server evaluates a submitted
    study; that continues there after Ctrl-C.
    """
    if test or again:
        _test(study, server, database_url, test=test, again=again, as_json=as_json, quiet=quiet)
        return
    with opened_client(database_url, server) as client:
        if schedule:
            typer.echo(_schedule(client.insights.schedule(study), as_json=as_json), nl=False)
            return
        best_trials = client.insights.best(study)
    _print_best(best_trials, study, yaml=yaml, as_json=as_json)
    if not best_trials.rows:
        raise typer.Exit(1)


def _print_best(best_trials: BestTrials, study: str, *, yaml: bool, as_json: bool) -> None:
    from tunesvc.views import study_text, terminal

    view, rows, answer = best_trials.study, best_trials.rows, best_trials.recommendation
    if as_json:
        several = len(view.objectives) > 1
        given = view.as_given(rows)
        terminal.print_json(given if several else _answer_json(given, answer))
    elif yaml:
        typer.echo(_yaml(view, rows), nl=False)
    elif rows:
        console = terminal.out()
        console.print(study_text.best(view, rows, console.width, answer))
    else:
        terminal.err().print(f"{terminal.markup(study)} has no complete, feasible trial yet.")


def _test(
    study: str,
    server: str | None,
    database_url: str | None,
    *,
    test: bool,
    again: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from tunesvc.cli import final_commands, served_final_commands

    if not test:
        raise typer.BadParameter("--again is for --test")
    if (address := chosen_server(server)) is not None:
        served_final_commands.test_and_print(
            study, address, again=again, as_json=as_json, quiet=quiet
        )
        return
    final_commands.test_and_print(study, database_url, again=again, as_json=as_json, quiet=quiet)


def _answer_json(rows: Sequence[TrialRow], answer: Recommendation | None) -> dict[str, Any] | None:
    from tunesvc.views import terminal

    if answer is None or not rows:
        return None
    extra = {key: value for key, value in terminal.plain(answer).items() if key != "number"}
    return {**terminal.plain(rows[0]), **extra}


def _schedule(found: Schedule, *, as_json: bool) -> str:
    from tunesvc.spec.yaml.document import to_yaml

    if as_json:
        return json.dumps(found.search) + "\n"
    line = " → ".join(map(str, found.lineage))
    values = ", ".join(f"{value:.6g}" for value in found.values or ())
    head = f"# Trial {found.number} of {visible(found.study)}, with {values}; trials {line}.\n"
    return head + to_yaml({"search": found.search})


def _yaml(view: StudyView, rows: Sequence[TrialRow]) -> str:
    from tunesvc.spec.yaml.document import to_yaml

    if not rows:
        return ""
    values = [dict(row.params) for row in view.as_given(rows)]
    shown: Any = values[0] if len(view.objectives) == 1 else values
    return to_yaml(shown)


def trials(
    study: StudyName,
    where: Where = "",
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            "-s",
            parser=parse_state,
            metavar="STATE",
            help=f"Only trials in this state; may be repeated. One of {', '.join(STATES_SHOWN)}.",
        ),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Order: `newest`, `best`, or a name such as `number`, `value`, `duration`, `lr`; "
            "`-NAME` begins with the largest.",
        ),
    ] = "number",
    limit: Limit = 100,
    as_csv: Annotated[
        bool,
        typer.Option("--csv", help="Print CSV, as `tune export` does."),
    ] = False,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """List a study's trials.

    A filter compares names with values: `number`, `state`, `value`, `duration`, `attempts`,
    `failure`, `step`, metrics, parameters and constraints (`constraints.cost.max > 0`), with `==`,
    `!=`, `<`, `<=`, `>`, `>=` and `in [...]`, put together by `and`, `or`, `not` and parentheses.
    """
    from tunesvc.client.paging import rows_of_pages
    from tunesvc.views import study_text, terminal

    if as_csv and as_json:
        raise typer.BadParameter("write either --csv or --json")
    with opened_client(database_url, server) as client:
        view = client.studies.get(study)
        only, order = _filter(where, state or ()), _order(view, sort)
        matching = client.trials.count(study, where=only)
        if as_csv:
            exported = client.trials.export(study, "csv", where=only, sort=order, limit=limit)
            sys.stdout.writelines(texts_of(exported))
        else:
            pages = partial(client.trials.page, study, where=only, sort=order)
            rows = list(rows_of_pages(lambda after, most: pages(after=after, limit=most), limit))
    if as_json:
        terminal.print_json(rows)
    if not matching:
        print_no_trials(view)
    elif not as_csv and not as_json:
        console = terminal.out()
        console.print(study_text.trials(view, rows, console.width))
    if matching > limit:
        terminal.err().print(f"[dim]{limit} of {matching} trials; --limit shows more[/]")


def texts_of(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the text of pieces of UTF-8, which may end within a character."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for piece in pieces:
        yield decoder.decode(piece)


def _filter(where: str, states: Sequence[str]) -> str:
    only = f"state in [{', '.join(states)}]" if states else ""
    if where.strip() and only:
        return f"({where}) and {only}"
    return where or only


def _order(view: StudyView, sort: str) -> str:
    best = "-value" if view.objectives[0].maximize else "value"
    return {"newest": "-number", "best": best}.get(sort, sort)


def logs(
    study: StudyName,
    trial: TrialNumber,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Print new output until the trial has finished."),
    ] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only this attempt's output.")] = None,
    server: ServerUrl = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Print what a trial wrote to standard output and error."""
    from tunesvc.client.log_position import log_position
    from tunesvc.client.paging import rows_of_pages

    with opened_client(database_url, server) as client:
        row = client.trials.get(study, trial).row
        pages = partial(client.trials.logs, study, trial, attempt=attempt)
        after = ""
        for piece in rows_of_pages(lambda after, most: pages(after=after, limit=most)):
            _print_log(piece, as_json)
            after = log_position(piece)
        if not after:
            _print_no_output(row, attempt)
        if follow and not row.is_finished:
            for piece in client.trials.follow(study, trial, attempt=attempt, after=after):
                _print_log(piece, as_json)


def _print_log(row: LogRow, as_json: bool) -> None:
    from tunesvc.views import terminal

    if as_json:
        terminal.print_json(row)
        return
    stream = sys.stderr if row.stream == "stderr" else sys.stdout
    stream.write(row.text if not stream.isatty() else visible(row.text))
    stream.flush()


def _print_no_output(row: TrialRow, attempt: int | None) -> None:
    from tunesvc.views import terminal

    of = "" if attempt is None else f"attempt {attempt} of "
    yet = "" if row.is_finished else " yet"
    terminal.err().print(f"{of}trial {row.number} has written nothing{yet}")


def print_no_trials(view: StudyView) -> None:
    """Print on standard error that a study has no trials, or none that match."""
    from tunesvc.views import terminal

    total = view.counts.total
    name = terminal.markup(view.name)
    text = f"study {name} has no trials yet"
    if total:
        text = f"none of the {total} trials of {name} matches"
    terminal.err().print(text)
