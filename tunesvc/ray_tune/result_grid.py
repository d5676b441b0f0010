"""Results of a study in the form of Ray Tune's `ResultGrid`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tunesvc.errors import TuneError
from tunesvc.execution.objectives.ray_tune_space import nested

if TYPE_CHECKING:
    import pandas as pd
    from ray.tune import Result

    from tunesvc.queries.rows import TrialRow
    from tunesvc.study import Study

_BEST = {"min": min, "max": max}
_MODES = {"minimize": "min", "maximize": "max"}
_SCOPES = {"last": 1, "all": None, "avg": None, "last-5-avg": 5, "last-10-avg": 10}
"""Number of a trial's last reports that count, by scope; None for all."""
_STEP = "training_iteration"


class ResultGrid:
    """Results of all trials that have begun, in their order; `study` has everything else."""

    def __init__(self, study: Study) -> None:
        self.study = study
        """The study itself: `results.study.best_params`, `.plots`, `.report("page.html")`."""
        view = study.view
        self._goals = {goal.name: _MODES[goal.goal] for goal in view.objectives}
        self._constants = dict(view.spec.constants) if view.spec is not None else {}
        self._constants.pop("stop", None)
        self._rows = [row for row in study.trials if row.started_at is not None]
        self._frames = self._read_curves()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Result:
        return self._result(self._rows[place])

    def __iter__(self) -> Iterator[Result]:
        return (self._result(row) for row in self._rows)

    def __repr__(self) -> str:
        return f"<ResultGrid of study {self.study.name!r}, {len(self)} trials>"

    @property
    def errors(self) -> list[Exception]:
        """The errors of failed trials."""
        return [error for row in self._rows if (error := self._error(row)) is not None]

    @property
    def num_errors(self) -> int:
        """Number of failed trials."""
        return len(self.errors)

    @property
    def num_terminated(self) -> int:
        """Number of trials that ended without an error."""
        return len(self) - self.num_errors

    @property
    def experiment_path(self) -> str:
        """The study's name: `Tuner.restore` and `Tuner.can_restore` take it."""
        return self.study.name

    def get_best_result(
        self,
        metric: str | None = None,
        mode: str | None = None,
        scope: str = "last",
        filter_nan_and_inf: bool = True,
    ) -> Result:
        """Return the result with the best observed value.

        Failed trials are left out. In noise the best observed value is partly luck:
        `results.study.recommendation` weighs it.

        Args:
            metric: the study's first metric by default.
            mode: `min` or `max`; by default as the study searched.
            scope: `last` or `all` of a trial's reports, their average, `avg`, or that of the last
                ones, `last-5-avg` or `last-10-avg`.
            filter_nan_and_inf: leave out values that are not finite.

        Raises:
            TuneError: no trial has the metric.
            ValueError: a mode or scope is unknown.
        """
        metric = metric or next(iter(self._goals))
        mode = mode or self._goals.get(metric)
        if mode not in _BEST:
            raise ValueError(f'metric {metric!r}: say mode="min" or mode="max"')
        rows = [row for row in self._rows if row.state != "failed"]
        found = {row.number: self._score(row, metric, mode, scope) for row in rows}
        known = {
            number: value
            for number, value in found.items()
            if value is not None and (math.isfinite(value) or not filter_nan_and_inf)
        }
        if not known:
            raise TuneError(f"no trial of study {self.study.name!r} has a value of {metric!r}")
        best = _BEST[mode](known, key=lambda number: known[number])
        return self._result(next(row for row in rows if row.number == best))

    def get_dataframe(
        self,
        filter_metric: str | None = None,
        filter_mode: str | None = None,
    ) -> pd.DataFrame:
        """Return one row per trial: its last report, or with a metric and mode its best one."""
        import pandas as pd

        if (filter_metric is None) != (filter_mode is None):
            raise ValueError("give both, filter_metric and filter_mode, or none")
        rows = []
        for row in self._rows:
            frame = self._frames.get(row.number)
            chosen = self._last(row)
            if filter_metric is not None and frame is not None and filter_metric in frame:
                values = frame[filter_metric]
                place = int(values.argmin() if filter_mode == "min" else values.argmax())
                chosen |= _report(frame, place)
            config = {f"config/{name}": value for name, value in self._params(row).items()}
            rows.append({"trial_id": self._id(row), **chosen, **config})
        return pd.DataFrame(rows)

    # --- one trial ---

    def _result(self, row: TrialRow) -> Result:
        from ray.tune import Result

        metrics = {**self._last(row), "config": nested(self._params(row))}
        checkpoint = self._checkpoint(row)
        return Result(
            metrics={"trial_id": self._id(row), **metrics},
            checkpoint=checkpoint,
            error=self._error(row),
            path="" if checkpoint is None else str(checkpoint.path),
            metrics_dataframe=self._frames.get(row.number),
        )

    def _params(self, row: TrialRow) -> dict[str, Any]:
        return {**self._constants, **row.params}

    def _id(self, row: TrialRow) -> str:
        return f"{self.study.name}-{row.number}"

    def _last(self, row: TrialRow) -> dict[str, Any]:
        last: dict[str, Any] = {}
        if (frame := self._frames.get(row.number)) is not None:
            last = _report(frame, -1)
        last.update(row.metrics)
        if row.values is not None:
            last.update(zip(self._goals, row.values, strict=True))
        return last

    def _score(self, row: TrialRow, metric: str, mode: str, scope: str) -> float | None:
        if scope not in _SCOPES:
            raise ValueError(f"scope {scope!r}: use {', '.join(f'`{one}`' for one in _SCOPES)}")
        frame = self._frames.get(row.number)
        if scope == "last" or frame is None or metric not in frame:
            return self._last(row).get(metric)
        values = frame[metric].dropna().tail(_SCOPES[scope] or len(frame))
        if values.empty:
            return None
        return float(_BEST[mode](values) if scope == "all" else values.mean())

    def _error(self, row: TrialRow) -> Exception | None:
        if row.state != "failed":
            return None
        attempts = self.study.trial(row.number).attempts
        text = (attempts[-1].traceback or attempts[-1].message) if attempts else ""
        return TuneError(f"trial {row.number} failed ({row.failure}): {text}")

    def _checkpoint(self, row: TrialRow) -> Any:
        from ray.tune import Checkpoint

        try:
            path = self.study.best_checkpoint(row.number)
        except TuneError:  # it saved none, or its files are on another machine
            return None
        return Checkpoint.from_directory(str(path if path.is_dir() else path.parent))

    def _read_curves(self) -> dict[int, pd.DataFrame]:
        """Return each trial's reports: rows are steps, columns metrics."""
        import pandas as pd

        others = {name for row in self._rows for name in row.metrics}
        found = {}
        for name in [*self._goals, *sorted(others)]:
            try:
                found[name] = self.study.curves(name)
            except ValueError:  # returned, never reported
                continue
        frames = {}
        for row in self._rows:
            columns = {
                name: curves[row.number] for name, curves in found.items() if row.number in curves
            }
            frame = pd.DataFrame(columns).dropna(how="all").rename_axis(index=_STEP)
            if not frame.empty:
                frames[row.number] = frame
        return frames


def _report(frame: pd.DataFrame, place: int) -> dict[str, Any]:
    """Return one report of a trial with its iteration."""
    values = {str(name): value for name, value in frame.iloc[place].items()}
    return {**values, _STEP: int(frame.index.to_numpy()[place])}
