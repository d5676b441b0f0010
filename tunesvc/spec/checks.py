"""Rules that connect several parts of a spec. Pure, except that `entrypoint_file` reads a file.

Names and options of samplers and pruners are checked by `tunesvc.search`, which defines them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tunesvc.spec import diagnostics
from tunesvc.spec.arguments import function_issues
from tunesvc.spec.conditions import (
    MAX_NESTING,
    contains,
    cycle,
    is_too_nested,
    when_values,
)
from tunesvc.spec.diagnostics import SpecIssue, printable
from tunesvc.spec.entrypoint_file import entrypoint_issues, is_import_path
from tunesvc.spec.model import StudySpec
from tunesvc.spec.placeholders import names_in, option_in, parameter_of
from tunesvc.spec.scorers import scoring_issues
from tunesvc.spec.sections.components import CLASS_FORM, NamedComponent
from tunesvc.spec.sections.field_types import as_choice
from tunesvc.spec.sections.hook_address import find_secret
from tunesvc.spec.sections.parameter_types import CategoricalParameter, Parameter
from tunesvc.spec.sections.population_keys import Stage
from tunesvc.util.redaction import redacted
from tunesvc.util.suggestions import suggest

PRUNERS_OF_SEVERAL = ("auto", "curve", "paired", "asha", "none")
"""Pruners that support several metrics; Optuna's do not."""


def find_issues(
    spec: StudySpec,
    *,
    names: Collection[str] | None = None,
    folder: Path | None = None,
    function: Callable[..., Any] | None = None,
) -> list[SpecIssue]:
    """Return the parts of a valid model that contradict each other.

    Args:
        names: all parameters in the file, including those left out of `spec` for issues of their
            own.
        folder: where the entrypoint is looked up; None leaves that to the worker.
        function: the objective, if it is a Python function.
    """
    names = spec.parameters.keys() if names is None else names
    return list(
        chain(
            _objective(spec, names, with_function=function is not None),
            function_issues(spec, function, names) if function is not None else (),
            entrypoint_issues(spec, folder, names=names),
            _placeholders(spec, names),
            _constants(spec, names),
            _conditions(spec, names),
            _metrics(spec),
            _budget(spec),
            _prices(spec),
            _warm_start(spec, names),
            _search(spec, names),
            _classes(spec),
            _secrets(spec),
            _repeated_loggers(spec),
            _data(spec),
            _gang(spec),
            scoring_issues(spec),
            _evaluation(spec),
            _watch(spec),
        )
    )


def _objective(
    spec: StudySpec,
    names: Collection[str],
    *,
    with_function: bool,
) -> Iterator[SpecIssue]:
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
            "`entrypoint` or `command` is missing: what a trial runs, such as `train:main`",
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
                hint = suggest(name, known)
                if name.startswith("--"):
                    hint = ": an option has to be an argument of its own"
                yield SpecIssue(("command", index), _no_parameter(name, hint))
            elif name in spec.parameters and spec.parameters[name].when:
                yield SpecIssue(("command", index), _conditional(name))


def _no_parameter(name: str, hint: str) -> str:
    return f"`${{{printable(name)}}}` is not a parameter or constant{hint}"


def _conditional(name: str) -> str:
    shown = printable(name)
    return (
        f"`${{{shown}}}` exists only under its `when`, and a command gets all its arguments; write "
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
            path = cycle(name, spec.parameters)
            circle = path and f"is circular: {' -> '.join(map(printable, path))}"
            yield SpecIssue(
                ("parameters", name, "when"),
                circle or f"conditions are nested more than {MAX_NESTING} deep",
            )
        yield from _parents(name, parameter, spec, names)


def _parents(
    name: str,
    parameter: Parameter,
    spec: StudySpec,
    names: Collection[str],
) -> Iterator[SpecIssue]:
    for parent, allowed in (parameter.when or {}).items():
        path = ("parameters", name, "when", parent)
        shown = printable(parent)
        if parent not in names:
            yield SpecIssue(
                path,
                f"there is no parameter `{shown}`{suggest(parent, names)}",
                at_key=True,
            )
        elif parent in spec.parameters and _is_one_list(allowed, spec.parameters[parent]):
            listed = printable(str(as_choice(allowed)))
            yield SpecIssue(
                path,
                f"a list names several values: write [{listed}] for the one that is {listed}",
            )
        elif parent in spec.parameters:
            for value in when_values(allowed):
                if not contains(spec.parameters[parent], value):
                    hint = _nearest(value, spec.parameters[parent])
                    yield SpecIssue(path, f"is never {printable(repr(value))}{hint}")


def _is_one_list(allowed: object, parent: Parameter) -> bool:
    """Tell whether a `when` clause was meant as one choice that is a list."""
    if not isinstance(parent, CategoricalParameter) or not isinstance(allowed, tuple):
        return False
    return allowed in parent.values


def _nearest(value: object, parent: Parameter) -> str:
    if not isinstance(parent, CategoricalParameter):
        step = f", by {parent.step:g}" if parent.step else ""
        return f": between {parent.min:g} and {parent.max:g}{step}"
    listed = ", ".join(printable(str(choice)) for choice in parent.choices[:10])
    return (
        suggest(
            value,
            [choice for choice in parent.choices if isinstance(choice, str)],
        )
        or f": one of {listed}"
    )


def _metrics(spec: StudySpec) -> Iterator[SpecIssue]:
    names = [metric.name for metric in spec.metrics]
    for index, metric in enumerate(spec.metrics):
        if "goal" not in metric.model_fields_set and _is_better_when_more(metric.name):
            shown = printable(metric.name)
            text = (
                f"`{shown}` needs a goal, without which less is better: write "
                f"`{{name: {shown}, goal: maximize}}`, or `goal: minimize` if that is meant"
            )
            yield SpecIssue(("metrics", index), text)
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


def _classes(spec: StudySpec) -> Iterator[SpecIssue]:
    """Check the form of names of classes; only a machine that runs the study imports them."""
    components: list[tuple[diagnostics.Path, NamedComponent]] = [
        (("sampler",), spec.sampler),
        (("pruner",), spec.pruner),
        *((("loggers", index), logger) for index, logger in enumerate(spec.loggers)),
    ]
    for path, component in components:
        if component.is_imported and not is_import_path(component.name):
            yield SpecIssue((*path, "name"), CLASS_FORM)


def _secrets(spec: StudySpec) -> Iterator[SpecIssue]:
    """Refuse secrets of loggers: what is in a study is stored, and shown to others."""
    for index, logger in enumerate(spec.loggers):
        for name, value in logger.options.items():
            is_secret = isinstance(value, str) and redacted(value) != value
            if is_secret or _SECRET_NAME.search(name):
                text = f"{name!r} is a secret, which is not stored with a study"
                remedy = (
                    "set the tracker's own variable, such as WANDB_API_KEY or "
                    "MLFLOW_TRACKING_PASSWORD, where the study runs"
                )
                yield SpecIssue(("loggers", index, name), f"{text}: {remedy}", at_key=True)


_SECRET_NAME = re.compile(r"(?i)password|secret|token|api_?key")


def _repeated_loggers(spec: StudySpec) -> Iterator[SpecIssue]:
    """Refuse a logger that is there twice: each would send every trial to the same place."""
    for index, logger in enumerate(spec.loggers):
        if logger in spec.loggers[:index]:
            text = f"{logger.name!r} is there twice with the same options: leave one out"
            yield SpecIssue(("loggers", index), text)


def _gang(spec: StudySpec) -> Iterator[SpecIssue]:
    """Yield what cannot run as a gang."""
    if spec.resources.workers == 1:
        return
    path = ("resources", "workers")
    if spec.agents is not None:
        text = "needs Ray: an agent runs a trial in one process. Leave `workers` out, or `agents`"
        yield SpecIssue(path, text)
    if spec.command is not None:
        text = (
            "a program of `command` is one process on one node. Name a function as `entrypoint`, "
            "which starts the gang's processes, see docs/distributed.md"
        )
        yield SpecIssue(path, text)


TRANSFORMERS = ("standardize", "normalize", "impute", "encode", "ordinal")
"""Transformers that have a name; all others have an import path."""


def _data(spec: StudySpec) -> Iterator[SpecIssue]:
    """Yield what is wrong in `data` whatever the data."""
    data = spec.data
    if data is None:
        return
    if data.split.stratify and data.target is None:
        yield SpecIssue(("data", "split", "stratify"), "needs a `target`", at_key=True)
    if data.target is not None and data.target in data.drop:
        yield SpecIssue(("data", "drop"), f"`{printable(data.target)}` is the target")
    if data.transformer is not None:
        if not is_import_path(data.transformer):
            yield SpecIssue(("data", "transformer"), "write `module:name` or `path/file.py:name`")
        if data.steps:
            text = "write either `steps` or `transformer`, not both"
            yield SpecIssue(("data", "transformer"), text, at_key=True)
    for step, named in enumerate(data.steps):
        for place, one in enumerate(named.apply):
            path = ("data", "steps", step, "apply", place, "name")
            if one.is_imported and not is_import_path(one.name):
                yield SpecIssue(path, "write `module:Name` or `path/file.py:Name`")
            elif not one.is_imported and one.name not in TRANSFORMERS:
                known = f": one of {', '.join(TRANSFORMERS)}, or an import path as `class`"
                yield SpecIssue(path, f"there is no `{printable(one.name)}`{known}")


def _evaluation(spec: StudySpec) -> Iterator[SpecIssue]:
    """Yield what `evaluation` needs from other keys."""
    evaluation = spec.evaluation
    if spec.pruner.name == "paired" and not spec.is_stepwise:
        text = (
            "compares folds or repeats, of which each trial needs two or more: write "
            "`evaluation: {repeats: 3}`, or `per_trial: 2`"
        )
        yield SpecIssue(("pruner",), text)
    if evaluation is None:
        return
    if evaluation.folds is not None and spec.data is None:
        text = "divides the rows of `data`, which is missing; without it, write `repeats`"
        yield SpecIssue(("evaluation", "folds"), text, at_key=True)
    if not evaluation.is_stepwise:
        return
    if spec.agents == "only" and spec.entrypoint is None and spec.command is None:
        text = "needs an `entrypoint` or `command`: programs that ask for trials have no folds"
        yield SpecIssue(("evaluation",), text, at_key=True)
    for index, metric in enumerate(spec.metrics):
        if metric.take == "best":
            text = "does not go with `evaluation`: the mean of all folds or repeats is the value"
            yield SpecIssue(("metrics", index, "take"), text, at_key=True)


def _watch(spec: StudySpec) -> Iterator[SpecIssue]:
    """Yield why a study cannot be kept fresh, and secrets of its hook."""
    if spec.watch is None:
        return
    if text := why_not_watched(spec):
        yield SpecIssue(("watch",), f"`watch` {text}", at_key=True)
    address = spec.watch.on_promote
    if address is not None and (secret := find_secret(address)):
        remedy = (
            "write a variable such as `$HOOK_TOKEN` in a URL, or let a command read its secret "
            "from the environment"
        )
        text = f"has a secret, {printable(secret)!r}, which is not stored with a study: {remedy}"
        yield SpecIssue(("watch", "on_promote"), text)


def why_not_watched(spec: StudySpec) -> str:
    """Return why a study can have no champion that is kept fresh; empty if it can."""
    if spec.data is None:
        return "needs `data`: a champion is compared on versions of it"
    if len(spec.metrics) > 1:
        return "needs a single metric: of several, there is no one champion"
    if spec.search is not None:
        return "does not go with `search`, whose trials continue each other"
    return ""


def _is_better_when_more(name: str) -> bool:
    """Return True if a metric of that name is usually maximised; a word such as `loss` in it means
    not."""
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
    budget, has_gpus = spec.budget, bool(spec.resources.gpu)
    is_endless = budget.trials is None and budget.wall is None
    if budget.cost is not None and spec.cost is None:
        text = "`cost` needs prices: write `cost: {gpu_hour: ..., cpu_hour: ...}` beside `budget`"
        yield SpecIssue(("budget",), text)
    if budget.gpu_hours is not None and is_endless and not has_gpus:
        yield SpecIssue(("budget",), "`gpu_hours` is never spent: `resources` requests no GPU")
    if budget.stop_when is None:
        return
    if len(spec.metrics) > 1:
        yield SpecIssue(
            ("budget", "stop_when"),
            "`stop_when` ends a study of one metric only",
            at_key=True,
        )
    elif budget.stop_when.per == "gpu_hour" and not has_gpus:
        yield SpecIssue(
            ("budget", "stop_when", "per"),
            "cannot be `gpu_hour`: `resources` requests no GPU",
        )
    elif budget.stop_when.per == "cost" and spec.cost is None:
        text = "needs prices: write `cost: {gpu_hour: ..., cpu_hour: ...}`"
        yield SpecIssue(("budget", "stop_when", "per"), text)


def _prices(spec: StudySpec) -> Iterator[SpecIssue]:
    """Yield prices by which every trial is free."""
    prices, resources = spec.cost, spec.resources
    if prices is None:
        return
    if not prices.gpu_hour and not prices.cpu_hour:
        yield SpecIssue(("cost",), "needs `gpu_hour`, `cpu_hour` or both above 0")
    elif not prices.cost(resources.cpu, resources.gpu):
        resource, key = ("GPU", "cpu_hour") if prices.gpu_hour else ("core", "gpu_hour")
        text = f"every trial is free: `resources` requests no {resource}; give a price `{key}`"
        yield SpecIssue(("cost",), text)


def _warm_start(spec: StudySpec, names: Collection[str]) -> Iterator[SpecIssue]:
    if spec.warm_start and len(spec.metrics) > 1:
        yield SpecIssue(
            ("warm_start",),
            "`warm_start` carries values of one metric; with several, leave it out",
            at_key=True,
        )
    if spec.warm_start and not names:
        text = "`warm_start` needs `parameters`: an objective declares its own too late"
        yield SpecIssue(("warm_start",), text, at_key=True)
    for index, name in enumerate(spec.warm_start):
        if name == spec.name or name in spec.warm_start[:index]:
            what = "is this study" if name == spec.name else "is there twice"
            yield SpecIssue(("warm_start", index), f"`{printable(name)}` {what}")


def _search(spec: StudySpec, names: Collection[str]) -> Iterator[SpecIssue]:
    """Yield the contradictions of `search` with other keys."""
    search = spec.search
    if search is None:
        return
    if spec.sampler.name != search.method:
        text = f"`search: {{method: {search.method}}}` chooses parameters: leave `sampler` out"
        yield SpecIssue(("sampler",), text, at_key=True)
    if spec.pruner.name != "none":
        text = "`search` decides which trials stop: leave `pruner` out"
        yield SpecIssue(("pruner",), text, at_key=True)
    if len(spec.metrics) > 1:
        yield SpecIssue(("search",), "compares members by one metric: write `metric`", at_key=True)
    if not names:
        text = "needs `parameters`: an objective declares its own too late"
        yield SpecIssue(("search",), text, at_key=True)
    if spec.agents == "only" and spec.entrypoint is None and spec.command is None:
        text = "needs an `entrypoint` or `command` that continues from a checkpoint"
        yield SpecIssue(("search",), text, at_key=True)
    has_blocks = spec.evaluation is not None and spec.evaluation.has_blocks
    excluded = {
        "constraints": (bool(spec.constraints), "members are compared by the metric alone"),
        "warm_start": (bool(spec.warm_start), "trials of other studies have no checkpoint here"),
        "evaluation": (has_blocks, "its steps are those of one training"),
    }
    for key, (is_given, why) in excluded.items():
        if is_given:
            yield SpecIssue((key,), f"does not go with `search`: {why}", at_key=True)
    if spec.budget.stop_when is not None:
        text = "does not go with `search`, whose trials have results only at the end"
        yield SpecIssue(("budget", "stop_when"), text, at_key=True)
    for index, stage in enumerate(search.stages):
        yield from _stage(spec, names, index, stage)


def _stage(
    spec: StudySpec,
    names: Collection[str],
    index: int,
    stage: Stage,
) -> Iterator[SpecIssue]:
    path = ("search", "stages", index, "parameters")
    for name, value in stage.parameters.items():
        if name not in names:
            text = f"there is no parameter `{printable(name)}`{suggest(name, names)}"
            yield SpecIssue((*path, name), text, at_key=True)
        elif name in spec.parameters and not contains(spec.parameters[name], as_choice(value)):
            parameter = spec.parameters[name]
            yield SpecIssue((*path, name), f"is outside{_nearest(value, parameter)}")
    missing = [
        name
        for name, parameter in spec.parameters.items()
        if name not in stage.parameters and not parameter.when
    ]
    if missing:
        yield SpecIssue(path, f"has no value for {', '.join(map(printable, missing))}")
