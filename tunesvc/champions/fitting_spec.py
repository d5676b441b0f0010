"""The spec with which a champion is evaluated on new data. Pure.

It is the one of the study file, with the constants that the champion was tuned with. If the file's
space has changed so that the champion is no more in it, it also has the space and the program that
the champion was tuned with. Seeds, cluster, resources and limits are those of the file: the values
of champion and challenger are compared in pairs, and an earlier cluster may be gone.
"""

from __future__ import annotations

from tunesvc.champions.watch_specs import with_constants
from tunesvc.db.champions.champion_records import Configuration
from tunesvc.errors import SpecError
from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec, as_choices


def find_misfit(spec: StudySpec, configuration: Configuration) -> str:
    """Return the parameter or constant that does not fit a spec, with the reason; empty if all do.

    Everything fits the space of a study without `parameters`, which its objective makes.
    """
    return _misfit_of_params(spec, configuration) or _misfit_of_constants(spec, configuration)


def fitting_spec(
    spec: StudySpec, configuration: Configuration, tuned_with: StudySpec | None
) -> StudySpec:
    """Return the spec that a configuration is evaluated with.

    Args:
        spec: of the study file.
        configuration: the one to evaluate.
        tuned_with: the spec of the study that has found it; None if it is not known.

    Raises:
        SpecError: it fits neither, or their metrics differ.
    """
    if not _misfit_of_params(spec, configuration):
        return with_constants(spec, configuration.constants)
    metrics = [(metric.name, metric.goal) for metric in spec.metrics]
    if tuned_with is None or _misfit_of_params(tuned_with, configuration):
        raise SpecError("the spec that it was tuned with is not known any more")
    if [(one.name, one.goal) for one in tuned_with.metrics] != metrics:
        raise SpecError("it was tuned for another metric")
    earlier = {name: getattr(tuned_with, name) for name in _OF_CONFIGURATION}
    return with_constants(spec.model_copy(update=earlier), configuration.constants)


_OF_CONFIGURATION = ("parameters", "entrypoint", "command")
"""Keys that decide which configurations a study can evaluate."""


def _misfit_of_params(spec: StudySpec, configuration: Configuration) -> str:
    if not spec.parameters:
        return ""
    space, params = Space(spec.parameters), as_choices(configuration.params)
    for name in params:
        if name not in space.parameters:
            return f"there is no parameter {name} any more"
    try:
        space.checked(params)
    except SpecError as error:
        return str(error)
    for name in space.parameters:
        if name not in params and space.active(name, params):
            return f"it has no value of {name}"
    return ""


def _misfit_of_constants(spec: StudySpec, configuration: Configuration) -> str:
    for name in sorted({*spec.constants, *configuration.constants}):
        if name not in spec.constants:
            return f"there is no constant {name} any more"
        if name not in configuration.constants:
            return f"it has no constant {name}"
        tuned, today = configuration.constants[name], spec.constants[name]
        if tuned != today:
            return f"its constant {name} is {tuned!r}, now it is {today!r}"
    return ""
