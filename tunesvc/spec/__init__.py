"""Study specs: the model, the YAML document with its lines, the JSON Schema and the starter."""

from tunesvc.spec.choices import as_choices, as_given
from tunesvc.spec.model import StudySpec
from tunesvc.spec.schema.json_schema import json_schema
from tunesvc.spec.sections.budget import Budget, Prices
from tunesvc.spec.sections.components import Pruner, Sampler
from tunesvc.spec.sections.evaluation_keys import Evaluation
from tunesvc.spec.sections.execution_keys import Environment, Limits, Resources, Retries
from tunesvc.spec.sections.field_types import ParamValue, Scalar, as_choice
from tunesvc.spec.sections.objective import Constraint, Metric
from tunesvc.spec.sections.parameter_types import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
)
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
