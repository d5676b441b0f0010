"""End of a run: exit code, closing text for people and programs, and next commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tunesvc.cli.exits import ExitCode, code_of, worst
from tunesvc.errors import StudyFailed, TuneError
from tunesvc.util import formatting
from tunesvc.util.characters import visible

if TYPE_CHECKING:
    from tunesvc.queries.rows import StudyView, TrialRow
    from tunesvc.search.analysis.recommend import Recommendation

_NAME_CHARS = 28
"""Characters of a study's name in a table, so that values have room."""


class EndedStudy(Protocol):
    """A study as a run has left it, or following one that a server runs."""

    name: str
    interrupted: bool

    @property
    def view(self) -> StudyView:
        """The study."""
        ...

    @property
    def answer(self) -> tuple[Recommendation | None, Sequence[TrialRow]]:
        """The recommendation, and its trials."""
        ...

    @property
    def best_trials(self) -> Sequence[TrialRow]:
        """The recommended trial, or the Pareto front."""
        ...

    @property
    def failure(self) -> StudyFailed | None:
        """The error of a study that ended without a result."""
        ...


Results = Mapping[str, EndedStudy | Exception]
"""Studies by name, or the error of one that could not run."""


def print_results(results: Results, *, as_json: bool, quiet: bool) -> ExitCode:
    """Print the results; returns the exit code, the worst of several.

    Raises:
        Exception: the error of the only study, if it could not run.
    """
    (first, *others) = results.values()
    if not others and isinstance(first, Exception):
        raise first
    codes = {name: code_of_end(end) for name, end in results.items()}
    if as_json:
        for name, end in results.items():
            _print_end(name, end, codes[name])
    elif quiet:
        pass
    elif others or isinstance(first, Exception):
        _print_table(results, codes)
    else:
        _print_summary(first, codes[first.name])
    _print_errors(results)
    return worst(codes.values())


def code_of_end(end: EndedStudy | Exception) -> ExitCode:
    """Return the exit code of a study."""
    if isinstance(end, Exception):
        return code_of(end) if isinstance(end, TuneError) else ExitCode.FAILED
    if end.interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.FAILED if end.view.is_failure else ExitCode.DONE


def describe_error(error: Exception) -> str:
    """Return an error as text; an error outside our own hierarchy is a bug."""
    if isinstance(error, TuneError):
        return str(error)
    return f"{type(error).__name__}: {error}. This should not happen."


def _print_errors(results: Results) -> None:
    from tunesvc.views.terminal import print_error

    for name, end in results.items():
        if isinstance(end, Exception):
            print_error(f"{name}: {describe_error(end)}")


def _print_end(name: str, end: EndedStudy | Exception, code: ExitCode) -> None:
    from tunesvc.views.lines import JsonLines
    from tunesvc.views.terminal import plain

    if isinstance(end, Exception):
        JsonLines(name).write("end", {"error": describe_error(end), "exit_code": int(code)})
        return
    view = end.view
    best = next(iter(end.best_trials), None)
    JsonLines(name).write(
        "end",
        {
            "state": _state(view, code),
            "reason": view.reason,
            "counts": plain(view.counts),
            "best": plain(end.best_trials if len(view.objectives) > 1 else best),
            "elapsed_s": view.active_s,
            "gpu_hours": view.gpu_hours,
            "cost": view.cost,
            "exit_code": int(code),
        },
    )


# --- one study ------------------------------------------------------------------------------


def _print_summary(study: EndedStudy, code: ExitCode) -> None:
    from rich.text import Text

    from tunesvc.views import study_text, terminal

    console, view = terminal.out(), study.view
    answer, best = study.answer
    state = terminal.state_text(_state(view, code))
    console.print(
        Text.assemble(
            "\n",
            (visible(view.name), "bold"),
            " ",
            state,
            _when(view, code),
        )
    )
    console.print(Text.assemble(("trials  ", "dim"), study_text.counts(view)))
    if view.prices is not None:
        console.print(Text.assemble(("cost  ", "dim"), visible(_cost(view))))
    if best:
        console.print(
            Text(),
            study_text.best(view, best, console.width, answer),
            sep="\n",
        )
    if (error := study.failure) is not None and error.number is not None:
        console.print(
            study_text.traceback(
                f"Trial {error.number} failed",
                error.traceback or error.message,
            )
        )
    console.print(_commands(next_commands(view, code, has_best=bool(best))))


def _cost(view: StudyView) -> str:
    done = view.counts.done
    if not done or view.cost is None:
        return view.cost_text
    return f"{view.cost_text}, {view.money(view.cost / done)} per trial"


def _when(view: StudyView, code: ExitCode) -> str:

    if not view.counts.total:
        return " before its first trial"
    # the reason of an interrupted study is that of the run before
    is_of_this_run = view.reason and code is not ExitCode.INTERRUPTED
    reason = f": {visible(view.reason)}" if is_of_this_run else ""
    return f" after {formatting.duration(view.active_s)}{reason}"


def _state(view: StudyView, code: ExitCode) -> str:
    """Return the state that a run leaves; one on a server continues without this process."""
    is_run_here = view.submission is None
    return "interrupted" if code is ExitCode.INTERRUPTED and is_run_here else str(view.state)


def next_commands(
    view: StudyView,
    code: ExitCode,
    *,
    has_best: bool,
) -> list[tuple[str, str]]:
    """Return commands that make sense after a run, each with its description."""

    quoted, state = _quoted(view.name), view.state
    rows = []
    if code is ExitCode.FAILED:
        rows.append((f"tune logs {quoted} 0", "the output of its first trial"))
        rows.append(_replacement(view))
    elif code is ExitCode.INTERRUPTED or state in ("paused", "stopped", "failed"):
        rows.append((visible(view.resume_command), "continue where it stopped"))
    elif state == "finished" and view.has_population:
        rows.append((f"tune best {quoted} --schedule", "the parameters along the best lineage"))
    elif state == "finished" and view.is_exhausted:
        rows.append(
            (
                f"tune widen {quoted} {_wider(view)}",
                "allow more configurations, then `tune resume`",
            )
        )
        rows.append(
            (
                visible(view.confirm_command),
                "repeat the best trials, to be sure which is best",
            )
        )
    elif state == "finished":
        rows.append(
            (
                f"tune extend {quoted} {_more(view)}",
                "give it more budget" + ("" if view.submission else ", then `tune resume`"),
            )
        )
    if has_best:
        rows += [
            (f"tune best {quoted} --yaml", "the best parameters"),
            (f"tune report {quoted}", "everything as one page"),
        ]
    return [*rows, (f"tune show {quoted}", "its state and the newest trials")]


def _more(view: StudyView) -> str:
    """Return an example of more budget, of the first limit that the study has."""
    examples = {"trials": "20", "wall": "1h", "gpu_hours": "10", "cost": "10"}
    limits = {} if view.budget is None else view.budget.limits
    name = next((name for name, limit in limits.items() if limit is not None), "trials")
    return f"--{name.replace('_', '-')} {examples[name]}"


def _replacement(view: StudyView) -> tuple[str, str]:
    if view.submission is None:
        return "tune run FILE", "run again once it is fixed: it replaces this study"
    return f"tune rm {_quoted(view.name)}", "delete it, and submit it again once it is fixed"


def _wider(view: StudyView) -> str:
    """Return an example of a wider space: a range, or one more choice if there are only choices."""
    parameters = {} if view.spec is None else view.spec.parameters
    is_ranged = any(parameter.type != "categorical" for parameter in parameters.values())
    return "NAME=MIN..MAX" if is_ranged else "NAME+=VALUE"


# --- several studies ------------------------------------------------------------------------


def _print_table(results: Results, codes: Mapping[str, ExitCode]) -> None:
    from rich.text import Text

    from tunesvc.views import terminal

    console = terminal.out()
    heads = (
        "study",
        "state",
        ">trials",
        ">pruned",
        ">failed",
        ">best",
        ">trial",
        ">time",
    )
    lines = [_line(name, end, codes[name]) for name, end in results.items()]
    console.print(
        Text(),
        terminal.fitted(heads, lines, console.width, (">pruned", ">failed", ">time")),
        sep="\n",
    )
    for name, view in _views(results).items():
        if view.reason and view.state != "finished":
            console.print(
                Text.assemble(
                    "\n",
                    (visible(name), "bold"),
                    f": {visible(view.reason)}",
                )
            )
    console.print(_commands(_next_of_all(results, codes)))


def _line(name: str, end: EndedStudy | Exception, code: ExitCode) -> list[object]:
    from tunesvc.views import terminal

    if isinstance(end, Exception):
        return [_short(name), terminal.state_text("failed"), *("–" * 6)]
    view, best = end.view, next(iter(end.best_trials), None)
    best_cells = ["–", "–"] if best is None else [formatting.number(best.value), best.number]
    counts = [view.counts.done, view.counts.pruned, view.counts.failed]
    return [
        _short(name),
        terminal.state_text(_state(view, code)),
        *counts,
        *best_cells,
        formatting.duration(view.active_s),
    ]


def _views(results: Results) -> dict[str, StudyView]:
    return {name: end.view for name, end in results.items() if not isinstance(end, Exception)}


def _is_resumable(view: StudyView, code: ExitCode) -> bool:
    return code is ExitCode.INTERRUPTED or view.state in ("paused", "stopped")


def _next_of_all(results: Results, codes: Mapping[str, ExitCode]) -> list[tuple[str, str]]:
    views, rows = _views(results), []
    left = [name for name, view in views.items() if _is_resumable(view, codes[name])]
    if left:
        rows.append(
            (
                f"tune resume {' '.join(map(_quoted, left))}",
                "continue where they stopped",
            )
        )
    broken = [name for name in views if codes[name] is ExitCode.FAILED]
    rows += [
        (
            f"tune show {_quoted(name)} 0",
            "what went wrong, with the traceback",
        )
        for name in broken[:1]
    ]
    with_results = [name for name, view in views.items() if view.counts.complete]
    rows += [
        (
            f"tune best {_quoted(name)} --yaml",
            "the best parameters of one",
        )
        for name in with_results[:1]
    ]
    return [
        *rows,
        ("tune ls", "all studies"),
        ("tune dashboard", "everything in the browser"),
    ]


def _commands(rows: Sequence[tuple[str, str]]) -> Any:
    from rich.table import Table

    from tunesvc.views import terminal

    grid = Table.grid(padding=(0, 3))
    for command, meaning in [("", ""), *rows]:
        grid.add_row(*terminal.cells(command, meaning))
    grid.columns[0].style, grid.columns[1].style = "cyan", "dim"
    return grid


def _short(name: str) -> str:
    return name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…"


def _quoted(name: str) -> str:

    return shlex.quote(visible(name))
