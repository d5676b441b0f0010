"""What has to hold between the parts of a spec. Pure, but for the entrypoint's file (`entrypoint_file`).

Names and options of samplers and pruners are judged by `tunesvc.search`, which knows them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tunesvc.spec.arguments import function_faults
from tunesvc.spec.conditions import (
    MAX_NESTING,
    contains,
    cycle,
    is_too_nested,
    wanted_values,
)
from tunesvc.spec.diagnostics import SpecIssue, printable, suggest
from tunesvc.spec.entrypoint_file import entrypoint_faults
from tunesvc.spec.model import CategoricalParameter, Parameter, StudySpec, as_choice
from tunesvc.spec.placeholders import names_in, option_in, parameter_of

PRUNERS_OF_SEVERAL = ("auto", "curve", "asha", "none")
"""They know what several metrics are; Optuna's do not."""


def find_faults(
    spec: StudySpec,
    *,
    names: Collection[str] | None = None,
    folder: Path | None = None,
    function: Callable[..., Any] | None = None,
) -> list[SpecIssue]:
    """Everything in a valid model that does not fit together.

    Args:
        names: all parameters as written, also those that are left out of `spec` because they have faults of their own.
        folder: where the entrypoint is found from; None leaves that to the worker.
        function: the objective, where it is handed over.
    """
    names = spec.parameters.keys() if names is None else names
    return list(
        chain(
            _objective(spec, names, with_function=function is not None),
            function_faults(spec, function, names) if function is not None else (),
            entrypoint_faults(spec, folder, names=names),
            _placeholders(spec, names),
            _constants(spec, names),
            _conditions(spec, names),
            _metrics(spec),
            _budget(spec),
            _warm_start(spec, names),
        )
    )


def _objective(spec: StudySpec, names: Collection[str], *, with_function: bool) -> Iterator[SpecIssue]:
    if with_function:
        if spec.entrypoint is not None or spec.command is not None:
            yield SpecIssue(
                (),
                "the function is the objective: leave `entrypoint` and `command` out",
            )
        return
    if spec.entrypoint is not None and spec.command is not None:
        yield SpecIssue(
            ("command",),
            "write either `entrypoint` or `command`, not both",
            at_key=True,
        )
    if not spec.has_program:
        yield SpecIssue(
            (),
            "`entrypoint` is missing: what a trial runs, such as `entrypoint: train:main` (or a `command`)",
        )
    if spec.command is not None and not names:
        yield SpecIssue((), "`parameters` is missing: a command cannot ask for parameters itself")


def _placeholders(spec: StudySpec, names: Collection[str]) -> Iterator[SpecIssue]:
    known = {*names, *spec.constants}
    for index, argument in enumerate(spec.command or ()):
        if (option := option_in(argument, known)) is not None:
            if (name := parameter_of(option, known)) not in known:
                yield SpecIssue(
                    ("command", index),
                    _no_parameter(f"--{option}", suggest(name, known)),
                )
            continue
        for name in names_in(argument):
            if name not in known:
                is_option = name.startswith("--")
                hint = ": an option has to be an argument of its own" if is_option else suggest(name, known)
                yield SpecIssue(("command", index), _no_parameter(name, hint))
            elif name in spec.parameters and spec.parameters[name].when:
                yield SpecIssue(("command", index), _conditional(name))


def _no_parameter(name: str, hint: str) -> str:
    return f"`${{{printable(name)}}}` is no parameter or constant{hint}"


def _conditional(name: str) -> str:
    shown = printable(name)
    return (
        f"`${{{shown}}}` exists only under its `when`, and a command is handed all its arguments; write "
        f"`${{--{shown}}}` for an option that is left out then, or read it from TUNE_PARAMS instead"
    )


def _constants(spec: StudySpec, names: Collection[str]) -> Iterator[SpecIssue]:
    for name in spec.constants:
        if name in names:
            yield SpecIssue(
                ("constants", name),
                f"`{printable(name)}` is a parameter already",
                at_key=True,
            )
    for section, keys in (
        ("parameters", spec.parameters),
        ("constants", spec.constants),
    ):
        if "trial" in keys and spec.command is None:
            yield SpecIssue(
                (section, "trial"),
                "`trial` is the object that reports; give this another name",
                at_key=True,
            )


def _conditions(spec: StudySpec, names: Collection[str]) -> Iterator[SpecIssue]:
    for name, parameter in spec.parameters.items():
        if is_too_nested(name, spec.parameters):
            way = cycle(name, spec.parameters)
            circle = way and f"goes in a circle: {' -> '.join(printable(step) for step in way)}"
            yield SpecIssue(
                ("parameters", name, "when"),
                circle or f"conditions are nested more than {MAX_NESTING} deep",
            )
        yield from _parents(name, parameter, spec, names)


def _parents(name: str, parameter: Parameter, spec: StudySpec, names: Collection[str]) -> Iterator[SpecIssue]:
    for parent, wanted in (parameter.when or {}).items():
        path = ("parameters", name, "when", parent)
        shown = printable(parent)
        if parent not in names:
            yield SpecIssue(
                path,
                f"there is no parameter `{shown}`{suggest(parent, names)}",
                at_key=True,
            )
        elif parent in spec.parameters and _is_one_list(wanted, spec.parameters[parent]):
            listed = printable(str(as_choice(wanted)))
            yield SpecIssue(
                path,
                f"a list names several values: write [{listed}] for the one that is {listed}",
            )
        elif parent in spec.parameters:
            for value in wanted_values(wanted):
                if not contains(spec.parameters[parent], value):
                    hint = _nearest(value, spec.parameters[parent])
                    yield SpecIssue(path, f"is never {printable(repr(value))}{hint}")


def _is_one_list(wanted: object, parent: Parameter) -> bool:
    """Tell whether a `when` clause was meant as one choice that is a list."""
    return isinstance(parent, CategoricalParameter) and wanted in parent.values and isinstance(wanted, tuple)


def _nearest(value: object, parent: Parameter) -> str:
    if not isinstance(parent, CategoricalParameter):
        return f": between {parent.min:g} and {parent.max:g}" + (f", by {parent.step:g}" if parent.step else "")
    listed = ", ".join(printable(str(choice)) for choice in parent.choices[:10])
    return suggest(value, [choice for choice in parent.choices if isinstance(choice, str)]) or f": one of {listed}"


def _metrics(spec: StudySpec) -> Iterator[SpecIssue]:
    names = [metric.name for metric in spec.metrics]
    for index, metric in enumerate(spec.metrics):
        if "goal" not in metric.model_fields_set and _is_better_when_more(metric.name):
            shown = printable(metric.name)
            text = f"`{shown}` needs a goal, without which less is better: write `{{name: {shown}, goal: maximize}}`"
            yield SpecIssue(("metrics", index), f"{text}, or `goal: minimize` if that is meant")
        if metric.name in names[:index]:
            yield SpecIssue(
                ("metrics", index, "name"),
                f"the metric `{printable(metric.name)}` is there twice",
            )
        if metric.target is not None and len(spec.metrics) > 1:
            yield SpecIssue(
                ("metrics", index, "target"),
                "`target` ends a study of one metric only",
                at_key=True,
            )
    if len(spec.metrics) > 1 and spec.pruner.name not in PRUNERS_OF_SEVERAL:
        listed = ", ".join(PRUNERS_OF_SEVERAL)
        yield SpecIssue(
            ("pruner",),
            f"compares one metric; with several, leave `pruner` out, or use one of {listed}",
        )


def _is_better_when_more(name: str) -> bool:
    """Whether a metric of that name is mostly maximised; a word such as `loss` beside it says the contrary."""
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()))
    return bool(words & _MORE_IS_BETTER) and not words & _LESS_IS_BETTER


_MORE_IS_BETTER = {
    *(
        "accuracy",
        "acc",
        "precision",
        "recall",
        "f1",
        "auc",
        "auroc",
        "auprc",
        "mcc",
        "kappa",
    ),
    *(
        "r2",
        "score",
        "reward",
        "iou",
        "miou",
        "dice",
        "bleu",
        "rouge",
        "ndcg",
        "psnr",
        "ssim",
    ),
}
_LESS_IS_BETTER = {
    "loss",
    "error",
    "err",
    "cost",
    "regret",
    "brier",
    "distance",
    "neg",
    "negative",
}


def _budget(spec: StudySpec) -> Iterator[SpecIssue]:
    budget = spec.budget
    if budget.gpu_hours is not None and budget.trials is None and budget.wall is None and not spec.resources.gpu:
        yield SpecIssue(("budget",), "`gpu_hours` is never spent: `resources` asks for no GPU")
    if budget.stop_when is not None and len(spec.metrics) > 1:
        yield SpecIssue(
            ("budget", "stop_when"),
            "`stop_when` ends a study of one metric only",
            at_key=True,
        )
    elif budget.stop_when is not None and budget.stop_when.per == "gpu_hour" and not spec.resources.gpu:
        yield SpecIssue(
            ("budget", "stop_when", "per"),
            "is no `gpu_hour`: `resources` asks for no GPU",
        )


def _warm_start(spec: StudySpec, names: Collection[str]) -> Iterator[SpecIssue]:
    if spec.warm_start and len(spec.metrics) > 1:
        yield SpecIssue(
            ("warm_start",),
            "`warm_start` carries values of one metric; with several, leave it out",
            at_key=True,
        )
    if spec.warm_start and not names:
        text = "`warm_start` needs `parameters`: those that the objective declares itself are not known in time"
        yield SpecIssue(("warm_start",), text, at_key=True)
    for index, name in enumerate(spec.warm_start):
        if name == spec.name or name in spec.warm_start[:index]:
            what = "is this study" if name == spec.name else "is there twice"
            yield SpecIssue(("warm_start", index), f"`{printable(name)}` {what}")
