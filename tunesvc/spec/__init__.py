"""Study specs: the model, the YAML document with its lines, and the JSON Schema."""

from tunesvc.spec.model import (
    Budget,
    CategoricalParameter,
    Constraint,
    Environment,
    FloatParameter,
    IntParameter,
    Limits,
    Metric,
    Parameter,
    ParamValue,
    Pruner,
    Resources,
    Retries,
    Sampler,
    Scalar,
    StudySpec,
)

__all__ = [
    "Budget",
    "CategoricalParameter",
    "Constraint",
    "Environment",
    "FloatParameter",
    "IntParameter",
    "Limits",
    "Metric",
    "ParamValue",
    "Parameter",
    "Pruner",
    "Resources",
    "Retries",
    "Sampler",
    "Scalar",
    "StudySpec",
]
