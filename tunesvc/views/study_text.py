"""Studies and trials as text for a terminal: what `show`, `best`, `trials` and the end of `run`
print. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunesvc.queries.explain.explanation import Explanation
from tunesvc.queries.explain.pruning_audit import Audit
from tunesvc.queries.rows import (
    AttemptRow,
    ReportCurve,
    StudyRow,
    StudyView,
    TrialDetail,
    TrialRow,
)
from tunesvc.util.characters import visible
from tunesvc.util.formatting import ago, duration, money, names_in, number, parameter, violations
from tunesvc.views.terminal import (
    STYLES,
    bar,
    cells,
    fitted,
    indented,
    state_text,
    table,
)

if TYPE_CHECKING:
    from tunesvc.queries.confirmation import Confirmation
    from tunesvc.queries.cost.outlook import Outlook
    from tunesvc.search.analysis.recommend import Recommendation

ATTRIBUTE_CHARS = 500
"""Characters shown of an attribute's value, at most."""
CURVE_POINTS = 12
"""Points of a curve that are printed, at most."""


def overview(
    view: StudyView,
    best_rows: Sequence[TrialRow],
    newest: Sequence[TrialRow],
    width: int,
    *,
    answer: Recommendation | None = None,
    forecast: str | None = None,
    outlook: Outlook | None = None,
    audit: Audit | None = None,
) -> RenderableType:
    """Format a study's state.

    Args:
        view: the study.
        best_rows: recommended trials; for several objectives the Pareto front.
        newest: trials to list.
        width: of the terminal.
        answer: the evidence for the recommended trial.
        forecast: the expected improvement, as text.
        outlook: cost and gain of further trials.
        audit: the error rate of its pruner.
    """
    grid = facts(view)
    if audit is not None and audit.audited:
        grid.add_row(Text("pruner", "dim"), *cells(audit.text))
    has_gain = outlook is not None and outlook.gain is not None
    if forecast is not None and (_ends_by_forecast(view) or not has_gain):
        grid.add_row(Text("forecast", "dim"), *cells(forecast))
    if outlook is not None and has_gain:
        grid.add_row(Text("outlook", "dim"), *cells(outlook.text))
    parts: list[RenderableType] = [_heading(view), grid]
    if best_rows:
        parts += [Text(), best(view, best_rows, width, answer)]
    if newest:
        parts += [Text(), Text("Newest trials", "bold"), trials(view, newest, width)]
    return Group(*parts)


def _ends_by_forecast(view: StudyView) -> bool:
    return view.budget is not None and view.budget.stop_when is not None


def _heading(view: StudyView) -> Text:
    reason = (f"  {visible(view.reason)}", "dim") if view.reason else ""
    return Text.assemble(
        (visible(view.name), "bold"),
        "  ",
        state_text(str(view.state)),
        reason,
    )


def facts(view: StudyView) -> Table:
    """Format a study's facts as two columns."""
    grid = Table.grid(padding=(0, 2))
    goals = ", ".join(f"{objective.goal} {objective.name}" for objective in view.objectives)
    rows: dict[str, Any] = {
        "objective": goals,
        "trials": counts(view),
        "budget": budget(view),
    }
    rows["time"] = duration(view.active_s)
    if view.gpu_hours:
        rows["time"] += f", {view.gpu_hours:.3g} GPU hours"
    if view.prices is not None:
        rows["cost"] = view.cost_text
    rows["created"] = ago(view.created_at)
    if view.owner:
        rows["created"] += f" by {view.owner}"
    if view.tags:
        rows["tags"] = ", ".join(view.tags)
    if view.note:
        rows["note"] = view.note
    if view.coordinator:
        rows["run by"] = view.coordinator
    elif view.queued is not None:
        since = ago(view.queued.queued_at)
        rows["queue"] = f"place {view.queued.position}, since {since}: {view.queued.reason}"
    elif view.unattended:
        rows["run by"] = f"no process; `{view.resume_command}` continues it"
    if view.origin:
        rows["code"] = visible(view.origin)
    for name, text in rows.items():
        grid.add_row(Text(name, "dim"), *cells(text))
    return grid


def counts(view: StudyRow) -> Text:
    """Format the numbers of trials by state, in one line."""
    c = view.counts
    parts = [
        ("complete", c.complete),
        ("pruned", c.pruned),
        ("failed", c.failed),
        ("stopped", c.stopped),
    ]
    parts += [
        ("running", c.running),
        ("interrupted", c.interrupted),
        ("queued", c.queued),
        ("paused", c.paused),
        ("waiting", c.waiting),
    ]
    shown = [Text(f"{n} {name}", STYLES[name]) for name, n in parts if n or name == "complete"]
    return Text.assemble(f"{c.total}: ", Text(", ").join(shown))


def budget(view: StudyRow) -> str:
    """Format the budget and its spent part."""
    if view.budget is None:
        return "none (made through Optuna)"
    limits = []
    if view.budget.trials:
        limits.append(f"{view.budget.trials} trials")
    if view.budget.wall:
        limits.append(f"{duration(view.budget.wall)} wall time")
    if view.budget.gpu_hours:
        limits.append(f"{view.budget.gpu_hours:g} GPU hours")
    if view.budget.cost:
        limits.append(view.money(view.budget.cost))
    stop = view.budget.stop_when
    early = ""
    if stop is not None:
        unit = "unit of cost" if stop.per == "cost" else stop.per.replace("_", " ")
        early = f", or less than {stop.improvement_below:g} to expect per {unit}"
    return f"{bar(view.fraction)} of {' or '.join(limits)}{early}"


def best(
    view: StudyView,
    rows: Sequence[TrialRow],
    width: int,
    answer: Recommendation | None = None,
) -> RenderableType:
    """The best trial with its parameters; of several objectives, the front as a table.

    Args:
        view: the study.
        rows: the recommended trial, and after it the one with the best observed value if that is
            another one; or the front.
        width: of the terminal.
        answer: the evidence for the recommended trial.
    """
    if len(view.objectives) > 1:
        return Group(Text(f"Pareto front: {len(rows)} trials", "bold"), trials(view, rows, width))
    answered = _best(view, rows, width, answer)
    advice = "" if answer is None else answer.advise_seeds(view.name)
    return Group(answered, Text(f"{advice}.", "dim")) if advice else answered


def _best(
    view: StudyView,
    rows: Sequence[TrialRow],
    width: int,
    answer: Recommendation | None,
) -> RenderableType:
    row, *others = rows
    if answer is not None and others:
        return Group(
            _recommended(view, row, answer),
            Text(),
            best(view, others, width),
        )
    evidence = ""
    if answer is not None and answer.number == row.number:
        evidence = answer.describe(view.shared_blocks_text)
    return Group(
        _headline(
            "Best",
            view,
            _value(view, row),
            row,
            evidence,
        ),
        _params(row),
    )


def _recommended(
    view: StudyView,
    row: TrialRow,
    answer: Recommendation,
) -> RenderableType:
    observed = f"observed {number(row.value)}"
    note = f"Trial {answer.luckiest}, below, has the best observed value, {answer.luck}"
    if answer.confirmed is None:
        spread = "" if answer.deviation is None else f" ± {answer.deviation:.2g}"
        over = f" over {view.shared_blocks_text}" if view.shared_blocks else ""
        title = _headline(
            "Recommended",
            view,
            f"{number(answer.mean)}{spread}{over}",
            row,
            observed,
        )
        return Group(
            title,
            _params(row),
            Text(f"{note}; `{view.confirm_command}` finds out.", "dim"),
        )
    title = _headline(
        "Confirmed",
        view,
        number(answer.mean),
        row,
        f"{observed}, {answer.describe()}",
    )
    return Group(title, _params(row), Text(f"{note}.", "dim"))


def _headline(
    title: str,
    view: StudyView,
    value: str,
    row: TrialRow,
    evidence: str,
) -> Text:
    """Format the metric's value, and the trial with its evidence."""
    metric = (f"{visible(view.objectives[0].name)} = {value}", STYLES["best"])
    details = [f"trial {row.number}", evidence, view.money(row.cost)]
    after = (f"  {', '.join(filter(None, details))}", "dim")
    return Text.assemble((f"{title}  ", "bold"), metric, after)


def _value(view: StudyView, row: TrialRow) -> str:
    """Format a trial's value, with its standard error over folds or repeats."""
    objective = view.objectives[0]
    error = view.standard_error(row, objective)
    if error is None:
        return number(row.value)
    return f"{number(row.value)} ± {error:.2g} over {objective.step}s"


def _params(row: TrialRow) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in row.params.items():
        grid.add_row(*cells(f"  {name}", parameter(value)))
    return grid


def trials(view: StudyView, rows: Sequence[TrialRow], width: int) -> Table:
    """Format trials as a table; parameters and metrics that do not fit the terminal are left
    out."""
    heads, lines = _trial_cells(view, rows)
    params = names_in(row.params for row in rows)
    optional = {*params, *_other_metrics(view, rows)}
    words = {
        "state",
        "failure",
        *(name for name in params if not _is_numeric(name, rows)),
    }
    named = {head: head if head in words else f">{head}" for head in heads}
    columns = [[line[i] for line in lines] for i in range(len(heads))]
    shown = [i for i, texts in enumerate(columns) if _is_informative(heads[i], texts)]
    return fitted(
        [named[heads[i]] for i in shown],
        [[_coloured(heads[i], line[i]) for i in shown] for line in lines],
        width,
        [named[head] for head in heads if head in optional],
    )


def _is_informative(head: str, texts: Sequence[str]) -> bool:
    """Return True unless a column has its usual value in every line."""
    usual = {"attempts": "1", "failure": "", "cost": ""}.get(head)
    return any(text != usual for text in texts)


def _coloured(head: str, text: str) -> Text | str:
    return state_text(text) if head == "state" else text


def _is_numeric(name: str, rows: Sequence[TrialRow]) -> bool:
    return all(isinstance(row.params.get(name, 0.0), (int, float)) for row in rows)


def _trial_cells(view: StudyView, rows: Sequence[TrialRow]) -> tuple[list[str], list[list[str]]]:
    """Format trials as text: the column headings, and a line for each trial."""
    names = names_in(row.params for row in rows)
    metrics = _other_metrics(view, rows)
    heads = [
        "trial",
        "state",
        *(objective.name for objective in view.objectives),
        *metrics,
        *names,
    ]
    heads += ["step", "attempts", "time", "cost", "failure"]
    lines = []
    for row in rows:
        values: tuple[float | None, ...] = row.values or (
            row.last_value,
            *[None] * (len(view.objectives) - 1),
        )
        step = "–" if row.last_step is None else str(row.last_step)
        params = [parameter(row.params[name]) if name in row.params else "–" for name in names]
        others = [number(row.metrics.get(name)) for name in metrics]
        line = [str(row.number), row.state, *map(number, values), *others, *params]
        lines.append(
            [
                *line,
                step,
                str(row.attempts),
                duration(row.duration_s),
                "" if row.cost is None else money(row.cost),
                row.failure or "",
            ]
        )
    return heads, lines


def _other_metrics(view: StudyView, rows: Sequence[TrialRow]) -> list[str]:
    objectives = {objective.name for objective in view.objectives}
    names = names_in(row.metrics for row in rows)
    return [name for name in names if name not in objectives]


def trial(view: StudyView, detail: TrialDetail, curve: ReportCurve) -> RenderableType:
    """Format one trial: values, parameters, attempts, decisions, curve."""
    row = detail.row
    heading = Text.assemble(
        (f"{visible(view.name)} · trial {row.number}", "bold"),
        "  ",
        state_text(row.state),
    )
    parts: list[RenderableType] = [heading, _trial_facts(view, row)]
    parts += [Text(), _attempts(detail.attempts)]
    if detail.decisions:
        parts += [Text(), Text("Decisions", "bold"), _decisions(detail)]
    if curve.points:
        steps = "1 step" if len(curve.points) == 1 else f"{len(curve.points)} steps"
        parts += [Text(), Text(f"Curve, {steps}", "bold"), _curve(view, curve)]
    for attempt in detail.attempts:
        if attempt.message or attempt.traceback:
            parts += _failure(attempt)
    return Group(*parts)


def _trial_facts(view: StudyView, row: TrialRow) -> Table:
    """Format values, parameters, annotations and attributes as two columns."""
    grid = Table.grid(padding=(0, 2))
    for objective, value in zip(view.objectives, row.values or (), strict=False):
        name = Text(visible(objective.name), "bold")
        grid.add_row(name, Text(number(value), STYLES["best"]))
    for metric in _other_metrics(view, [row]):
        grid.add_row(*cells(metric, number(row.metrics[metric])))
    for param, setting in row.params.items():
        grid.add_row(*cells(param, parameter(setting)))
    about_it = {"cost": view.money(row.cost), "tags": ", ".join(row.tags), "note": row.note}
    for about, text in about_it.items():
        if text:
            grid.add_row(Text(about, "dim"), *cells(text))
    for attr, stored in row.attrs.items():
        shown = stored if isinstance(stored, str) else json.dumps(stored)
        grid.add_row(Text(visible(attr), "dim"), *cells(shown[:ATTRIBUTE_CHARS]))
    if not row.feasible:
        broken_by = visible(violations(row.violations)) or "it breaks a constraint"
        grid.add_row(Text("feasible", "dim"), Text(f"no: {broken_by}", "yellow"))
    return grid


def _attempts(rows: Sequence[AttemptRow]) -> Table:
    made = table(
        ">attempt",
        "state",
        ">time",
        "node",
        ">pid",
        "devices",
        "stopped for",
        "failure",
    )
    for row in rows:
        took = None
        if row.started_at and row.ended_at:
            took = (row.ended_at - row.started_at).total_seconds()
        where = (row.node or "–", row.pid or "–", ",".join(row.devices) or "–")
        made.add_row(
            *cells(
                row.number,
                state_text(str(row.state)),
                duration(took),
                *where,
                row.stop_cause or "",
                row.failure or "",
            )
        )
    return made


def _decisions(detail: TrialDetail) -> Table:
    grid = Table.grid(padding=(0, 2))
    for decision in detail.decisions:
        time_of_day = decision.decided_at.astimezone().strftime("%H:%M:%S")
        grid.add_row(
            Text(time_of_day, "dim"),
            Text(decision.kind, STYLES.get(decision.kind, "cyan")),
            *cells(decision.reason),
        )
    return grid


def _curve(view: StudyView, curve: ReportCurve) -> Table:
    points = curve.points
    if len(points) > CURVE_POINTS:
        stride = len(points) / (CURVE_POINTS - 1)
        points = (
            *(points[int(i * stride)] for i in range(CURVE_POINTS - 1)),
            points[-1],
        )
    names = names_in(point.metrics for point in points)
    made = table(
        ">step",
        f">{view.objectives[0].name}",
        *(f">{name}" for name in names),
    )
    for point in points:
        made.add_row(
            *cells(
                point.step,
                number(point.value),
                *(number(point.metrics.get(name)) for name in names),
            )
        )
    return made


def _failure(attempt: AttemptRow) -> list[RenderableType]:
    return [
        traceback(
            f"Attempt {attempt.number} ended with",
            attempt.traceback or attempt.message or "",
        )
    ]


def traceback(title: str, text: str) -> RenderableType:
    """Format a traceback from the worker, under a title."""
    return Group(
        Text(),
        Text(title, "bold"),
        indented(Text(visible(text.rstrip()), "red")),
    )


def explanation(answer: Explanation) -> RenderableType:
    """Format an explanation: sentences under their topics."""
    parts: list[RenderableType] = [Text(visible(answer.title), "bold")]
    for topic, sentences in answer.topics.items():
        parts += [Text(), Text(topic, "dim")]
        parts += [indented(visible(sentence)) for sentence in sentences]
    return Group(*parts)


def confirmation(result: Confirmation) -> RenderableType:
    """Format finalists as a table, the best mean first, and the conclusion."""
    made = table(
        ">trial",
        f">{result.metric}",
        ">mean",
        ">95 % interval",
        ">repeats",
        ">best of all",
    )
    for one in result.finalists:
        between = "–" if one.low is None else f"{number(one.low)} … {number(one.high)}"
        runs = str(len(one.values))
        if one.failed:
            runs += f" + {one.failed} failed"
        chance = "–" if one.chance is None else f"{one.chance:.0%}"
        made.add_row(
            *cells(
                one.number,
                number(one.observed),
                number(one.mean),
                between,
                runs,
                chance,
            )
        )
    return Group(Text(), made, Text(), Text(result.verdict))
