"""Search spaces and experiments of NNI."""

from __future__ import annotations

from typing import Any

from tunesvc.foreign.draft import Draft
from tunesvc.foreign.formats.nni_space import add_space
from tunesvc.foreign.section import Section
from tunesvc.foreign.source import read_section

TITLE = "an experiment of NNI"
_TUNERS = {
    "tpe": "tpe",
    "random": "random",
    "gridsearch": "grid",
    "evolution": "nsga2",
    "anneal": None,
    "smac": None,
    "gp": "gp",
    "gptuner": "gp",
    "metis": None,
    "metistuner": None,
    "bohb": None,
    "hyperband": None,
}
_ASSESSORS = {"medianstop": "median", "curvefitting": "curve"}
_LONG = ("trainingService", "trainingServicePlatform", "trialCommand", "trial", "tuner")


def recognises(top: Section) -> bool:
    """Return True for a search space, or for an experiment."""
    names = list(top)
    if any(top.has_section(name) and "_type" in _peek(top, name) for name in names):
        return True
    return any(name in top for name in ("searchSpace", "searchSpaceFile", "searchSpacePath"))


def _peek(top: Section, name: str) -> Any:
    return top.section(name) or ()


def convert(top: Section, draft: Draft) -> None:
    """Make a study of a search space, or of an experiment with its search space."""
    draft.data["metric"] = {"name": "default", "goal": "maximize"}
    if not any(name in top for name in (*_LONG, "searchSpace")):
        draft.note(0, "it names no metric: `default`, to be maximized, is a guess")
        add_space(top, draft)
        draft.set_program(None)
        return
    for key in ("experimentName", "name"):
        if (name := top.take(key)) is not None:
            draft.data["name"] = str(name)
    _find_space(top, draft)
    _tuner(top, draft)
    _limits(top, draft)
    _trial(top, draft)
    text = "Ray's workers, or agents, run the trials: see `cluster` and `agents`"
    top.drop(text, "trainingService", "trainingServicePlatform")
    top.close()


def _find_space(top: Section, draft: Draft) -> None:
    if (space := top.section("searchSpace")) is not None:
        add_space(space, draft)
    for key in ("searchSpaceFile", "searchSpacePath"):
        if (name := top.take(key)) is not None:
            _read_space(top, key, str(name), draft)


def _read_space(top: Section, key: str, name: str, draft: Draft) -> None:
    path = None if draft.folder is None else draft.folder / name
    if path is None or not path.is_file():
        top.refuse(key, f"`{key}` names `{name}`, which is not beside it: put the file there")
        return
    section, own = read_section(path, draft)
    add_space(section, own)
    own.check()
    draft.data["parameters"] = own.data.get("parameters", {})
    draft.notes += [(0, f"{name}: {text}") for text in own.noted_lines()]


def _tuner(top: Section, draft: Draft) -> None:
    for key in ("tuner", "assessor", "advisor"):
        if (one := top.section(key)) is None:
            continue
        name = one.take("name") or one.take(f"builtin{key.capitalize()}Name")
        arguments = one.section("classArgs")
        if arguments is not None:
            if (mode := arguments.take("optimize_mode")) is not None:
                draft.data["metric"]["goal"] = str(mode)
            if (seed := arguments.take("seed")) is not None:
                draft.data["seed"] = seed
            arguments.close()
        known = _ASSESSORS if key == "assessor" else _TUNERS
        found = known.get(str(name).lower())
        if found is not None:
            draft.data["pruner" if key == "assessor" else "sampler"] = found
        else:
            one.draft.note(one.position.line, f"`{key}: {name}`: the default of `tune` is used")
        one.close()


def _limits(top: Section, draft: Draft) -> None:
    budget: dict[str, Any] = {}
    for key in ("maxTrialNumber", "maxTrialNum"):
        if key in top:
            budget["trials"] = top.number(key)
    for key in ("maxExperimentDuration", "maxExecDuration"):
        if (duration := top.take(key)) is not None:
            budget["wall"] = duration
    if budget:
        draft.data["budget"] = budget
    if "trialConcurrency" in top:
        draft.data["parallelism"] = top.number("trialConcurrency")


def _trial(top: Section, draft: Draft) -> None:
    command, gpus = top.take("trialCommand"), top.take("trialGpuNumber")
    if (trial := top.section("trial")) is not None:
        command, gpus = trial.take("command", command), trial.take("gpuNum", gpus)
        trial.drop("the command runs in the study file's folder", "codeDir")
        trial.close()
    top.drop("the command runs in the study file's folder", "trialCodeDirectory")
    if gpus is not None:
        draft.data["resources"] = {"gpu": gpus}
    if command is not None:
        text = "nni.get_next_parameter(): the variable TUNE_PARAMS has the parameters as JSON"
        draft.note(0, text)
        draft.note(0, "nni.report_*_result reports nothing here: the program reports by tunesvc")
    draft.set_program(None if command is None else str(command).split())
