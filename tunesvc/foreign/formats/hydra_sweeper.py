"""Configurations of Hydra's Optuna sweeper."""

from __future__ import annotations

from tunesvc.foreign.draft import Draft
from tunesvc.foreign.formats.hydra_overrides import distribution, is_sweep, sweep
from tunesvc.foreign.section import Section
from tunesvc.spec.yaml import scalars

TITLE = "a configuration of Hydra's Optuna sweeper"
_SAMPLERS = {
    "RandomSampler": "random",
    "TPESampler": "tpe",
    "CmaEsSampler": "cmaes",
    "NSGAIISampler": "nsga2",
    "NSGAIIISampler": "nsga3",
    "GridSampler": "grid",
    "QMCSampler": "qmc",
    "GPSampler": "gp",
}
_BY_GROUP = {"tpe": "tpe", "random": "random", "cmaes": "cmaes", "nsgaii": "nsga2", "grid": "grid"}


def recognises(top: Section) -> bool:
    """Return True for a configuration with a sweeper."""
    hydra = top.section("hydra") if top.has_section("hydra") else None
    return hydra is not None and hydra.has_section("sweeper")


def convert(top: Section, draft: Draft) -> None:
    """Make a study of a configuration."""
    hydra = top.section("hydra")
    sweeper = hydra.section("sweeper") if hydra is not None else None
    if hydra is None or sweeper is None:
        top.refuse("hydra", "`hydra.sweeper` is missing: write `hydra: {sweeper: {params: ...}}`")
        return
    if (name := sweeper.take("study_name")) is not None:
        draft.data["name"] = str(name)
    _directions(sweeper, draft)
    if "n_trials" in sweeper:
        draft.data["budget"] = {"trials": sweeper.number("n_trials")}
    if "n_jobs" in sweeper:
        draft.data["parallelism"] = sweeper.number("n_jobs")
    _sampler(top, sweeper, draft)
    _parameters(sweeper, draft)
    draft.set_program(None, option="{name}=${{{name}}}")
    sweeper.drop("trials are stored in the database of `tune`", "storage")
    for section in (sweeper, hydra, top):
        section.take("defaults")
        section.take("_target_")
        section.close()


def _directions(sweeper: Section, draft: Draft) -> None:
    written = sweeper.take("direction", "minimize")
    goals = written if isinstance(written, list) else [written]
    names = ["value"] if len(goals) == 1 else [f"value{index}" for index in range(len(goals))]
    metrics = [{"name": n, "goal": str(g)} for n, g in zip(names, goals, strict=True)]
    draft.data.update({"metric": metrics[0]} if len(goals) == 1 else {"metrics": metrics})
    listed = ", ".join(f"`{name}`" for name in names)
    draft.note(
        sweeper.at("direction").line, f"a returned value has no name: it is reported as {listed}"
    )


def _sampler(top: Section, sweeper: Section, draft: Draft) -> None:
    for default in top.take("defaults", []):
        for group, chosen in default.items() if isinstance(default, dict) else ((default, ""),):
            if group == "override hydra/sweeper/sampler":
                draft.data["sampler"] = _BY_GROUP.get(str(chosen), str(chosen))
            elif group not in ("override hydra/sweeper", "_self_"):
                top.note("defaults", f"`{group}: {chosen}` is a matter of the program")
    sampler = sweeper.section("sampler")
    if sampler is None:
        return
    target = str(sampler.take("_target_", "")).rsplit(".", 1)[-1]
    if target in _SAMPLERS:
        draft.data["sampler"] = _SAMPLERS[target]
    elif target:
        sampler.note("_target_", f"`{target}`: the default of `tune` is used")
    if (seed := sampler.take("seed")) is not None:
        draft.data["seed"] = seed
    sampler.drop("samplers here have options of their own", *sampler)


def _parameters(sweeper: Section, draft: Draft) -> None:
    if (params := sweeper.section("params")) is not None:
        for name in params:
            written = str(params.take(name))
            if is_sweep(written):
                draft.add_parameter(name, sweep(params, name, written.strip()))
            else:
                draft.add_constant(name, scalars.resolve(written))
    if (space := sweeper.section("search_space")) is not None:
        for name in space:
            one = space.section(name)
            if one is not None:
                draft.add_parameter(name, distribution(one))
                one.close()
