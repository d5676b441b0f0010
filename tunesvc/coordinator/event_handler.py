"""What running attempts say, taken into the study: the roster, the search, the changes, and the effects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tunesvc.coordinator.live_attempts import LiveAttempt, LiveAttempts
from tunesvc.coordinator.post_commit_actions import PostCommitActions
from tunesvc.coordinator.progress_events import Observer, ProgressEvent
from tunesvc.db.study_changes import Checkpoint, LogCut, LogLine, Report, StartedAttempt, StudyChanges
from tunesvc.db.trial_changes import Decision
from tunesvc.errors import BadReport
from tunesvc.execution.executor import (
    STUDY,
    AttrSet,
    Checkpointed,
    Event,
    Failed,
    Lost,
    Outcome,
    OutputLogged,
    Payload,
    Reported,
    Started,
    StudyRequested,
    SuggestRequested,
)
from tunesvc.search.optimizer import Optimizer
from tunesvc.spec import StudySpec
from tunesvc.spec.diagnostics import suggest


@dataclass(frozen=True, slots=True)
class EndedAttempt:
    """An attempt that said its last word in this step."""

    live: LiveAttempt
    outcome: Outcome


class EventHandler:
    """Takes events in. Events that were taken in before, or of attempts that are over, change nothing."""

    def __init__(
        self,
        spec: StudySpec,
        roster: LiveAttempts,
        optimizer: Optimizer,
        now: Callable[[], float],
        observer: Observer,
        *,
        code: str | None = None,
    ) -> None:
        """`code`: digest of the objective's source that the study ran last."""
        self._observer = observer
        self._code = code
        self._objective, *self._other_objectives = (metric.name for metric in spec.metrics)
        self._metric_names = spec.metric_names
        self._has_report = False
        self._judged = spec.pruner.name != "none"
        self._roster = roster
        self._optimizer = optimizer
        self._now = now

    def take(self, events: Sequence[Event], batch: StudyChanges, effects: PostCommitActions) -> list[EndedAttempt]:
        """Take a step's events in; returns the attempts that ended."""
        ended: list[EndedAttempt] = []
        for event in events:
            live = self._roster.get(event.attempt)
            if live is None or live.over or event.seq <= live.cursor:
                effects.heard[event.attempt] = max(event.seq, effects.heard.get(event.attempt, 0))
                continue
            live.cursor = event.seq
            effects.heard[event.attempt] = event.seq
            batch.cursors[live.key()] = event.seq
            if not isinstance(event.payload, Lost):
                self._roster.speak(live)
            if isinstance(event.payload, Outcome):
                live.over = True
                ended.append(EndedAttempt(live, event.payload))
            else:
                self._take_one(live, event.seq, event.payload, batch, effects)
        return ended

    def _take_one(
        self, live: LiveAttempt, seq: int, payload: Payload, batch: StudyChanges, effects: PostCommitActions
    ) -> None:
        match payload:
            case Started():
                self._roster.start(live, self._now())
                live.devices = payload.devices
                batch.started.append(
                    StartedAttempt(*live.key(), payload.node, payload.pid, payload.devices, payload.code)
                )
                self._notice_code(live, payload.code, batch)
            case Reported():
                self._take_report(live, payload, batch)
            case Checkpointed():
                history = self._roster.history(live.number)
                history.checkpoint, history.checkpoint_step = payload.path, payload.step
                history.curve = live.curve.copy()
                batch.checkpoints.append(Checkpoint(*live.key(), payload.path, payload.step))
            case OutputLogged():
                self._take_log(live, seq, payload, batch)
            case AttrSet():
                self._optimizer.set_user_attr(live.number, payload.name, payload.value, payload.kind)
            case SuggestRequested():
                self._answer(live, payload, effects)
            case StudyRequested():
                effects.answers.append((live.id, STUDY, self._optimizer.packed_study()))

    def _answer(self, live: LiveAttempt, asked: SuggestRequested, effects: PostCommitActions) -> None:
        try:
            value = self._optimizer.suggest(live.number, asked.name, asked.distribution)
        except BadReport as error:
            live.doom = Failed("error", str(error))
            effects.kills.append(live.id)
            return
        live.params = {**live.params, asked.name: value}
        effects.answers.append((live.id, asked.name, value))

    def _notice_code(self, live: LiveAttempt, code: str, batch: StudyChanges) -> None:
        if code and self._code and code != self._code:
            reason = "the objective's source code has changed: attempts from now on run the new code"
            batch.decisions.append(Decision(live.number, "code", reason, {"before": self._code, "now": code}))
            self._observer.on_event(ProgressEvent("warning", reason, live.number))
        self._code = code or self._code

    def _notice_names(self, live: LiveAttempt, names: Iterable[str]) -> None:
        """Warn when the first report of the run has no metric of the study: it is no part of the curve."""
        if self._has_report:
            return
        self._has_report = True
        others = [name for name in names if name not in self._metric_names]
        if others and others == list(names):
            hint = next(filter(None, (suggest(name, self._metric_names) for name in others)), "")
            text = f"the first report is of {', '.join(others)}, not of {self._objective}{hint or '.'}"
            reason = f"{text} Curves and pruning look at {self._objective}"
            self._observer.on_event(ProgressEvent("warning", reason, live.number))

    def _take_report(self, live: LiveAttempt, report: Reported, batch: StudyChanges) -> None:
        self._notice_names(live, report.metrics)
        live.heard_s = self._now()
        live.curve.add(report.step, report.metrics)
        others = {name: value for name, value in report.metrics.items() if name != self._objective}
        value = report.metrics.get(self._objective)
        batch.reports.append(Report(*live.key(), report.step, value, others))
        if value is not None:
            beside = [others.get(name) for name in self._other_objectives]
            self._optimizer.report(live.number, report.step, value, *beside)
            if self._judged and None not in beside:
                self._roster.report(live, report.step)

    def _take_log(self, live: LiveAttempt, seq: int, line: OutputLogged, batch: StudyChanges) -> None:
        batch.logs.append(LogLine(*live.key(), seq, line.stream, line.text))
        if gap := live.log.add(seq, line):
            note = OutputLogged.gap(gap.chars)
            batch.log_cuts[live.key()] = LogCut(*live.key(), gap.first, gap.last, note.stream, note.text)
