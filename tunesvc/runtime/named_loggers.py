"""The loggers that a spec can name, found by import path: nothing else knows their classes.

Their modules load a tracker's library only when a logger is opened, which happens in a process of
its own (`runtime.logger_process`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesvc.errors import SpecError
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.runtime.imported_classes import load_class
from tunesvc.search.registry.component_options import OptionError, build, choose
from tunesvc.spec.diagnostics import SpecIssue
from tunesvc.spec.entrypoint_file import is_import_path
from tunesvc.spec.sections.components import Logger


@dataclass(frozen=True, slots=True)
class KnownLogger:
    """A logger of ours."""

    import_path: str
    library: str
    """Module that must be installed."""
    extra: str


_HOME = "tunesvc.integrations.loggers"
KNOWN = {
    "mlflow": KnownLogger(f"{_HOME}.mlflow_logger:MlflowLogger", "mlflow", "mlflow"),
    "wandb": KnownLogger(f"{_HOME}.wandb_logger:WandbLogger", "wandb", "wandb"),
    "tensorboard": KnownLogger(
        f"{_HOME}.tensorboard_logger:TensorBoardLogger", "tensorboardX", "tensorboard"
    ),
}


def make_logger(entry: Logger, folder: Path, *, index: int = 0) -> Any:
    """Make the `TrialLogger` that an entry names. It is not open yet.

    Args:
        entry: of the spec.
        folder: of the study, where its own modules are.
        index: place of the entry, for errors.

    Raises:
        OptionError: there is no such logger, its library is not installed, or it refuses options.
    """
    path = ("loggers", index)
    made = build(path, entry.name, _class_of(entry, folder, path), entry.options)
    if not callable(getattr(made, "send", None)):
        text = f"{entry.name!r} makes a {type(made).__name__}, which has no method `send`"
        base = "tunesvc.integrations.loggers.trial_logger:TrialLogger"
        raise OptionError(SpecIssue((*path, "name"), f"{text}: derive it from `{base}`"))
    return made


def logger_issues(loggers: Sequence[Logger], folder: str | Path | None) -> list[SpecIssue]:
    """Return what prevents the loggers of a spec from being made on this machine."""
    issues: list[SpecIssue] = []
    where = Path.cwd() if folder is None else Path(folder).absolute()
    for index, entry in enumerate(loggers):
        if entry.is_imported and not is_import_path(entry.name):
            continue  # the spec's own checks report this
        try:
            make_logger(entry, where, index=index)
        except OptionError as error:
            issues += error.issues
        except SpecError as error:
            issues.append(SpecIssue(("loggers", index), str(error)))
    return issues


def require_loggers(loggers: Sequence[Logger], folder: str | Path | None) -> None:
    """Check loggers before anything starts.

    Raises:
        SpecError: one cannot be made; the text has the reason.
    """
    if issues := logger_issues(loggers, folder):
        raise SpecError("\n".join(map(str, issues)))


def _class_of(entry: Logger, folder: Path, path: tuple[str, int]) -> Callable[..., Any]:
    if entry.is_imported:
        try:
            return load_class(entry.name, folder)
        except EntrypointError as error:
            raise OptionError(SpecIssue((*path, "name"), str(error))) from None
    known = choose(path, entry.name, KNOWN)
    if importlib.util.find_spec(known.library) is None:
        text = f"{entry.name!r} needs {known.library}: pip install 'tunesvc[{known.extra}]'"
        raise OptionError(SpecIssue((*path, "name"), text, at_key=True))
    return load_class(known.import_path, folder)
