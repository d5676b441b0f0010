"""The objective's view of its trial, and its reports.

Imports neither the database, Ray nor Optuna: user code that imports this stays light.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tunesvc.errors import BadReport, Pruned
from tunesvc.util.characters import find_unstorable

if TYPE_CHECKING:
    from tunesvc.data.trial_data import TrialData

MAX_STEP = 2**63 - 1
"""The greatest step that the database can store."""


class Channel(Protocol):
    """Connection from a trial to the process that runs it. No call waits for the coordinator."""

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send a report."""
        ...

    def checkpoint(self, path: Path, step: int | None) -> bool | None:
        """Store a copy of the file or folder at `path` as the trial's state after `step`.

        Returns True if the attempt ends with it.
        """
        ...

    def set_user_attr(self, name: str, value: str) -> None:
        """Send an attribute of the trial, its value as JSON."""
        ...

    @property
    def directory(self) -> Path:
        """The attempt's own scratch folder."""
        ...

    @property
    def stop_requested(self) -> bool:
        """True if the trial has been asked to stop."""
        ...


class DetachedChannel:
    """A channel without receiver, for an objective that is called as a plain function."""

    stop_requested = False

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Forget it."""

    def checkpoint(self, path: Path, step: int | None) -> None:
        """Forget it."""

    def set_user_attr(self, name: str, value: str) -> None:
        """Forget it."""

    @cached_property
    def directory(self) -> Path:
        """A temporary folder that is removed with this channel."""
        folder = Path(tempfile.mkdtemp(prefix="tunesvc-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder


@dataclass(frozen=True, slots=True)
class RestoredState:
    """State that an earlier attempt saved."""

    path: Path
    step: int = -1
    """Step after which it was saved; -1: before the first."""

    def open(self) -> Path:
        """Return the path of the file or folder on this machine."""
        return self.path


def _data_of_program() -> TrialData:
    from tunesvc.data.trial_data import data_of_program  # only where data are read

    return data_of_program()


@dataclass(frozen=True, slots=True)
class AssignedResources:
    """Resources of one worker that a trial may use."""

    devices: tuple[str, ...] = ()
    placement_group: object = None
    fold: int | None = None
    open_data: Callable[[], TrialData] = _data_of_program
    """Opens the study's prepared data in this process."""


class Trial:
    """One trial, from inside the objective."""

    def __init__(
        self,
        channel: Channel | None = None,
        *,
        number: int = 0,
        params: Mapping[str, object] | None = None,
        seed: int = 0,
        attempt: int = 1,
        restored: RestoredState | None = None,
        metrics: tuple[str, ...] = (),
        resources: AssignedResources | None = None,
    ) -> None:
        resources = resources or AssignedResources()
        self._channel = channel or DetachedChannel()
        self._restored = restored
        self._metrics = metrics
        self._last_step = -1 if restored is None else restored.step
        self.number = number
        self.params = dict(params or {})
        self.seed = seed
        """Equal for all attempts of a trial; different for other trials, unless the study's
        `evaluation` makes them share it: then it is that of the fold or repeat."""
        self.attempt = attempt
        """1 for the first execution, 2 after a first retry or resume, ..."""
        self.fold = resources.fold
        """Number of the fold, or repeat, that is evaluated, from 0; None without `evaluation`."""
        self._open_data = resources.open_data
        self.devices = resources.devices
        """The accelerators assigned to this trial."""
        self.placement_group = resources.placement_group
        """Ray's placement group of `workers: N`, this process in the first bundle; None for one
        worker."""

    def report(self, step: int | None = None, value: object = None, /, **metrics: object) -> None:
        """Report metrics after a step: `report(epoch, loss=0.3)` or `report(epoch, 0.3)`.

        Never waits. A step counts epochs, batches or any unit of the pruner's `min` and `max`;
        without one, the reports are numbered. Within an attempt, the first report of a step counts.

        Raises:
            Pruned: the trial has been asked to stop. Do not catch it; clean up with `finally`.
            BadReport: a metric is not a number, or the step is negative or not a whole number.
        """
        step = self._send(step, value, metrics)
        if self._channel.stop_requested:
            raise Pruned(f"trial {self.number} was asked to stop after step {step}")

    def _send(self, step: int | None, value: object, metrics: Mapping[str, object]) -> int:
        """Send a report without checking for a stop; return its step."""
        step = self._last_step + 1 if step is None else as_step(step)
        if value is not None:
            metrics = {**as_metrics(value, self._metrics or (self._first_metric,)), **metrics}
        if not metrics:
            example = f"report({step}, {self._first_metric}=...)"
            raise BadReport(f"report({step}) has no metric: write {example}")
        numbers = {name: as_number(name, entry) for name, entry in metrics.items()}
        self._channel.report(step, numbers)
        self._last_step = step
        return step

    @property
    def should_stop(self) -> bool:
        """True if the trial has been asked to stop, for loops that end by themselves.

        Return nothing then: a returned value counts as the trial's result.
        """
        return self._channel.stop_requested

    def checkpoint(self, path: str | Path, step: int | None = None) -> None:
        """Store a copy of the file or folder at `path`; a later attempt finds it with `restored()`.

        Returns when the copy is complete; if it crashes before that, the earlier one remains.

        Raises:
            Pruned: the trial is a member of a population, and pauses after this step.
        """
        if self._save(path, step):
            raise Pruned(f"trial {self.number} pauses after step {self._last_step}")

    def _save(self, path: str | Path, step: int | None) -> bool | None:
        """Store a checkpoint without ending the trial; return True if it ends with it."""
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"checkpoint {path} does not exist: save the state there first")
        return self._channel.checkpoint(path, self._last_step if step is None else as_step(step))

    def set_user_attr(self, name: str, value: object) -> None:
        """Store text, a number or other JSON on the trial; a later value of a name replaces it.

        Raises:
            BadReport: the name cannot be stored, or the value cannot be written as JSON.
        """
        if not is_name(name):
            raise BadReport(
                f"{name!r} cannot name an attribute: use 1 to 200 characters without NUL",
            )
        self._channel.set_user_attr(name, as_json(name, value))

    @property
    def data(self) -> TrialData:
        """The study's prepared data: `data.train` and `data.validation`, see `Part`.

        Raises:
            DataError: the study has none, or this machine has another version.
        """
        return self._open_data()

    @property
    def directory(self) -> Path:
        """An empty folder for this attempt's scratch files, on the worker's disk.

        It is removed when the attempt ends. Save lasting state with `checkpoint`.
        """
        return self._channel.directory

    def restored(self) -> Path | None:
        """Return the path of an earlier attempt's last checkpoint, a file or folder, or None."""
        return None if self._restored is None else self._restored.open()

    @property
    def _first_metric(self) -> str:
        return self._metrics[0] if self._metrics else "loss"


RUNNING: ContextVar[Trial | None] = ContextVar("trial", default=None)
"""The trial that this thread runs, for `tunesvc.current_trial`."""


def as_step(step: object) -> int:
    """Return a step as a whole number; a float such as 3.0 is accepted.

    Raises:
        BadReport: it is not a whole number that the database can store.
    """
    if isinstance(step, float) and step.is_integer():
        step = int(step)
    if isinstance(step, bool) or not hasattr(step, "__index__"):
        raise BadReport(f"step {step!r} is no whole number")
    number = int(step.__index__())
    if not 0 <= number <= MAX_STEP:
        raise BadReport(f"step {number} is outside 0 ... 2^63-1")
    return number


def is_name(name: object) -> bool:
    """Return True if the database can store the name, of a metric, parameter or attribute."""
    return isinstance(name, str) and 1 <= len(name) <= 200 and find_unstorable(name) is None


def as_number(name: str, value: object) -> float:
    """Return a metric's value as a float.

    Accepts numbers, NumPy scalars, and arrays or tensors of one element.

    Raises:
        BadReport: the value is not a single number, or the name cannot be stored.
    """
    if not is_name(name):
        raise BadReport(
            f"{name!r} is no name for a metric: a text of 1 to 200 characters without NUL",
        )
    kind = type(value).__name__
    if callable(getattr(value, "predict", None)):
        raise BadReport(
            f"metric {name} is a model ({kind}); a number is needed. To have models scored, write "
            "`evaluation: {scoring: [...]}` with scorers of scikit-learn"
        )
    if value is None or isinstance(value, (bool, str, bytes)) or kind in ("bool_", "bool"):
        hint = f"; keep text with trial.set_user_attr({name!r}, ...)"
        if not isinstance(value, str):
            hint = ""
        raise BadReport(f"metric {name} is {value!r} ({kind}); a number is needed{hint}")
    try:
        scalar: Any = value.item() if hasattr(value, "item") else value
        return float(scalar)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        text = f"metric {name} is {value!r} ({kind}), no single number: {error}"
        raise BadReport(text) from None


def as_json(name: str, value: object) -> str:
    """Return an attribute's value as JSON; NumPy's numbers and arrays become numbers and lists.

    Raises:
        BadReport: it cannot be written as JSON.
    """
    try:
        return json.dumps(value, default=_as_plain)
    except (TypeError, ValueError, RecursionError) as error:
        kind = type(value).__name__
        raise BadReport(f"{name} is a {kind}, which cannot be written as JSON: {error}") from None


def _as_plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def flattened(values: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the entries of nested mappings, with paths as names, as in Ray Tune: `eval/loss`."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            for inner, entry in flattened(value):
                yield f"{name}/{inner}", entry
        else:
            yield name, value


def as_result(value: object, names: tuple[str, ...]) -> tuple[dict[str, float], dict[str, object]]:
    """Return the metrics and the attributes of an objective's return value.

    Entries of a mapping that are text, true, false, none or a list become attributes, unless they
    have the name of an objective. All else is as in `as_metrics`.

    Raises:
        BadReport: as `as_metrics`.
    """
    if not isinstance(value, Mapping):
        return as_metrics(value, names), {}
    metrics: dict[str, float] = {}
    attributes: dict[str, object] = {}
    for name, entry in flattened(value):
        if name not in names and is_attribute(entry):
            attributes[name] = entry
        else:
            metrics[name] = as_number(name, entry)
    return metrics, attributes


def is_attribute(value: object) -> bool:
    """Return True for a value that is stored as an attribute: text, true, false, none, a list."""
    is_plain = value is None or isinstance(value, (bool, str, list, tuple))
    return is_plain or type(value).__name__ in ("bool_", "bool")


def as_metrics(value: object, names: tuple[str, ...]) -> dict[str, float]:
    """Return the metrics, by name, that an objective returned or yielded.

    None gives no metric; a mapping is used by name, nested ones as in `flattened`; a sequence is
    matched with `names`; any other value is the first of `names`.

    Raises:
        BadReport: a value is not a number, or a sequence is not as long as `names`.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {name: as_number(name, entry) for name, entry in flattened(value)}
    if isinstance(value, (tuple, list)):
        if len(value) != len(names):
            raise BadReport(f"{len(value)} values for {len(names)} metrics ({', '.join(names)})")
        pairs = zip(names, value, strict=True)
        return {name: as_number(name, entry) for name, entry in pairs}
    return {names[0]: as_number(names[0], value)}


def is_better(value: float, than: float, goal: str) -> bool:
    """Return True if a value beats another. NaN beats nothing, and every number beats NaN."""
    if math.isnan(value) or math.isnan(than):
        return math.isnan(than) and not math.isnan(value)
    return value < than if goal == "minimize" else value > than
