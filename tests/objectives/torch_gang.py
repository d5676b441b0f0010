"""The example data_parallel.py, whose second worker dies once."""

from __future__ import annotations

import os
import signal

import data_parallel
import ray.train
from data_parallel import digits  # noqa: F401  # the source of the study's data

import tunesvc

learn, report = data_parallel.train_on_worker, data_parallel.report


def train(lr: float, *, trial) -> None:
    data_parallel.train_on_worker = train_on_worker
    data_parallel.train(lr, 16, epochs=6, trial=trial)


def train_on_worker(config: dict) -> None:
    data_parallel.report = report_or_die
    learn(config)


def report_or_die(epoch: int, error: float, layers, rank: int) -> None:
    context = ray.train.get_context()
    if rank == 1 and epoch == 3 and tunesvc.current_trial().attempt == 1:
        print(f"worker {rank} of {context.get_world_size()} dies")
        os.kill(os.getpid(), signal.SIGKILL)
    report(epoch, error, layers, rank)
