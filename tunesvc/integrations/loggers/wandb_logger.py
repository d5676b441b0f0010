"""Weights & Biases: a run per trial, offline unless asked otherwise.

Its library acknowledges nothing before a run's end, so a trial is sent when it has finished.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from tunesvc.errors import SpecError
from tunesvc.integrations.loggers.trial_logger import (
    LoggedPoint,
    LoggedStudy,
    LoggedTrial,
    TrialLogger,
)

_FAILED = ("failed", "stopped")


class WandbLogger(TrialLogger):
    """Logs to a folder that `wandb sync` sends, or at once.

    Args:
        project: name of the project; the study's by default.
        entity: user or team; the default of the account without it.
        dir: folder of `wandb`'s files; the study's by default.
        mode: `offline`, or `online`, which takes `WANDB_API_KEY` or a stored `wandb login`.
    """

    live: ClassVar[bool] = False

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        dir: str = ".",
        mode: Literal["offline", "online"] = "offline",
    ) -> None:
        if mode not in ("offline", "online"):
            raise SpecError(f"`mode` is `offline` or `online`, not {mode!r}")
        self._project = project
        self._entity = entity
        self._dir = Path(dir).absolute()
        self._mode = mode
        self._wandb: Any = None

    def open(self, study: LoggedStudy) -> str:
        """Load the library and make the folder."""
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self._wandb = wandb
        self._project = self._project or study.name
        self._dir.mkdir(parents=True, exist_ok=True)
        if self._mode == "offline":
            return f"{self._dir / 'wandb'}, project {self._project}"
        return f"{self._entity or 'the default entity'}, project {self._project}"

    def recover(self, trial: LoggedTrial, run: str | None) -> tuple[str | None, Collection[int]]:
        """Delete what an interrupted call has written: the trial is sent again as a whole.

        A server keeps the steps that it has.
        """
        for folder in self._dir.glob(f"wandb/offline-run-*-{_id(trial)}"):
            shutil.rmtree(folder)
        return None, ()

    def send(self, run: str | None, trial: LoggedTrial, points: Sequence[LoggedPoint]) -> str:
        """Write the whole run."""
        settings = self._wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True
        )
        opened = self._wandb.init(
            id=_id(trial),
            name=f"{trial.study.name}-{trial.number}",
            group=trial.study.name,
            project=self._project,
            entity=self._entity,
            dir=str(self._dir),
            mode=self._mode,
            resume="allow",
            reinit="create_new",
            tags=[tag[:64] for tag in trial.tags],
            notes=trial.labels.get("tunesvc.reason"),
            config={**trial.params, **trial.labels},
            settings=settings,
        )
        for point in points:
            opened.log({**point.metrics, "_timestamp": point.at.timestamp()}, step=point.step)
        opened.summary.update({**trial.attrs, **trial.results, "state": trial.state})
        opened.finish(exit_code=int(trial.state in _FAILED))
        return _id(trial)


def _id(trial: LoggedTrial) -> str:
    """Return an id that is the same in every process."""
    return f"{trial.study.key.replace('-', '')}-{trial.number}"
