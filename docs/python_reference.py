"""`docs/python-reference.md` from docstrings:

`python docs/python_reference.py > docs/python-reference.md`.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from functools import cached_property
from typing import Any, is_typeddict

import tunesvc
from tunesvc.background_run import BackgroundRun
from tunesvc.champions.watch_result import WatchResult
from tunesvc.client.interface import (
    CommandOperations,
    InsightOperations,
    ServiceOperations,
    StudyOperations,
    SubmissionOperations,
    TrialOperations,
)
from tunesvc.client.study_inputs import (
    BudgetChange,
    NewStudy,
    ParallelismChange,
    ParameterChange,
    StudyPatch,
)
from tunesvc.data.part import Part
from tunesvc.data.trial_data import TrialData
from tunesvc.db.champions.champion_records import Champion, Configuration, PromotionEvidence
from tunesvc.decorator import Tunable
from tunesvc.drift.drift_report import ColumnDrift, DriftReport
from tunesvc.models.model_store import ModelMetadata
from tunesvc.models.trained_model import TrainedModel
from tunesvc.plots import Plots
from tunesvc.preparation.fitted_preparation import FittedPreparation
from tunesvc.queries.confirmation import Confirmation
from tunesvc.queries.explain.explanation import Explanation
from tunesvc.queries.explain.pruning_audit import Audit
from tunesvc.queries.health import Health
from tunesvc.queries.operations.final_results import TestResult, TestUse
from tunesvc.queries.rows import AttemptRow, DecisionRow, TrialDetail, TrialRow
from tunesvc.run_options import RunOptions, StudyOptions, SubmitOptions
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.search.analysis.finalists import Finalist
from tunesvc.search.analysis.recommend import Recommendation

_PREFACE = """# Python reference

This page is generated from docstrings:
`python docs/python_reference.py > docs/python-reference.md`.
[Python](python.md) shows how the parts are used together.
"""

SECTIONS: dict[str, tuple[Any, ...]] = {
    "Run and load studies": (
        *(tunesvc.run, RunOptions, tunesvc.load_study, tunesvc.studies),
        *(tunesvc.delete_study, tunesvc.storage),
    ),
    "Decorate a function": (
        tunesvc.tunable,
        StudyOptions,
        SubmitOptions,
        Tunable,
        BackgroundRun,
        tunesvc.Float,
        tunesvc.Int,
        tunesvc.Choice,
    ),
    "Inside an objective": (tunesvc.Trial, tunesvc.current_trial, tunesvc.Pruned),
    "Prepared data": (TrialData, Part, tunesvc.load_preparation, FittedPreparation),
    "Champions": (
        *(tunesvc.watch, WatchResult, tunesvc.list_champions, tunesvc.load_champion),
        *(tunesvc.champion_history, tunesvc.promote, tunesvc.rollback),
        *(Champion, Configuration, PromotionEvidence, DriftReport, ColumnDrift),
    ),
    "Trained models": (tunesvc.load_model, TrainedModel, ModelMetadata),
    "A study": (tunesvc.Study, Plots),
    "Results": (
        *(TrialRow, TrialDetail, AttemptRow, DecisionRow),
        *(Recommendation, Confirmation, Finalist, Audit, Explanation, Health),
        *(TestResult, TestUse),
    ),
    "A server": (
        *(tunesvc.Client, StudyOperations, TrialOperations, InsightOperations),
        *(CommandOperations, ServiceOperations),
        *(SubmissionOperations, NewSubmission),
        *(NewStudy, StudyPatch, BudgetChange, ParallelismChange, ParameterChange),
    ),
    "Samplers and pruners for plain Optuna": (
        *(tunesvc.AutoSampler, tunesvc.GPSampler, tunesvc.TPESampler),
        *(tunesvc.CurvePruner, tunesvc.AshaPruner, tunesvc.PairedPruner),
    ),
    "Errors": (tunesvc.TuneError, tunesvc.StudyFailed),
}

_INHERITED = {"AutoSampler", "GPSampler", "TPESampler", "CurvePruner", "AshaPruner", "PairedPruner"}
"""Classes whose methods are Optuna's contract, and documented there."""


_HANDED_OUT = (
    *(tunesvc.Study, Plots, Tunable, BackgroundRun),
    *(TrialData, Part, FittedPreparation, TrainedModel),
)
"""Classes whose objects users get, and never make."""


class _Raw(str):
    """An annotation that is printed as it was written."""

    def __repr__(self) -> str:
        return str(self)


def reference() -> str:
    """Return the whole page."""
    parts = [_PREFACE]
    for title, members in SECTIONS.items():
        parts.append(f"## {title}\n")
        for member in members:
            parts += (
                _class(member) if inspect.isclass(member) else _function(member, member.__name__)
            )
    return "\n".join(parts).rstrip() + "\n"


def public_members(cls: type) -> list[tuple[str, Any]]:
    """Return the methods and properties that a class defines for its users, in the order of
    their definition."""
    if cls.__name__ in _INHERITED or issubclass(cls, BaseException):
        return []
    kinds = (staticmethod, classmethod, property, cached_property)
    found = [(name, value) for name, value in vars(cls).items() if not name.startswith("_")]
    return [
        (name, value)
        for name, value in found
        if inspect.isfunction(value) or isinstance(value, kinds)
    ]


def _class(cls: type) -> Iterator[str]:
    is_made_by_users = "__init__" in vars(cls) and not issubclass(cls, BaseException)
    is_handed_out = cls in _HANDED_OUT
    arguments = (
        _signature(cls).removesuffix(" -> None") if is_made_by_users and not is_handed_out else ""
    )
    yield f"### `{cls.__name__}`\n"
    if arguments:
        yield f"```python\n{cls.__name__}{arguments}\n```\n"
    yield _markdown(cls.__doc__ or "")
    if fields := _fields(cls):
        yield "| field | type | meaning |\n|---|---|---|"
        for name, kind, text in fields:
            escaped = kind.replace("|", "\\|")
            yield f"| `{name}` | `{escaped}` | {text} |"
        yield ""
    for name, member in public_members(cls):
        yield from _function(member, f"{cls.__name__}.{name}", level=4)


def _function(member: Any, name: str, level: int = 3) -> Iterator[str]:
    is_property = isinstance(member, (property, cached_property))
    function = getattr(member, "__func__", member)
    if isinstance(member, property):
        function = member.fget
    elif isinstance(member, cached_property):
        function = member.func
    yield f"{'#' * level} `{name}`\n"
    if not is_property:
        yield f"```python\n{name.split('.')[-1]}{_signature(function)}\n```\n"
    yield _markdown(function.__doc__ or "")


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=_raw(parameter.annotation))
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    returns = _raw(signature.return_annotation)
    text = str(signature.replace(parameters=parameters, return_annotation=returns))
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", text)


def _raw(annotation: Any) -> Any:
    return _Raw(annotation) if isinstance(annotation, str) else annotation


def _fields(cls: type) -> list[tuple[str, str, str]]:
    """Return name, type and docstring of the fields that a dataclass or a TypedDict declares."""
    if not hasattr(cls, "__dataclass_fields__") and not is_typeddict(cls):
        return []
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    found = []
    for statement, following in zip(body, [*body[1:], ast.Pass()], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        text = str(following.value.value) if is_text else ""  # type: ignore[union-attr]
        found.append(
            (statement.target.id, ast.unparse(statement.annotation), " ".join(text.split()))
        )
    return found


def _markdown(docstring: str) -> str:
    """Return a docstring with its sections as lists."""
    lines = []
    section = False
    for line in inspect.cleandoc(docstring).splitlines():
        if heading := re.fullmatch(r"(Args|Raises|Returns):", line):
            section = True
            lines.append(f"**{heading[1].replace('Args', 'Arguments')}**\n")
        elif section and (entry := re.fullmatch(r"    (\S[^:]*): (.*)", line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif section and line.startswith("     "):
            lines.append(f"  {line.strip()}")
        else:
            section = section and not line
            lines.append(line)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
