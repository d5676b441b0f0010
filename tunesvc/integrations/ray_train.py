"""Ray Train inside a trial's gang: its workers, reports, checkpoints and failures are the trial's.

Ray Train 2.60 makes a placement group of its own for each run. `run_config` puts the workers into
the trial's, where their resources are reserved already.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, get_context

from tunesvc.errors import Pruned, TuneError
from tunesvc.execution import ray_train_internals
from tunesvc.execution.gang.gang_output import label_output
from tunesvc.subprocess_trial import set_current_trial
from tunesvc.trial import Trial, as_result

_VARIABLES = {
    # Interval at which reports are fetched, one of each worker; two seconds by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # A node that is taken back ends the attempt as it does without Ray Train.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
"""Settings of Ray Train for runs in a gang, unless the environment has others."""
_NO_RETRIES = {"max_failures": 0, "max_preemption_failures": 0, "controller_failure_limit": 0}


def scaling_config(trial: Trial, **options: Any) -> ScalingConfig:
    """Return the `ScalingConfig` of a trainer with one worker in each bundle of the trial's gang.

    Args:
        trial: the objective's trial.
        options: other arguments of `ScalingConfig`.

    Raises:
        TuneError: the trial has one worker only.
    """
    bundles = _group(trial).bundle_specs
    resources: dict[str, Any] = {
        "num_workers": len(bundles),
        "resources_per_worker": dict(bundles[0]),
        "use_gpu": "GPU" in bundles[0],
    }
    return ScalingConfig(**resources | options)


def run_config(trial: Trial, **options: Any) -> RunConfig:
    """Return the `RunConfig` of a trainer that runs in the trial's gang.

    Each `ray.train.report` becomes a report of the trial, numbered from 0, and its checkpoint the
    trial's checkpoint, which `ray.train.get_checkpoint()` returns in a later attempt. Reports have
    the first worker's metrics. The run ends when the trial is pruned. It is not retried by Ray
    Train but by the study, which counts and shows that.

    Args:
        trial: the objective's trial.
        options: other arguments of `RunConfig`. A `storage_path` has to be one that all nodes
            share; the default suffices while the first worker alone saves checkpoints.

    Raises:
        TuneError: the trial has one worker only.
    """
    _group(trial)
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    ray_train_internals.reserve_nothing()
    no_retries: Any = FailureConfig  # Ray's stubs are those of Ray Train 1
    defaults: dict[str, Any] = {
        "name": f"trial-{trial.number}",
        "storage_path": str(trial.directory / "ray-train"),
        "checkpoint_config": CheckpointConfig(num_to_keep=1),
        "failure_config": no_retries(**_NO_RETRIES),
    }
    callbacks = [TrialCallback(trial), *(options.pop("callbacks", None) or ())]
    return RunConfig(**defaults | options, callbacks=callbacks)


class TrialCallback(ray_train_internals.GangCallback):
    """Connects a run of Ray Train with its trial, in the controller and in the workers."""

    def __init__(self, trial: Trial) -> None:
        """Report to `trial`."""
        self._trial = trial

    def after_controller_start(self, train_run_context: object) -> None:
        """Make the controller start its workers in the trial's placement group."""
        label_output("controller")
        ray_train_internals.train_in_group(self._trial.placement_group)

    def after_report(self, training_report: Any, metrics: list[dict[str, Any]]) -> None:
        """Pass on the first worker's metrics, and the checkpoint.

        Raises:
            Pruned: the trial has been asked to stop.
        """
        numbers, attributes = as_result(metrics[0], ())
        for name, value in attributes.items():
            self._trial.set_user_attr(name, value)
        step = self._trial._send(None, None, numbers)
        if training_report.checkpoint is not None:
            with training_report.checkpoint.as_directory() as folder:
                self._trial.checkpoint(folder, step)
        if self._trial.should_stop:
            # Ray Train would log this as an error of the controller, which ends with it.
            logging.getLogger("ray.train").setLevel(logging.CRITICAL)
            raise Pruned(f"trial {self._trial.number} was asked to stop after step {step}")

    def after_init_train_context(self) -> None:
        """Make the trial the worker's, with the checkpoint that it continues from."""
        label_output(f"rank {get_context().get_world_rank()}")
        set_current_trial(self._trial)
        restored = self._trial.restored()
        if restored is not None and restored.is_dir():
            ray_train_internals.set_checkpoint(str(restored))


def _group(trial: Trial) -> Any:
    if trial.placement_group is None:
        raise TuneError(
            "Ray Train runs in a gang: write `resources: {workers: N}` into the study file",
        )
    return trial.placement_group
