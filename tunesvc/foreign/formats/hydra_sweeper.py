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
    "MOTPESampler": "tpe",
    "CmaEsSampler": "cmaes",
    "NSGAIISampler": "nsga2",
    "NSGAIIISampler": "nsga3",
    "GridSampler": "grid",
    "QMCSampler": "qmc",
    "GPSampler": "gp",
}
_BY_GROUP = {"tpe": "tpe", "random": "random", "cmaes": "cmaes", "nsgaii": "nsga2", "motpe": "tpe"}


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
    read_sweeper(sweeper, draft)
    _defaults(top, draft)
    listed = ", ".join(f"`{name}`" for name in _metric_names(draft))
    line = sweeper.at("direction").line
    draft.note(line, f"a returned value has no name: it is reported as {listed}")
    draft.set_program(None, option="{name}=${{{name}}}")
    sweeper.drop("trials are stored in the database of `tune`", "storage")
    for section in (sweeper, hydra, top):
        section.take("defaults")
        section.take("_target_")
        section.close()


def read_sweeper(sweeper: Section, draft: Draft) -> None:
    """Read `hydra.sweeper`, from a file or as Hydra has composed it."""
    if (name := sweeper.take("study_name")) is not None:
        draft.data["name"] = str(name)
    _directions(sweeper, draft)
    if "n_trials" in sweeper:
        draft.data["budget"] = {"trials": sweeper.number("n_trials")}
    if "n_jobs" in sweeper:
        draft.data["parallelism"] = sweeper.number("n_jobs")
    _sampler(sweeper, draft)
    _parameters(sweeper, draft)


def _metric_names(draft: Draft) -> list[str]:
    metrics = draft.data.get("metrics") or [draft.data["metric"]]
    return [metric["name"] for metric in metrics]


def _directions(sweeper: Section, draft: Draft) -> None:
    written = sweeper.take("direction", "minimize")
    goals = written if isinstance(written, list) else [written]
    names = ["value"] if len(goals) == 1 else [f"value{index}" for index in range(len(goals))]
    metrics = [{"name": n, "goal": str(g)} for n, g in zip(names, goals, strict=True)]
    draft.data.update({"metric": metrics[0]} if len(goals) == 1 else {"metrics": metrics})


def _defaults(top: Section, draft: Draft) -> None:
    for default in top.take("defaults", []):
        for group, chosen in default.items() if isinstance(default, dict) else ((default, ""),):
            if group == "override hydra/sweeper/sampler":
                draft.data.setdefault("sampler", _BY_GROUP.get(str(chosen), str(chosen)))
            elif group not in ("override hydra/sweeper", "_self_"):
                top.note("defaults", f"`{group}: {chosen}` is a matter of the program")


def _sampler(sweeper: Section, draft: Draft) -> None:
    if not sweeper.has_section("sampler"):
        if (named := sweeper.take("sampler")) is not None:
            draft.data["sampler"] = _BY_GROUP.get(str(named), str(named))
        return
    sampler = sweeper.section("sampler")
    if sampler is None:
        return
    target = str(sampler.take("_target_") or "").rsplit(".", 1)[-1]
    name = sampler.take("name")  # ours, with options of ours
    if (seed := sampler.take("seed")) is not None:
        draft.data["seed"] = seed
    if name is not None and not target:
        options = [key for key in sampler if key not in ("_target_", "name", "seed")]
        draft.data["sampler"] = {"name": name} | {key: sampler.take(key) for key in options}
    if target in _SAMPLERS:
        draft.data["sampler"] = _SAMPLERS[target]
    elif target:
        sampler.note("_target_", f"`{target}`: the default of `tune` is used")
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
