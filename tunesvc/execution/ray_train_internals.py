"""The part of Ray Train's private interface that tunesvc uses, as `ray_internals` is of Ray's.

Imports Ray Train 2: `tunesvc.integrations.ray_train` alone loads this module.
"""

from __future__ import annotations

from typing import Any

from ray.train import Checkpoint
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import (
    PlacementGroupCleanerCallback,
)
from ray.train.v2._internal.execution.callback import (
    ControllerCallback,
    ReportCallback,
    WorkerCallback,
    WorkerGroupCallback,
)
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
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


class _ReservedWorkers(FixedScalingPolicy):
    """A scaling policy for workers whose resources are reserved already.

    Ray Train's own asks the autoscaler for them, by a detached actor that stays on the cluster.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        """Request nothing."""

    def _maybe_send_resource_request(self) -> None:
        pass


class _NoShards:
    """Shards of a trainer without datasets."""

    def get_dataset_shard(self, dataset_info: Any) -> Any:
        """Raise the error of Ray Train's own provider.

        Raises:
            KeyError: always.
        """
        raise KeyError(
            f"Dataset shard for {dataset_info.dataset_name!r} not found: the trainer has no "
            "`datasets`. The study's data is `tunesvc.current_trial().data`."
        )


class _NoDatasets(WorkerGroupCallback):
    """Gives workers no datasets.

    Ray Train's own starts an actor for that, on which the start of the training waits.
    """

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        """Return the arguments of each worker's context."""
        return {"dataset_shard_provider": [_NoShards()] * len(workers)}


def reserve_nothing() -> None:
    """Let trainers of this process with a `GangCallback` use what is reserved, and keep it.

    Beside a placement group, Ray Train requests nodes from the autoscaler, and starts a detached
    actor that removes the groups of dead controllers. That would end the trial, and waits forever
    on a cluster without Ray's dashboard. Neither has an option. Repeatable.
    """
    trainer = data_parallel_trainer.DataParallelTrainer
    run = trainer._initialize_and_run_controller
    if getattr(run, "reserves_nothing", False):
        return

    def run_in_gang(self: Any, **arguments: Any) -> Any:
        return run(self, **_in_gang(self, arguments))

    run_in_gang.reserves_nothing = True  # type: ignore[attr-defined]
    trainer._initialize_and_run_controller = run_in_gang  # type: ignore[method-assign]


def _in_gang(trainer: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a controller as a gang needs them."""
    callbacks = arguments["callbacks"]
    if not any(isinstance(one, GangCallback) for one in callbacks):
        return arguments
    left_out: tuple[type, ...] = (PlacementGroupCleanerCallback,)
    added = []
    if not trainer.datasets:
        left_out += (DatasetsCallback,)
        added.append(_NoDatasets())
    kept = [one for one in callbacks if not isinstance(one, left_out)]
    policy = _ReservedWorkers(trainer.scaling_config)
    return {**arguments, "callbacks": [*kept, *added], "scaling_policy": policy}


def set_checkpoint(path: str) -> None:
    """Make a folder what `ray.train.get_checkpoint()` returns in this worker.

    A run starts without a checkpoint, unless its own storage has one.
    """
    get_train_context().checkpoint = Checkpoint(path)
