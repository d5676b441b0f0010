"""MLflow: an experiment per study, a run per trial."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any

from tunesvc.integrations.loggers.trial_logger import (
    LoggedPoint,
    LoggedStudy,
    LoggedTrial,
    TrialLogger,
)
from tunesvc.util.redaction import redacted

_KEY, _NUMBER = "tunesvc.key", "tunesvc.trial"
_STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_METRICS, _PARAMS, _TAGS = 800, 100, 100
"""Most of each in a request, which MLflow limits to 1,000 in all."""
_PARAM_MAX, _TAG_MAX = 6_000, 8_000
"""Most characters of a value."""
_BRIEF = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""MLflow's own patience would take minutes to notice that a server is away."""


class MlflowLogger(TrialLogger):
    """Logs to a tracking server or a local store of MLflow.

    Args:
        tracking_uri: as MLflow takes it; `MLFLOW_TRACKING_URI`, or MLflow's default, without it.
        experiment: name of the experiment; the study's by default.
    """

    def __init__(self, tracking_uri: str | None = None, experiment: str | None = None) -> None:
        self._uri = tracking_uri
        self._experiment = experiment
        self._experiment_id: str | None = None
        self._client: Any = None
        self._with_params: set[str] = set()
        """Runs that have their parameters, which never change, and have not ended."""

    def open(self, study: LoggedStudy) -> str:
        """Load MLflow. The server is asked with the first trial only."""
        for name, value in _BRIEF.items():
            os.environ.setdefault(name, value)
        import mlflow

        uri = self._uri or mlflow.get_tracking_uri()
        self._experiment = self._experiment or study.name
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        return f"{redacted(uri)}, experiment {self._experiment}"

    def recover(self, trial: LoggedTrial, run: str | None) -> tuple[str | None, Collection[int]]:
        """Find the run by its tags, and the steps of its metrics."""
        if run is None:
            is_it = f"tags.`{_KEY}` = '{trial.study.key}' and tags.`{_NUMBER}` = '{trial.number}'"
            found = self._client.search_runs([self._in_experiment()], is_it, max_results=1)
            if not found:
                return None, ()
            run = str(found[0].info.run_id)
        names = self._client.get_run(run).data.metrics.keys() - set(map(_name, trial.results))
        history = [self._client.get_metric_history(run, name) for name in names]
        return run, {metric.step for metrics in history for metric in metrics}

    def send(self, run: str | None, trial: LoggedTrial, points: Sequence[LoggedPoint]) -> str:
        """Log in batches; the status comes last, so that a run that has ended is whole."""
        if run is None:
            run = self._create(trial)
        metrics = list(_batches(points))
        ended = trial.ended_at or trial.started_at
        if trial.is_finished:
            metrics += _split(_metrics(trial.results, ended, trial.last_step), _METRICS)
        new = [] if run in self._with_params else _params(trial)
        params, tags = _split(new, _PARAMS), _split(_tags(trial), _TAGS)
        for batch in zip_longest(metrics, params, tags, fillvalue=()):
            self._client.log_batch(run, *batch)
        if trial.is_finished:
            self._client.set_terminated(run, _STATUS[trial.state], _ms(ended))
            self._with_params.discard(run)
        elif new:
            self._with_params.add(run)
        return run

    def _create(self, trial: LoggedTrial) -> str:
        tags = {_KEY: trial.study.key, _NUMBER: str(trial.number)}
        run = self._client.create_run(
            self._in_experiment(), _ms(trial.started_at), tags, f"{trial.study.name}-{trial.number}"
        )
        return str(run.info.run_id)

    def _in_experiment(self) -> str:
        """Return the experiment's id; create it if there is none."""
        if self._experiment_id is None:
            found = self._client.get_experiment_by_name(self._experiment)
            if found is None:
                self._experiment_id = str(self._client.create_experiment(self._experiment))
            else:
                self._experiment_id = str(found.experiment_id)
        return self._experiment_id


def _params(trial: LoggedTrial) -> list[Any]:
    from mlflow.entities import Param

    return [Param(_name(name), str(value)[:_PARAM_MAX]) for name, value in trial.params.items()]


def _tags(trial: LoggedTrial) -> list[Any]:
    from mlflow.entities import RunTag

    texts = {name: json.dumps(value, default=str) for name, value in trial.attrs.items()}
    texts |= {name: value for name, value in trial.attrs.items() if isinstance(value, str)}
    texts |= dict.fromkeys(trial.tags, "true") | dict(trial.labels)
    return [RunTag(_name(name), text[:_TAG_MAX]) for name, text in texts.items()]


def _batches(points: Sequence[LoggedPoint]) -> Iterator[list[Any]]:
    """Yield metrics in batches that part no step: a step that the tracker has is whole."""
    batch: list[Any] = []
    for point in points:
        metrics = _metrics(point.metrics, point.at, point.step)
        if batch and len(batch) + len(metrics) > _METRICS:
            yield batch
            batch = []
        batch += metrics
    if batch:
        yield batch


def _metrics(values: Mapping[str, float], at: datetime, step: int) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(_name(name), value, _ms(at), step) for name, value in values.items()]


def _split(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _name(name: str) -> str:
    """Return a name that MLflow takes: it refuses some characters, and paths."""
    return re.sub(r"[^\w\-. /]", "_", name).replace("..", "__").strip("/")[:250]


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
