"""Handler of attempts' events: updates live attempts, the optimizer, and the step's changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tunesvc.coordinator.attempt_state.live_attempts import Ending, LiveAttempt, OpenTrials
from tunesvc.coordinator.post_commit_actions import PostCommitActions
from tunesvc.coordinator.study_context import StudyContext
from tunesvc.db.study_changes import Checkpoint, LogCut, LogLine, Report, StartRecord, StudyChanges
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
from tunesvc.util.suggestions import suggest

_CODE_CHANGED = "the objective's source code has changed: attempts from now on run the new code"


class EventHandler:
    """Handles events. Repeated events, and those of attempts that have ended, change nothing."""

    def __init__(
        self,
        context: StudyContext,
        live_attempts: OpenTrials,
        optimizer: Optimizer,
        *,
        code: str | None = None,
    ) -> None:
        """`code`: digest of the objective's source that the study ran last."""
        spec = context.spec
        self._notify = context.notify
        self._now = context.clock.now
        self._code = code
        self._objective, *self._other_objectives = (metric.name for metric in spec.metrics)
        self._metric_names = spec.metric_names
        self._has_report = False
        self._has_pruner = spec.pruner.name != "none"
        self._live_attempts = live_attempts
        self._optimizer = optimizer

    def handle(
        self,
        events: Sequence[Event],
        changes: StudyChanges,
        actions: PostCommitActions,
    ) -> list[Ending]:
        """Handle a step's events; return the attempts that ended."""
        ended: list[Ending] = []
        for event in events:
            live = self._live_attempts.get(event.attempt)
            if live is None or live.finished or event.seq <= live.cursor:
                acknowledged = actions.acknowledged.get(event.attempt, 0)
                actions.acknowledged[event.attempt] = max(event.seq, acknowledged)
                continue
            live.cursor = event.seq
            actions.acknowledged[event.attempt] = event.seq
            changes.cursors[live.key()] = event.seq
            if not isinstance(event.payload, Lost):
                self._live_attempts.record_heartbeat(live)
            if isinstance(event.payload, Outcome):
                live.finished = True
                ended.append(Ending(live, event.payload))
            else:
                self._handle_payload(live, event.seq, event.payload, changes, actions)
        return ended

    def _handle_payload(
        self,
        live: LiveAttempt,
        seq: int,
        payload: Payload,
        changes: StudyChanges,
        actions: PostCommitActions,
    ) -> None:
        match payload:
            case Started():
                self._on_start(live, payload, changes)
            case Reported():
                self._on_report(live, payload, changes)
            case Checkpointed():
                self._on_checkpoint(live, payload, changes)
            case OutputLogged():
                self._on_output(live, seq, payload, changes)
            case AttrSet():
                self._optimizer.set_user_attr(
                    live.number,
                    payload.name,
                    payload.value,
                    payload.kind,
                )
            case SuggestRequested():
                self._on_suggest(live, payload, actions)
            case StudyRequested():
                actions.answers.append((live.id, STUDY, self._optimizer.packed_study()))

    def _on_start(
        self,
        live: LiveAttempt,
        started: Started,
        changes: StudyChanges,
    ) -> None:
        self._live_attempts.start(live, self._now())
        live.devices = started.devices
        row = StartRecord(
            *live.key(),
            started.node,
            started.pid,
            started.devices,
            started.code,
            started.bundle_nodes,
        )
        changes.started.append(row)
        self._check_code(live, started.code, changes)

    def _on_checkpoint(
        self,
        live: LiveAttempt,
        checkpoint: Checkpointed,
        changes: StudyChanges,
    ) -> None:
        record = self._live_attempts.record_of(live.number)
        record.checkpoint, record.checkpoint_step = checkpoint.path, checkpoint.step
        record.curve = live.curve.copy()
        changes.checkpoints.append(
            Checkpoint(
                *live.key(),
                checkpoint.path,
                checkpoint.step,
            )
        )

    def _on_suggest(
        self,
        live: LiveAttempt,
        request: SuggestRequested,
        actions: PostCommitActions,
    ) -> None:
        try:
            value = self._optimizer.suggest(
                live.number,
                request.name,
                request.distribution,
            )
        except BadReport as error:
            live.forced_outcome = Failed("error", str(error))
            actions.kills.append(live.id)
            return
        live.params = {**live.params, request.name: value}
        actions.answers.append((live.id, request.name, value))

    def _check_code(self, live: LiveAttempt, code: str, changes: StudyChanges) -> None:
        """Record and report a change of the objective's source."""
        if code and self._code and code != self._code:
            reason = _CODE_CHANGED
            details = {"before": self._code, "now": code}
            changes.decisions.append(Decision(live.number, "code", reason, details))
            self._notify("warning", reason, live.number)
        self._code = code or self._code

    def _check_names(self, live: LiveAttempt, names: Iterable[str]) -> None:
        """Warn if the run's first report has no metric of the study: its curve stays empty."""
        if self._has_report:
            return
        self._has_report = True
        others = [name for name in names if name not in self._metric_names]
        if not others or others != list(names):
            return
        hints = (suggest(name, self._metric_names) for name in others)
        hint = next(filter(None, hints), ".")
        text = f"the first report is of {', '.join(others)}, not of {self._objective}{hint}"
        reason = f"{text} Curves and pruning look at {self._objective}"
        self._notify("warning", reason, live.number)

    def _on_report(
        self,
        live: LiveAttempt,
        report: Reported,
        changes: StudyChanges,
    ) -> None:
        self._check_names(live, report.metrics)
        live.last_report_s = self._now()
        live.curve.add(report.step, report.metrics)
        if self._live_attempts.is_stepwise and self._live_attempts.is_evaluated(report.metrics):
            record = self._live_attempts.record_of(live.number)
            record.checkpoint_step, record.curve = report.step, live.curve.copy()
        others = dict(report.metrics)
        value = others.pop(self._objective, None)
        changes.reports.append(Report(*live.key(), report.step, value, others))
        if value is None:
            return
        other_values = [others.get(name) for name in self._other_objectives]
        self._optimizer.report(live.number, report.step, value, *other_values)
        if self._has_pruner and None not in other_values:
            self._live_attempts.add_report(live, report.step)

    def _on_output(
        self,
        live: LiveAttempt,
        seq: int,
        line: OutputLogged,
        changes: StudyChanges,
    ) -> None:
        changes.logs.append(LogLine(*live.key(), seq, line.stream, line.text))
        if gap := live.log.add(seq, line):
            mark = OutputLogged.gap(gap.chars)
            cut = LogCut(*live.key(), gap.first, gap.last, mark.stream, mark.text)
            changes.log_cuts[live.key()] = cut
