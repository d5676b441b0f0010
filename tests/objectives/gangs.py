"""Objectives with a gang of plain actors of Ray, one in each bundle."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np


class Member:
    """One process of a gang. The first one reports and saves the step."""

    def __init__(self, trial, rank: int, size: int, *, has_data: bool = False) -> None:
        self.trial, self.rank, self.size, self.has_data = trial, rank, size, has_data

    def describe(self) -> dict[str, object]:
        import ray

        data = None
        if self.has_data:
            shard = self.trial.data.train.shard(self.rank, self.size)
            matrix = self.trial.data.train.X
            data = {
                "rows": len(shard),
                "sum": float(shard.X.sum()),
                "copied": not np.shares_memory(shard.X, matrix),
            }
        return {"node": ray.get_runtime_context().get_node_id(), "pid": os.getpid(), "data": data}

    def train(self, steps: int, folder: str) -> int:
        """Count from the restored step; wait for a file named after a step before it, if asked."""
        restored = self.trial.restored()
        first = 0 if restored is None else json.loads(restored.read_text()) + 1
        if self.rank == 0:
            for step in range(first, steps):
                while Path(folder, f"wait-{step}").exists():
                    time.sleep(0.02)
                self.trial.report(step, loss=1 / (step + 1))
                state = self.trial.directory / "state.json"
                state.write_text(json.dumps(step))
                self.trial.checkpoint(state)
        elif Path(folder, "hold").exists():
            time.sleep(600)
        return first


def members_of(trial, **options):
    import ray

    size = len(trial.placement_group.bundle_specs)
    remote = ray.remote(num_cpus=1)(Member)
    return [remote.remote(trial, rank, size, **options) for rank in range(size)]


def train(folder: str, steps: int = 4, has_data: bool = False, *, trial) -> dict[str, float]:
    """Train in all bundles; tell where the processes are in a file."""
    import ray

    members = members_of(trial, has_data=has_data)
    described = ray.get([member.describe.remote() for member in members])
    Path(folder, f"members-{trial.attempt}").write_text(json.dumps(described))
    firsts = ray.get([member.train.remote(steps, folder) for member in members])
    return {"loss": 1 / steps, "first": float(firsts[0])}
