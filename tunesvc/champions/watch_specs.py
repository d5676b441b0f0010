"""Names and specs of the studies that a watch runs. Pure.

shop                        the first study of the family `shop`
shop@1f3a9c20               the re-tune on data of version 1f3a9c20…
shop@1f3a9c20:folds-4be0d1  configurations of one space and its constants, on folds
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from tunesvc.spec import Budget, Pruner, Sampler, StudySpec
from tunesvc.spec.frozen_dict import FrozenDict
from tunesvc.spec.sections.evaluation_keys import Evaluation
from tunesvc.spec.sections.watch_keys import Watch

_VERSION_CHARS = 8
_OF_FAMILY = re.compile(rf"(.+)@[0-9a-f]{{{_VERSION_CHARS}}}(:folds(-[0-9a-f]{{6}})?)?")


def family_of(study: str) -> str:
    """Return the family that a study belongs to by its name."""
    found = _OF_FAMILY.fullmatch(study)
    return study if found is None else found[1]


def study_of_version(family: str, version: str) -> str:
    """Return the name of a re-tune."""
    return f"{family}@{version[:_VERSION_CHARS]}"


def folds_study(spec: StudySpec, version: str) -> str:
    """Return the name of the study with values of configurations of a spec's space and constants.

    Not of another space, which a study with trials cannot have.
    """
    dumped = spec.model_dump(mode="json", include={"parameters", "constants"})
    return f"{study_of_version(spec.name, version)}:folds-{digest(dumped)[:6]}"


def with_constants(spec: StudySpec, constants: Mapping[str, Any]) -> StudySpec:
    """Return the spec with the constants of a configuration."""
    return spec.model_copy(update={"constants": FrozenDict(constants)})


def digest(values: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal parameters or constants, whatever their order."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
    halves = {name: limit / 2 for name, limit in budget.limits.items() if limit is not None}
    if "trials" in halves:
        halves["trials"] = math.ceil(halves["trials"])
    return budget.model_copy(update=halves)


def folds_spec(spec: StudySpec, version: str, trials: int) -> StudySpec:
    """Return the spec of a comparison on folds: every trial runs to its end, and none ends it.

    The folds are of another draw than those of the family, if it has folds. All comparisons on a
    version have the same seeds.
    """
    if spec.data is None:
        raise ValueError("the study has no data")
    split = spec.data.split.model_copy(update={"draw": spec.data.split.draw + 1})
    evaluation = Evaluation(folds=watch_options(spec).folds, scoring=spec.scoring)
    changes = {
        "name": folds_study(spec, version),
        "description": f"Champion and challenger of {spec.name} on the same folds.",
        "metrics": tuple(metric.model_copy(update={"target": None}) for metric in spec.metrics),
        "sampler": Sampler(name="random", seed=int(version[:6], 16)),
        "pruner": Pruner(name="none"),
        "budget": Budget(trials=trials),
        "evaluation": evaluation,
        "warm_start": (),
        "loggers": (),
        "data": spec.data.model_copy(update={"split": split}),
        "watch": None,
    }
    return spec.model_copy(update=changes)
