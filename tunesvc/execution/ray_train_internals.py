"""The part of Ray Train's private interface that tunesvc uses, as `ray_internals` is of Ray's.

Imports Ray Train 2: `tunesvc.integrations.ray_train` alone loads this module.
"""

from __future__ import annotations

from typing import Any

from ray.train import Checkpoint
from ray.train.v2._internal.callbacks.placement_group_callback import (
    PlacementGroupCleanerCallback,
)
from ray.train.v2._internal.execution.callback import (
    ControllerCallback,
    ReportCallback,
    WorkerCallback,
)
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.worker_group import worker_group
from ray.train.v2._internal.execution.worker_group.placement_group_handle import (
    DefaultPlacementGroupHandle,
)
from ray.train.v2.api import data_parallel_trainer


class GangCallback(ControllerCallback, ReportCallback, WorkerCallback):
    """Base of callbacks that run in the controller and in the workers of a gang's run.

    The public `UserCallback` is called for reports only.
    """


class _BorrowedGroup(DefaultPlacementGroupHandle):
    """A placement group that outlives a run of Ray Train."""

    def shutdown(self) -> None:
        """Leave it: it ends with its trial. The workers have ended already."""


def train_in_group(group: Any) -> None:
    """Let the controller in this process start its workers in this placement group.

    Ray Train makes one for each start of its workers, and has no option to hand one over.
    """

    def borrow(*_: object) -> _BorrowedGroup:
        return _BorrowedGroup(group)

    worker_group.WorkerGroup._create_placement_group = borrow  # type: ignore[assignment, method-assign]


def leave_groups_alone() -> None:
    """Let trainers of this process remove no placement group of a gang when a controller dies.

    Ray Train has a detached actor for that. It would end the trial, and waits forever on a cluster
    without Ray's dashboard.
    """
    trainer = data_parallel_trainer.DataParallelTrainer
    callbacks_of = trainer._create_default_callbacks
    if getattr(callbacks_of, "leaves_groups_alone", False):
        return

    def without_cleaner(self: Any) -> list[Any]:
        callbacks = callbacks_of(self)
        if not any(isinstance(one, GangCallback) for one in callbacks):
            return callbacks
        return [one for one in callbacks if not isinstance(one, PlacementGroupCleanerCallback)]

    without_cleaner.leaves_groups_alone = True  # type: ignore[attr-defined]
    trainer._create_default_callbacks = without_cleaner  # type: ignore[method-assign]


def set_checkpoint(path: str) -> None:
    """Make a folder what `ray.train.get_checkpoint()` returns in this worker.

    A run starts without a checkpoint, unless its own storage has one.
    """
    get_train_context().checkpoint = Checkpoint(path)
