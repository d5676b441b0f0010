"""Ray Tune's callbacks: which can be called, and what they see of a trial.

A trial has the attributes of Ray's `Trial` that callbacks use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesvc.errors import SpecError
from tunesvc.execution.objectives.ray_tune_space import nested

STATUS = {"waiting": "PENDING", "queued": "PENDING", "running": "RUNNING", "paused": "PAUSED"}
"""Ray's words for states of trials that have not finished."""

_OURS = {"WandbLoggerCallback": "wandb"}
"""Callbacks that start actors on a Ray of the script's own, and our loggers in their place."""


class CallbackTrial:
    """A trial in Ray's form; the same object for all calls about it."""

    def __init__(
        self,
        number: int,
        experiment: str,
        trainable: str,
        params: Mapping[str, Any],
        constants: Mapping[str, Any],
        folder: Path,
    ) -> None:
        """Make a trial that has not begun.

        Args:
            number: the trial's.
            experiment: name of the study.
            trainable: name of the function.
            params: its parameters, flat.
            constants: the values that all trials have, flat.
            folder: of all trials' files.
        """
        self.trial_id = f"{experiment}-{number}"
        self.experiment_dir_name = experiment
        self.trainable_name = trainable
        self.evaluated_params = dict(params)
        self.config = nested({**constants, **params})
        self.status = "PENDING"
        self.last_result: dict[str, Any] = {}
        self.checkpoint = None
        self.local_path = str(folder / self.trial_id)
        self.path = self.local_path
        tag = ",".join(f"{name.rpartition('/')[2]}={value}" for name, value in params.items())
        self.experiment_tag = f"{number}_{tag}" if tag else str(number)
        self._name: str | None = None

    def __str__(self) -> str:
        return self._name or f"{self.trainable_name}_{self.trial_id}"

    __repr__ = __str__

    def name_by(self, creator: Callable[[Any], str] | None) -> None:
        """Name it by `TuneConfig(trial_name_creator=...)`."""
        self._name = None if creator is None else creator(self)

    @property
    def is_finished(self) -> bool:
        """True once it is not continued, as in Ray."""
        return self.status in ("TERMINATED", "ERROR")

    def init_local_path(self) -> None:
        """Make its folder, which loggers write to."""
        Path(self.local_path).mkdir(parents=True, exist_ok=True)


def results_folder(storage_path: Any) -> Path:
    """Return where loggers write: Ray's `storage_path` if it is a folder, else `~/ray_results`."""
    is_folder = storage_path is not None and "://" not in str(storage_path)
    return Path(storage_path if is_folder else "~/ray_results").expanduser().absolute()


def refuse_unusable(callbacks: Sequence[Any]) -> None:
    """Refuse callbacks that need what is not here.

    Raises:
        SpecError: one is no object with Ray's methods, or starts actors.
    """
    for callback in callbacks:
        kind = type(callback).__name__
        if kind in _OURS:
            text = f"RunConfig(callbacks=[{kind}]) starts actors on a Ray of the script's own"
            ours = f'study_options={{"loggers": ["{_OURS[kind]}"]}}'
            raise SpecError(f"{text}: log with ours, {ours}")
        if not hasattr(callback, "on_trial_result"):
            text = f"RunConfig(callbacks=[{kind}]): no callback of Ray Tune"
            raise SpecError(f"{text}: derive it from ray.tune.Callback")
