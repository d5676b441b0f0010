"""Study specs: the model, the YAML document with its lines, the JSON Schema and the starter."""

from tunesvc.spec.choices import as_choices, as_given
from tunesvc.spec.model import (
    Budget,
    CategoricalParameter,
    Constraint,
    Environment,
    Evaluation,
    FloatParameter,
    IntParameter,
    Limits,
    Metric,
    Parameter,
    ParamValue,
    Prices,
    Pruner,
    Resources,
    Retries,
    Sampler,
    Scalar,
    StudySpec,
    as_choice,
)
from tunesvc.spec.schema.json_schema import json_schema
from tunesvc.spec.starter import write_starter

__all__ = [
    "Budget",
    "CategoricalParameter",
    "Constraint",
    "Environment",
    "Evaluation",
    "FloatParameter",
    "IntParameter",
    "Limits",
    "Metric",
    "ParamValue",
    "Parameter",
    "Prices",
    "Pruner",
    "Resources",
    "Retries",
    "Sampler",
    "Scalar",
    "StudySpec",
    "as_choice",
    "as_choices",
    "as_given",
    "json_schema",
    "write_starter",
]
