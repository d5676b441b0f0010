"""Ray Tune's and Optuna's names for our keys, so that an error can suggest the right key."""

from __future__ import annotations

_RAY = {
    "param_space": "`parameters`",
    "num_samples": "`budget: {trials: ...}`",
    "time_budget_s": "`budget: {wall: ...}`",
    "mode": "`goal: minimize` or `goal: maximize` of the metric",
    "search_alg": "`sampler`",
    "scheduler": "`pruner`",
    "max_concurrent_trials": "`parallelism`",
    "resources_per_trial": "`resources`",
    "stop": "`constants: {stop: {training_iteration: ...}}`",
    "max_failures": "`retries`",
    "storage_path": "the environment variable TUNE_CHECKPOINTS",
    "checkpoint_config": "`keep: {best: ..., last: ...}`",
    "keep_checkpoints_num": "`keep: {best: ..., last: ...}`",
    "reuse_actors": "nothing to write: workers are reused",
    "tune_config": "keys of the study: `metric`, `budget`, `sampler`, `pruner`, `parallelism`",
    "run_config": "keys of the study: `name`, `retries`, `limits`",
    "trainable": "`entrypoint`",
}
_OPTUNA = {
    "n_trials": "`budget: {trials: ...}`",
    "timeout": "`budget: {wall: ...}`",
    "n_jobs": "`parallelism`",
    "direction": "`goal: minimize` or `goal: maximize` of the metric",
    "directions": "the `goal` of each of `metrics`",
    "study_name": "`name`",
    "load_if_exists": "`tune resume`, or `resume=True` in Python",
}


def hint(key: str) -> str:
    """Return the end of a sentence that translates a key of Ray Tune or Optuna, or nothing."""
    for owner, names in (("Ray Tune", _RAY), ("Optuna", _OPTUNA)):
        if key in names:
            return f": as {owner} calls it; here it is {names[key]}"
    return ""
