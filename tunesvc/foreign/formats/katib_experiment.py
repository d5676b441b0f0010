"""Experiments of Katib, Kubeflow's tuner."""

from __future__ import annotations

from typing import Any

from tunesvc.foreign.draft import Draft
from tunesvc.foreign.formats.katib_parameters import dimension_of
from tunesvc.foreign.formats.katib_template import add_program
from tunesvc.foreign.section import Section

TITLE = "an Experiment of Katib"
_SAMPLERS = {
    "random": "random",
    "grid": "grid",
    "tpe": "tpe",
    "multivariate-tpe": "tpe",
    "cmaes": "cmaes",
    "sobol": "qmc",
    "bayesianoptimization": None,
    "hyperband": None,
}


def recognises(top: Section) -> bool:
    """Return True for an Experiment."""
    return top.take("kind") == "Experiment" and "kubeflow" in str(top.take("apiVersion"))


def convert(top: Section, draft: Draft) -> None:
    """Make a study of an Experiment."""
    top.take("kind"), top.take("apiVersion")
    if (metadata := top.section("metadata")) is not None:
        if (name := metadata.take("name") or metadata.take("generateName")) is not None:
            draft.data["name"] = str(name).rstrip("-")
        metadata.close()
    spec = top.section("spec")
    if spec is None:
        top.need("spec", "spec: {objective: ..., parameters: [...]}")
        return
    _objective(spec, draft)
    _algorithm(spec, draft)
    for one in spec.sections("parameters"):
        name = one.need("name", "name: lr")
        draft.add_parameter(str(name), dimension_of(one))
        one.close()
    _limits(spec, draft)
    add_program(spec, draft)
    spec.drop("the program reports by tunesvc", "metricsCollectorSpec")
    spec.close()
    top.close()


def _objective(spec: Section, draft: Draft) -> None:
    objective = spec.section("objective")
    if objective is None:
        spec.need("objective", "objective: {type: maximize, objectiveMetricName: accuracy}")
        return
    name = objective.need("objectiveMetricName", "objectiveMetricName: accuracy")
    draft.data["metric"] = {"name": name, "goal": objective.need("type", "type: maximize")}
    if "goal" in objective:
        draft.data["metric"]["target"] = objective.number("goal")
    objective.drop("every reported metric is kept anyway", "additionalMetricNames")
    objective.close()


def _algorithm(spec: Section, draft: Draft) -> None:
    for key in ("algorithm", "earlyStopping"):
        if (one := spec.section(key)) is None:
            continue
        name = one.need("algorithmName", "algorithmName: tpe")
        listed = list(one.sections("algorithmSettings"))
        settings = {str(each.take("name")): each for each in listed}
        if key == "earlyStopping" and name == "medianstop":
            draft.data["pruner"] = _median(settings)
        elif key == "algorithm" and name == "hyperband":
            draft.data["pruner"] = _hyperband(settings)
        elif key == "algorithm" and name in _SAMPLERS:
            if (sampler := _SAMPLERS[name]) is not None:
                draft.data["sampler"] = sampler
        else:
            one.note("algorithmName", f"`{name}`: the default of `tune` is used")
        if "random_state" in settings and name != "hyperband":
            draft.data["seed"] = settings.pop("random_state").number("value")
        for setting, each in settings.items():
            each.drop(f"`{setting}` has no counterpart here", "value")
        for section in (*listed, one):
            section.close()


def _median(settings: dict[str, Section]) -> dict[str, Any]:
    names = {"min_trials_required": "n_startup_trials", "start_step": "n_warmup_steps"}
    made: dict[str, Any] = {"name": "median"}
    return made | {names[n]: settings.pop(n).number("value") for n in names if n in settings}


def _hyperband(settings: dict[str, Section]) -> dict[str, Any]:
    eta = settings.pop("eta").number("value") if "eta" in settings else 3
    made: dict[str, Any] = {"name": "asha", "min": 1, "eta": int(eta or 3)}
    if "r_l" in settings:
        made["max"] = int(settings.pop("r_l").number("value") or 1)
    return made


def _limits(spec: Section, draft: Draft) -> None:
    if "maxTrialCount" in spec:
        draft.data["budget"] = {"trials": spec.number("maxTrialCount")}
    if "parallelTrialCount" in spec:
        draft.data["parallelism"] = spec.number("parallelTrialCount")
    if "maxFailedTrialCount" in spec:
        draft.data["limits"] = {"failures": max(1, int(spec.number("maxFailedTrialCount") or 1))}
        spec.note("maxFailedTrialCount", "`limits.failures` counts until one trial has succeeded")
