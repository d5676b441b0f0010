"""Folders of results, written by hand as Ray Tune writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesvc.foreign.histories.imported_history import (
    ImportedHistory,
    ImportRequest,
    import_history,
)

OF_RAY = {"time_total_s": 2.0, "pid": 12, "hostname": "n1", "date": "2026-01-02_03-04-05"}


def report(step: int, loss: object, *, done: bool = False, **others: Any) -> dict[str, Any]:
    return {
        "loss": loss,
        "training_iteration": step,
        "done": done,
        "timestamp": 1_700_000_000 + step,
        **OF_RAY,
        **others,
    }


class Results:
    """A folder of results, written as Ray writes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: list[Any] = []
        self.runner: dict[str, Any] = {"_metric": "loss"}
        folder.mkdir(parents=True)

    def add(
        self,
        config: Mapping[str, Any],
        reports: Sequence[Mapping[str, Any]] = (),
        status: str = "TERMINATED",
        **state: Any,
    ) -> Path:
        key = f"ab12c_{len(self.entries):05}"
        place = self.folder / f"train_{key}_{len(self.entries)}_lr=0.1_2026-01-02"
        place.mkdir()
        (place / "params.json").write_text(json.dumps(config))
        (place / "params.pkl").write_bytes(b"never read")
        lines = "".join(json.dumps({**one, "trial_id": key}) + "\n" for one in reports)
        (place / "result.json").write_text(lines)
        trial = {"trial_id": key, "config": config, "status": status, **state}
        trial |= {"relative_logdir": place.name, "storage": {"_type": "CLOUDPICKLE_FALLBACK"}}
        self.entries.append([json.dumps(trial), json.dumps({"start_time": 1_700_000_000.0})])
        return place

    def write_state(self, key: str = "trial_data") -> None:
        state = {key: self.entries, "runner_data": self.runner, "stats": {}}
        (self.folder / "experiment_state-2026-01-02_03-04-05.json").write_text(json.dumps(state))

    def read(self, **options: Any) -> ImportedHistory:
        options.setdefault("goals", {"loss": "minimize"})
        return import_history(ImportRequest(self.folder, **options))
