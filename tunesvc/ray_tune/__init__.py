"""Ray Tune's interface on tunesvc: `from tunesvc import ray_tune as tune`, in place of `ray`'s.

`Tuner` runs a study of ours and returns results in Ray's form; every other name is Ray Tune's own,
such as `tune.uniform`, `tune.TuneConfig` and `tune.report`. What cannot be carried over raises with
the name of ours. Nothing of tunesvc imports this package.
"""

from __future__ import annotations

from typing import Any

from tunesvc.ray_tune.result_grid import ResultGrid
from tunesvc.ray_tune.tuner import Tuner

__all__ = ["ResultGrid", "Tuner"]

_ELSEWHERE = {
    "run": "use Tuner(...).fit()",
    "run_experiments": "use Tuner(...).fit() for each",
    "ExperimentAnalysis": "use the ResultGrid that Tuner(...).fit() returns",
}


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        raise AttributeError(f"tunesvc.ray_tune has no {name!r}: {_ELSEWHERE[name]}")
    from ray import tune

    return getattr(tune, name)


def __dir__() -> list[str]:
    from ray import tune

    return sorted({*dir(tune), *__all__} - _ELSEWHERE.keys())
