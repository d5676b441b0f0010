"""Names and specs of the studies that a watch runs. Pure.

shop                the first study of the family `shop`
shop@1f3a9c20       the re-tune on data of version 1f3a9c20…
shop@1f3a9c20:2     champion and challenger on the second split of that version
"""

from __future__ import annotations

import math
import re

from tunesvc.spec import Budget, Pruner, Sampler, StudySpec
from tunesvc.spec.sections.evaluation_keys import Evaluation
from tunesvc.spec.sections.watch_keys import Watch

_VERSION_CHARS = 8
_OF_FAMILY = re.compile(rf"(.+)@[0-9a-f]{{{_VERSION_CHARS}}}(:folds)?")


def family_of(study: str) -> str:
    """Return the family that a study belongs to by its name."""
    found = _OF_FAMILY.fullmatch(study)
    return study if found is None else found[1]


def study_of_version(family: str, version: str) -> str:
    """Return the name of a re-tune."""
    return f"{family}@{version[:_VERSION_CHARS]}"


def folds_study(family: str, version: str) -> str:
    """Return the name of the study that compares configurations on folds."""
    return f"{study_of_version(family, version)}:folds"


def watch_options(spec: StudySpec) -> Watch:
    """Return the options of a watch, the defaults without any."""
    return spec.watch or Watch()


def retune_spec(spec: StudySpec, version: str, earlier: tuple[str, ...]) -> StudySpec:
    """Return the spec of a re-tune.

    Args:
        spec: of the family.
        version: of the data.
        earlier: studies that it is warm-started from, beside those of the file.
    """
    changes = {
        "name": study_of_version(spec.name, version),
        "description": f"Re-tune of {spec.name} on data of version {version}.",
        "budget": watch_options(spec).budget or _half(spec.budget),
        "warm_start": tuple(dict.fromkeys((*earlier, *spec.warm_start))),
        "watch": None,
    }
    return spec.model_copy(update=changes)


def _half(budget: Budget) -> Budget:
    trials = budget.trials and math.ceil(budget.trials / 2)
    halves = {
        "trials": trials,
        "wall": budget.wall and budget.wall / 2,
        "gpu_hours": budget.gpu_hours and budget.gpu_hours / 2,
    }
    return budget.model_copy(update=halves)


def folds_spec(spec: StudySpec, version: str, trials: int) -> StudySpec:
    """Return the spec of a comparison on folds: every trial runs to its end, and none ends it.

    The folds are of another draw than those of the family, if it has folds.
    """
    if spec.data is None:
        raise ValueError("the study has no data")
    split = spec.data.split.model_copy(update={"draw": spec.data.split.draw + 1})
    evaluation = Evaluation(folds=watch_options(spec).folds, scoring=spec.scoring)
    changes = {
        "name": folds_study(spec.name, version),
        "description": f"Champion and challenger of {spec.name} on the same folds.",
        "metrics": tuple(metric.model_copy(update={"target": None}) for metric in spec.metrics),
        "sampler": Sampler(name="random"),
        "pruner": Pruner(name="none"),
        "budget": Budget(trials=trials),
        "evaluation": evaluation,
        "warm_start": (),
        "loggers": (),
        "data": spec.data.model_copy(update={"split": split}),
        "watch": None,
    }
    return spec.model_copy(update=changes)
