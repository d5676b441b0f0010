"""The short ways of writing a study, and what they stand for.

| short | long |
|---|---|
| `metric: loss`, `metric: {...}` | `metrics: [{name: loss}]`, `metrics: [{...}]` |
| `metrics: [loss, time]` | `metrics: [{name: loss}, {name: time}]` |
| `sampler: tpe`, `pruner: asha` | `sampler: {name: tpe}`, `pruner: {name: asha}` |
| `sampler: {class: "module:Name"}` | `sampler: {name: "module:Name"}`; pruner, loggers likewise |
| `loggers: [mlflow, {wandb: {...}}]` | `loggers: [{name: mlflow}, {name: wandb, ...}]` |
| `budget: 100` | `budget: {trials: 100}` |
| `search: {method: pbt, ...}` | also `sampler: pbt`, `pruner: none`, and a `budget` that suffices |
| `watch: {budget: 20}` | `watch: {budget: {trials: 20}}` |
| `warm_start: digits` | `warm_start: [digits]` |
| `data: iris.csv` | `data: {source: iris.csv}` |
| `apply: standardize`, `apply: [standardize]` | `apply: [{name: standardize}]` |
| `evaluation: {scoring: roc_auc}` | `evaluation: {scoring: [roc_auc]}`, and its `metric` |
| `seeds: 5` | `evaluation: {repeats: 5, per_trial: 1}`, as written before there were folds |
| `command: python train.py` | `command: [python, train.py]` |
| `{values: [...]}` | `{type: categorical, values: [...]}` |
| `{min: 1, max: 8}` | `{type: int, min: 1, max: 8}`; float unless every number is whole |

Works on plain data and leaves whatever it does not understand to the model's own checks.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tunesvc.spec.diagnostics import Path, SpecIssue
from tunesvc.spec.sections.components import CLASS_FORM, OBJECT
from tunesvc.spec.sections.evaluation_keys import migrate_seeds
from tunesvc.spec.sections.population_keys import Search


def expand(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[SpecIssue]]:
    """Expand a study to its long form; also return the issues of its short forms."""
    long, issues = dict(data), []
    if "metric" in long and "metrics" in long:
        issues.append(
            SpecIssue(
                ("metric",),
                "write either `metric` or `metrics`, not both",
                at_key=True,
            )
        )
    if isinstance(long.get("evaluation"), Mapping):
        _expand_scoring(long)
    if "metric" in long:
        metric = long.pop("metric")
        long.setdefault("metrics", [metric])
    if isinstance(long.get("metrics"), (list, tuple)):
        long["metrics"] = [_with_goal(_name(metric), long) for metric in long["metrics"]]
    if long.get("search") is not None:
        _expand_search(long)
    for key in ("sampler", "pruner"):
        long |= {key: _component(long[key], (key,), issues)} if key in long else {}
    if "loggers" in long:
        long["loggers"] = _loggers(long["loggers"], issues)
    if "data" in long:
        long["data"] = _data(long["data"], issues)
    if "seeds" in long:
        issues += _seeds(long)
    watch = long.get("watch")
    if isinstance(watch, Mapping) and _is_number(watch.get("budget")):
        long["watch"] = {**watch, "budget": {"trials": watch["budget"]}}
    if isinstance(long.get("warm_start"), str):
        long["warm_start"] = [long["warm_start"]]
    if _is_number(long.get("budget")):
        long["budget"] = {"trials": long["budget"]}
    if isinstance(long.get("command"), str):
        try:
            long["command"] = shlex.split(long["command"])
        except ValueError as error:
            issues.append(SpecIssue(("command",), f"cannot be split into words: {error}"))
            del long["command"]
    if isinstance(long.get("parameters"), Mapping):
        parameters = long["parameters"].items()
        long["parameters"] = {name: _typed(parameter) for name, parameter in parameters}
    return long, issues


def as_written(path: Path, data: Mapping[str, Any]) -> Path:
    """Return the path in the file of a value in the long form."""
    if path[:1] == ("metrics",) and "metrics" not in data and "metric" in data:
        return ("metric", *path[2:])
    if path[:1] == ("evaluation",) and "evaluation" not in data:
        return ("seeds",)
    if path[1:] == ("name",) and isinstance(given := data.get(str(path[0])), Mapping):
        return path if "name" in given else (path[0], "class")
    if path[:1] == ("loggers",) and len(path) == 3:
        return _logger_as_written(path, data["loggers"])
    return path


def _logger_as_written(path: Path, written: Any) -> Path:
    item = written[int(path[1])] if isinstance(written, (list, tuple)) else written
    if not isinstance(item, Mapping) or "name" in item:
        return path
    if path[2] == "name":
        return (*path[:2], next(iter(item)) if len(item) == 1 else "class")
    return path if len(item) > 1 else (*path[:2], next(iter(item)), path[2])


def _seeds(long: dict[str, Any]) -> list[SpecIssue]:
    """Replace `seeds` by the evaluation that it stands for."""
    if "evaluation" in long:
        text = "write either `seeds` or `evaluation`, not both"
        del long["seeds"]
        return [SpecIssue(("seeds",), text, at_key=True)]
    migrate_seeds(long)
    return []


def _data(written: Any, issues: list[SpecIssue]) -> Any:
    if isinstance(written, str):
        return {"source": written}
    if not isinstance(written, Mapping) or not isinstance(written.get("steps"), (list, tuple)):
        return written
    steps = [_data_step(step, index, issues) for index, step in enumerate(written["steps"])]
    return {**written, "steps": steps}


def _data_step(step: Any, index: int, issues: list[SpecIssue]) -> Any:
    if not isinstance(step, Mapping) or "apply" not in step:
        return step
    given = step["apply"]
    given = given if isinstance(given, (list, tuple)) else [given]
    path: Path = ("data", "steps", index, "apply")
    listed = [
        _component(one, (*path, place), issues, _TRANSFORMER_FORM)
        for place, one in enumerate(given)
    ]
    return {**step, "apply": listed}


def _expand_scoring(long: dict[str, Any]) -> None:
    """Make one scorer a list, and the first one the metric if none is given."""
    scoring = long["evaluation"].get("scoring")
    if isinstance(scoring, str):
        scoring = [scoring]
        long["evaluation"] = {**long["evaluation"], "scoring": scoring}
    if isinstance(scoring, (list, tuple)) and scoring and {"metric", "metrics"}.isdisjoint(long):
        long["metric"] = scoring[0]


def _with_goal(metric: Any, long: Mapping[str, Any]) -> Any:
    """Add the goal of a metric that is a scorer: of all scorers more is better."""
    evaluation = long.get("evaluation")
    scoring = evaluation.get("scoring") if isinstance(evaluation, Mapping) else None
    if not isinstance(scoring, (list, tuple)) or not isinstance(metric, Mapping):
        return metric
    is_scorer = metric.get("name") in scoring
    return {"goal": "maximize", **metric} if is_scorer else metric


def _expand_search(long: dict[str, Any]) -> None:
    """Add what `search` decides: the sampler, the pruner, and a budget if none is given."""
    try:
        search = Search.model_validate(long["search"])
    except ValidationError:  # which is reported with the whole study
        long.setdefault("budget", {"trials": 1})
        return
    long.setdefault("sampler", search.method)
    long.setdefault("pruner", "none")
    long.setdefault("budget", {"trials": search.trials_max})


def _loggers(written: Any, issues: list[SpecIssue]) -> Any:
    """Expand loggers: names, mappings with `name` or `class`, or a name with its options below."""
    if isinstance(written, str):
        written = [written]
    if not isinstance(written, (list, tuple)):
        return written
    long = []
    for index, item in enumerate(written):
        if isinstance(item, Mapping) and len(item) == 1 and not {"name", "class"} & item.keys():
            ((name, options),) = item.items()
            item = {"name": name, **options} if isinstance(options, Mapping) else {"name": name}
        long.append(_component(item, ("loggers", index), issues))
    return long


def _component(
    written: Any,
    path: Path,
    issues: list[SpecIssue],
    form: str = CLASS_FORM,
) -> Any:
    """Expand a sampler, pruner, logger or transformer.

    Beside the name of a Python object, `class` only describes it. `form` is how to write it.
    """
    if not isinstance(written, Mapping) or "class" not in written:
        return _name(written)
    if written.get("name") == OBJECT:
        return written
    options = {key: value for key, value in written.items() if key != "class"}
    if "name" in written:
        text = "write either `name` or `class`, not both"
        issues.append(SpecIssue((*path, "class"), text, at_key=True))
        return options
    import_path = written["class"]
    if not isinstance(import_path, str) or ":" not in import_path:
        issues.append(SpecIssue((*path, "class"), form))
        return {}
    return {"name": import_path, **options}


_TRANSFORMER_FORM = (
    "write `module:Name` or `path/file.py:Name`, such as `sklearn.preprocessing:RobustScaler`"
)


def _name(written: Any) -> Any:
    return {"name": written} if isinstance(written, str) else written


def _typed(parameter: Any) -> Any:
    if not isinstance(parameter, Mapping) or "type" in parameter:
        return parameter
    if "values" in parameter:
        return {"type": "categorical", **parameter}
    if "min" in parameter and "max" in parameter:
        numbers = [parameter.get(key) for key in ("min", "max", "step")]
        is_whole = all(isinstance(number, int) for number in numbers if number is not None)
        return {"type": "int" if is_whole else "float", **parameter}
    return parameter


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
