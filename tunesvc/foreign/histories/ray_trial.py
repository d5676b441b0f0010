"""One trial's folder of Ray Tune: `params.json`, `result.json` or `progress.csv`, `error.txt`.

Reports are read line by line, so a folder may be of any size. Nothing is unpickled.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tunesvc.trial import MAX_STEP

ITERATION = "training_iteration"
POINTS_MAX = 4_096
"""Most points of a curve; of a longer one every 2nd, 4th, 8th ... report is kept."""
_ERROR_CHARS = 500
_OF_RAY = frozenset(
    {
        "checkpoint_dir_name",
        "config",
        "date",
        "done",
        "episodes_total",
        "experiment_id",
        "experiment_tag",
        "hostname",
        "iterations_since_restore",
        "node_ip",
        "pid",
        "should_checkpoint",
        "time_since_restore",
        "time_this_iter_s",
        "time_total_s",
        "timestamp",
        "timesteps_since_restore",
        "timesteps_this_iter",
        "timesteps_total",
        "training_iteration",
        "trial_id",
        "warmup_time",
    }
)
"""Entries that Ray adds to each report."""
Report = Mapping[str, Any]


@dataclass(slots=True)
class RayTrial:
    """A trial as Ray recorded it."""

    key: str
    """Ray's id or the folder's name."""
    config: Mapping[str, Any]
    """Flat: `model/lr`."""
    folder: Path | None = None
    """Its own; None if it is gone, or was never made."""
    known: Report = field(default_factory=dict)
    """Its last report in the state of the experiment; used without a folder."""
    status: str = ""
    """Ray's; empty if the state of the experiment does not list the trial."""
    stop: Mapping[str, Any] = field(default_factory=dict)
    """Values at which Ray was to end it."""
    error: str = ""
    curve: dict[int, float] = field(default_factory=dict)
    """The first objective by step."""
    last: Report = field(default_factory=dict)
    """The last report; empty without one."""
    step: int = 0
    """Step of the last report."""
    began_s: float | None = None
    unreadable: int = 0
    """Number of lines that are cut off or damaged."""

    @property
    def was_stopped(self) -> bool:
        """True if a scheduler or a criterion ended it; one that ends by itself reports no more."""
        return self.last.get("done") in (True, "True")

    @property
    def has_met_its_stop(self) -> bool:
        """True if the last report reaches one of the values at which Ray was to end it."""
        found = ((number(value_at(self.last, name)), end) for name, end in self.stop.items())
        return any(value is not None and value >= end for value, end in found)

    @property
    def times(self) -> tuple[datetime, datetime]:
        """Begin and end, in Optuna's form; a moment without a duration if Ray wrote none."""
        ended = number(self.last.get("timestamp")) or self.began_s or 0.0
        began = ended - (number(self.last.get("time_total_s")) or 0.0)
        return datetime.fromtimestamp(min(began, ended)), datetime.fromtimestamp(ended)

    def read(self, metric: str, step: str = ITERATION) -> None:
        """Read the reports and the error of its folder.

        Args:
            metric: name of the curve.
            step: what counts its steps.
        """
        self.error = "" if self.folder is None else _error_of(self.folder)
        stride = 1
        for position, report in enumerate(self.reports(), start=1):
            if report is None:
                self.unreadable += 1
                continue
            self.last = report
            counted = number(value_at(report, step))
            self.step = int(counted) if counted is not None and counted <= MAX_STEP else position
            value = number(value_at(report, metric))
            if value is None or self.step < 0 or position % stride:
                continue
            self.curve[self.step] = value
            if len(self.curve) > POINTS_MAX:
                self.curve = dict(list(self.curve.items())[1::2])
                stride *= 2

    def reports(self) -> Iterator[Report | None]:
        """Yield its reports; None for a line that cannot be read."""
        if self.folder is not None:
            yield from _reports_of(self.folder)
        elif self.known:
            yield self.known


def _reports_of(folder: Path) -> Iterator[Report | None]:
    """Yield the reports of a trial's folder; None for a line that cannot be read."""
    lines, table = folder / "result.json", folder / "progress.csv"
    if _has_content(lines):
        with lines.open(encoding="utf-8", errors="replace") as file:
            yield from (_parsed(line) for line in file if line.strip())
    elif _has_content(table):
        with table.open(encoding="utf-8", errors="replace", newline="") as file:
            yield from _rows(file)


def metrics_of(report: Report) -> dict[str, float]:
    """Return the numbers of a report, without those that Ray adds."""
    found = {name: number(value) for name, value in flattened(report).items()}
    return {
        name: value
        for name, value in found.items()
        if value is not None and name.partition("/")[0] not in _OF_RAY
    }


def flattened(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with names like `model/lr`."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and "_type" not in value:  # a pickled object is a value
            flat |= flattened(value, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def value_at(report: Report, name: str) -> Any:
    """Return an entry of a report, `a/b` from within `a`; None without it."""
    if name in report:
        return report[name]
    inner: Any = report
    for key in name.split("/"):
        inner = inner.get(key) if isinstance(inner, Mapping) else None
    return inner


def number(value: object) -> float | None:
    """Return a number, also from a table's text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def read_params(folder: Path) -> Mapping[str, Any] | None:
    """Return a trial's `params.json`; None without one that can be read."""
    path = folder / "params.json"
    return _parsed(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None


def _parsed(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _rows(file: Any) -> Iterator[Report | None]:
    """Yield the rows of a table. A last one without an end of line is cut off in a value."""
    cut = [False]

    def whole(lines: Iterator[str]) -> Iterator[str]:
        for line in lines:
            if line.endswith("\n"):
                yield line
            else:
                cut[0] = True

    for row in csv.DictReader(whole(iter(file))):
        yield {name: value for name, value in row.items() if name and value not in (None, "")}
    if cut[0]:
        yield None


def _error_of(folder: Path) -> str:
    """Return the end of the error that Ray wrote; empty without one."""
    path = folder / "error.txt"
    if not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    return text.splitlines()[-1].strip()[:_ERROR_CHARS] if text else "an error without a text"


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
