"""A study in a notebook's cell: state, progress, best trial, history and running trials as HTML.

Without scripts, and in the notebook's own colours, so that it is readable in light and dark mode.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tunesvc.charts import front_of
from tunesvc.charts.chart import COLOURS
from tunesvc.charts.svg import History, history_drawing, sparkline
from tunesvc.db.engine.database import Database
from tunesvc.queries.recommendation import answer_rows, get_recommendation
from tunesvc.queries.rows import AttemptRow, ReportCurve, StudyView, TrialRow
from tunesvc.queries.studies import get_study
from tunesvc.queries.study_summary import list_running
from tunesvc.queries.trials.attempt_events import list_attempts
from tunesvc.queries.trials.trial_results import Results, get_results
from tunesvc.queries.trials.trial_table import list_trials, rows_of
from tunesvc.util.characters import visible
from tunesvc.util.formatting import duration, number, parameter

BEST_MAX = 3
"""Most listed trials of a front."""
RUNNING_MAX = 6
ERRORS_MAX = 3
_TRACEBACK_LINES = 6
_MESSAGE_CHARS = 300


@dataclass(frozen=True, slots=True)
class CardContent:
    """Content of a study's card."""

    study: StudyView
    best: Sequence[TrialRow]
    """The best trial, or the first trials of the front."""
    evidence: str
    """Evidence for the best trial's value in words, or that it is the best observed one."""
    history: History
    running: Sequence[tuple[TrialRow, ReportCurve]]
    errors: Sequence[AttemptRow]
    """Newest failed trials' last attempts."""


class CardReader:
    """Reads the content of a study's card; later reads get only trials that can have changed."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._study_id: int | None = None
        self._results: Results | None = None

    def read(self) -> CardContent:
        """Return the study as it is now.

        Raises:
            StudyNotFound: it is not stored.
            DatabaseUnavailable: the database does not answer.
        """
        database, view = self._database, get_study(self._database, self._name)
        if view.study_id != self._study_id:
            self._study_id, self._results = view.study_id, None
        results = self._results = get_results(database, view.study_id, self._results)
        best, evidence = self._best(view, results)
        has_running = view.counts.running or view.counts.interrupted
        return CardContent(
            view,
            view.as_given(best),
            evidence,
            History.of(view.objectives[0], results),
            list_running(database, view.study_id)[:RUNNING_MAX] if has_running else (),
            self._errors(view) if view.counts.failed else (),
        )

    def _best(self, view: StudyView, results: Results) -> tuple[Sequence[TrialRow], str]:
        """Return the recommended trial of a study at rest: the model is too slow for others."""
        if len(view.objectives) > 1:
            front = results.numbers[front_of(view.objectives, results)].tolist()
            listed = rows_of(self._database, view.study_id, front[:BEST_MAX])
            return listed, f"the first {len(listed)} of {len(front)} trials of the Pareto front"
        if view.is_at_rest:
            found = get_recommendation(self._database, view, results)
            evidence = "" if found is None else found.describe(view.shared_blocks_text)
            rows = answer_rows(self._database, view, found)[:1]
            return rows, evidence or "the best observed value"
        best = results.best(view.objectives[0])
        if best is None:
            return (), ""
        return rows_of(self._database, view.study_id, [best]), "the best observed value so far"

    def _errors(self, view: StudyView) -> Sequence[AttemptRow]:
        failed = list_trials(
            self._database, view.study_id, states=["failed"], limit=ERRORS_MAX, order="newest"
        )
        attempts = list_attempts(self._database, view.study_id, [row.number for row in failed])
        last = {attempt.trial_number: attempt for attempt in attempts}
        return [last[row.number] for row in failed if row.number in last]


def card(content: CardContent, *, phase: str = "", problem: str = "", footer: str = "") -> str:
    """Return the HTML of a study.

    Args:
        content: of the study.
        phase: of the run, beside the state: `stopping`.
        problem: error of the run that the study does not record.
        footer: a line about when this was and how to continue.
    """
    study = content.study
    parts = [
        _head(study.name, str(study.state), study.reason, phase),
        _bar(study.fraction, str(study.state)) if study.budget else "",
        f'<div class="soft">{_text(" · ".join(_counts(study)))}</div>',
        _problem(problem),
        _best(study, content.best, content.evidence),
        history_drawing(study.objectives[0].name, content.history),
        _running(study, content.running),
        _errors(content.errors),
        _traceback(content.errors) if study.is_failure else "",
        _footer(footer or _continuation(study)),
    ]
    return _framed(parts)


def card_of_nothing(name: str, state: str, phase: str = "", problem: str = "") -> str:
    """Return the HTML of a study that is not stored: the run starts, or could not."""
    return _framed([_head(name, state, "", phase), _problem(problem)])


def as_of(now: datetime | None = None) -> str:
    """Return the time of a view, for readers of a saved notebook."""
    return f"as of {now or datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _continuation(study: StudyView) -> str:
    if study.is_at_rest:
        return ""
    if study.unattended:
        return f"no process runs it; `{study.resume_command}` continues it"
    return as_of()


def _framed(parts: Sequence[str]) -> str:
    return f'<div class="tunesvc-study"><style>{_CSS}</style>{"".join(parts)}</div>'


def _head(name: str, state: str, reason: str, phase: str) -> str:
    colour = _COLOURS.get(state, COLOURS["pruned"])
    badge = f'<span class="state" style="border-color: {colour}">{_text(state)}</span>'
    about = " · ".join(filter(None, (f"{phase} …" if phase else "", reason)))
    return f"<div><strong>{_text(name)}</strong> {badge} <span>{_text(about)}</span></div>"


_COLOURS = {
    **COLOURS,
    "starting": COLOURS["running"],
    "not started": COLOURS["failed"],
    "finished": COLOURS["best"],
    "stopped": COLOURS["interrupted"],
    "paused": COLOURS["paused"],
}


def _bar(fraction: float, state: str) -> str:
    share = 100 * min(1.0, max(0.0, fraction))
    colour = COLOURS["failed"] if state == "failed" else COLOURS["best"]
    return (
        f'<div class="bar" role="progressbar" aria-label="Share of the budget that is spent" '
        f'aria-valuenow="{share:.0f}" aria-valuemin="0" aria-valuemax="100">'
        f'<div style="background: {colour}; width: {share:.1f}%"></div></div>'
    )


def _counts(study: StudyView) -> Iterator[str]:
    counts = study.counts
    limit = study.budget.trials if study.budget else None
    yield f"{counts.done:,} of {limit:,} trials" if limit else f"{counts.done:,} trials"
    for name in ("complete", "pruned", "failed", "stopped", "running", "interrupted", "queued"):
        count = getattr(counts, name)
        if count or name in ("complete", "pruned", "failed"):
            yield f"{count:,} {name}"
    if counts.paused:
        yield f"{counts.paused:,} paused"
    yield duration(study.active_s)
    if study.left_s:
        yield f"about {duration(study.left_s)} left"


def _best(study: StudyView, best: Sequence[TrialRow], evidence: str) -> str:
    if not best:
        yet = "" if study.is_at_rest else " yet"
        return f'<div class="soft">No trial is complete and feasible{yet}.</div>'
    rows = "".join(_best_row(study, trial) for trial in best)
    return f'<table class="best">{rows}</table><div class="soft">{_text(evidence)}</div>'


def _best_row(study: StudyView, trial: TrialRow) -> str:
    names = (objective.name for objective in study.objectives)
    values = {name: number(value) for name, value in zip(names, trial.values or (), strict=False)}
    params = {name: parameter(value) for name, value in trial.params.items()}
    return (
        f"<tr><td>trial {trial.number}</td><td><strong>{_pairs(values)}</strong></td>"
        f"<td>{_pairs(params)}</td></tr>"
    )


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{_text(name)} = {_text(value)}" for name, value in values.items())


def _running(study: StudyView, running: Sequence[tuple[TrialRow, ReportCurve]]) -> str:
    if not running:
        return ""
    heads = ("trial", "step", study.objectives[0].name, "", "time", "parameters")
    head = "".join(f"<th>{_text(name)}</th>" for name in heads)
    rows = "".join(_running_row(trial, curve) for trial, curve in running)
    hidden = study.counts.running + study.counts.interrupted - len(running)
    more = f'<div class="soft">and {hidden:,} more</div>' if hidden > 0 else ""
    return f'<table class="running"><thead><tr>{head}</tr></thead>{rows}</table>{more}'


def _running_row(trial: TrialRow, curve: ReportCurve) -> str:
    values = [point.value for point in curve.points if point.value is not None]
    params = {name: parameter(value) for name, value in trial.params.items()}
    cells = (
        str(trial.number),
        "–" if trial.last_step is None else str(trial.last_step),
        number(trial.last_value),
        sparkline(values, f"Curve of trial {trial.number}"),
        duration(trial.duration_s),
        _pairs(params),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _errors(attempts: Sequence[AttemptRow]) -> str:
    """Return a line for each message, with the trials that failed by it."""
    numbers: dict[str, list[str]] = {}
    for attempt in reversed(attempts):
        message = " ".join((attempt.message or attempt.failure or "").split())
        numbers.setdefault(message[:_MESSAGE_CHARS], []).append(str(attempt.trial_number))
    lines = []
    for message, failed in numbers.items():
        trials = f"trial{'s' * (len(failed) > 1)} {', '.join(failed)} failed: {message}"
        lines.append(f'<div class="problem">{_text(trials)}</div>')
    return "".join(lines)


def _traceback(attempts: Sequence[AttemptRow]) -> str:
    """Return the end of the first traceback."""
    for attempt in reversed(attempts):
        if attempt.traceback:
            lines = attempt.traceback.rstrip().splitlines()[-_TRACEBACK_LINES:]
            return f"<pre>{_text(chr(10).join(lines))}</pre>"
    return ""


def _problem(text: str) -> str:
    return f'<div class="problem">{_coded(text)}</div>' if text else ""


def _footer(text: str) -> str:
    return f'<div class="soft foot">{_coded(text)}</div>' if text else ""


def _coded(text: str) -> str:
    """Return HTML of a sentence, with text between backticks as code."""
    parts = _text(text).split("`")
    if len(parts) % 2 == 0:  # an unpaired backtick
        return _text(text)
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def _text(value: object) -> str:
    return html.escape(visible(str(value)))


_CSS = """
.tunesvc-study { font: 14px/1.5 system-ui, sans-serif; max-width: 760px; overflow-wrap: anywhere }
.tunesvc-study .state { border: 1px solid; border-radius: 99px; padding: 0 8px; font-size: 12px }
.tunesvc-study .soft { opacity: .75; font-size: 13px }
.tunesvc-study .bar { height: 6px; border-radius: 3px; background: rgb(128 128 128 / .25);
  margin: 6px 0 }
.tunesvc-study .bar div { height: 6px; border-radius: 3px }
.tunesvc-study table { border-collapse: collapse; margin: 4px 0; font: inherit; color: inherit;
  display: block; overflow-x: auto }
.tunesvc-study :is(th, td) { padding: 1px 14px 1px 0; text-align: left; vertical-align: top;
  background: none; border: 0; color: inherit; font-size: 13px; max-width: none }
.tunesvc-study th { font-weight: normal; opacity: .75 }
.tunesvc-study :is(.running :is(th, td), .best td:not(:last-child)) { white-space: nowrap }
.tunesvc-study .spark { display: block; height: 18px; margin: 2px 0 }
.tunesvc-study .history { display: grid; grid-template-columns: auto 1fr; column-gap: 6px;
  max-width: 620px; margin: 4px 0; font-size: 11px; line-height: 1.3 }
.tunesvc-study .history svg { display: block; overflow: visible;
  border: solid rgb(128 128 128 / .35); border-width: 0 0 1px 1px }
.tunesvc-study .history :is(.x, .y) { display: flex; justify-content: space-between; opacity: .75 }
.tunesvc-study .history .y { flex-direction: column; text-align: right }
.tunesvc-study .history .x { grid-column: 2; gap: 10px }
.tunesvc-study .problem { border-left: 3px solid #e5484d; padding-left: 8px; margin: 4px 0 }
.tunesvc-study pre { font-size: 12px; overflow-x: auto; white-space: pre; margin: 4px 0 4px 11px;
  background: none; color: inherit; padding: 0 }
.tunesvc-study .foot { margin-top: 4px }
"""
