"""Objectives with a gang of plain actors of Ray, one in each bundle."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np


class Member:
    """One process of a gang. One of them reports and saves the step."""

    def __init__(
        self, trial, rank: int, size: int, *, reporter: int = 0, has_data: bool = False
    ) -> None:
        self.trial, self.rank, self.size = trial, rank, size
        self.reporter, self.has_data = reporter, has_data

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
                "file": bool(os.environ.get("TUNE_DATA")),
            }
        context = ray.get_runtime_context()
        devices = context.get_accelerator_ids()["GPU"]
        node = context.get_node_id()
        return {"node": node, "pid": os.getpid(), "devices": devices, "data": data}

    def train(self, steps: int, folder: str) -> int:
        """Count from the restored step; wait for a file named after a step before it, if asked."""
        restored = self.trial.restored()
        first = 0 if restored is None else json.loads(restored.read_text()) + 1
        print(f"member {self.rank} begins at {first}")
        if self.rank == self.reporter:
            for step in range(first, steps):
                while Path(folder, f"wait-{step}").exists():
                    time.sleep(0.02)
                self.trial.report(step, loss=1 / (step + 1))
                state = self.trial.directory / "state.json"
                state.write_text(json.dumps(step))
                self.trial.checkpoint(state)
        elif Path(folder, "hold").exists():
            time.sleep(600)
        print(f"member {self.rank} ends", end="", file=sys.stderr)
        return first


def members_of(trial, **options):
    import ray

    size = len(trial.placement_group.bundle_specs)
    bundle = trial.placement_group.bundle_specs[0]
    remote = ray.remote(num_cpus=bundle["CPU"], num_gpus=bundle.get("GPU", 0))(Member)
    return [remote.remote(trial, rank, size, **options) for rank in range(size)]


def train(
    folder: str, steps: int = 4, reporter: int = 0, has_data: bool = False, *, trial
) -> dict[str, float]:
    """Train in all bundles; tell where the processes are in a file."""
    import ray

    members = members_of(trial, reporter=reporter, has_data=has_data)
    described = ray.get([member.describe.remote() for member in members])
    Path(folder, f"members-{trial.attempt}").write_text(json.dumps(described))
    firsts = ray.get([member.train.remote(steps, folder) for member in members])
    return {"loss": 1 / steps, "first": float(firsts[reporter])}


def with_ray_train(steps: int, *, trial) -> None:
    """Train in step with Ray Train, without a framework."""
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from tunesvc.integrations.ray_train import run_config, scaling_config

    trainer = DataParallelTrainer(
        count,
        train_loop_config={"steps": steps},
        scaling_config=scaling_config(trial),
        run_config=run_config(trial),
    )
    trainer.fit()


def count(config: dict[str, int]) -> None:
    """Count from the checkpoint, which only the first worker saves."""
    import ray.train

    import tunesvc

    checkpoint, first = ray.train.get_checkpoint(), 0
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            first = json.loads(Path(folder, "step").read_text()) + 1
    rank = ray.train.get_context().get_world_rank()
    for step in range(first, config["steps"]):
        metrics = {"loss": 1 / (step + 1), "attempt": f"of {tunesvc.current_trial().attempt}"}
        if rank > 0:
            ray.train.report(metrics)
            continue
        folder = tunesvc.current_trial().directory / f"state-{step}"
        folder.mkdir()
        (folder / "step").write_text(json.dumps(step))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint(str(folder)))
