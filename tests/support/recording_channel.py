"""A channel that records what a trial sends, for integrations without workers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from tunesvc import Trial
from tunesvc.trial import RestoredState


class RecordingChannel:
    """Takes reports and checkpoints, and asks the trial to stop after some reports.

    Or with the checkpoint of a step, as a population does.
    """

    def __init__(
        self, folder: Path, stop_after: int = 1_000_000, pause_at: int | None = None
    ) -> None:
        self.reports: list[tuple[int, Mapping[str, float]]] = []
        self.saved: dict[int | None, Path] = {}
        """Copies of checkpoints, by step."""
        self.directory = folder / "scratch"
        self.directory.mkdir(parents=True)
        self._folder = folder
        self._stop_after = stop_after
        self._pause_at = pause_at

    @property
    def stop_requested(self) -> bool:
        return len(self.reports) >= self._stop_after

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.reports]

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        self.reports.append((step, metrics))

    def checkpoint(self, path: Path, step: int | None) -> bool:
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        folder = self._folder / f"step-{step}"
        folder.mkdir()
        self.saved[step] = copy(path, folder / path.name)
        return step == self._pause_at

    def set_user_attr(self, name: str, value: str) -> None:
        """Forget it."""


def trial_on(channel: RecordingChannel, restored: Path | None = None) -> Trial:
    """Return a trial with the metric `loss` that continues from a checkpoint."""
    state = None if restored is None else RestoredState(restored)
    return Trial(channel, metrics=("loss",), restored=state)
