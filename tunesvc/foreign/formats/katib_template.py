"""Trial templates of Katib: the command of a job's first container, and its resources."""

from __future__ import annotations

import re
from typing import Any

from tunesvc.foreign.draft import Draft
from tunesvc.foreign.section import Section

_PLACEHOLDER = re.compile(r"\$\{trialParameters\.([^}]+)\}")
_GPUS = ("nvidia.com/gpu", "amd.com/gpu")


def add_program(spec: Section, draft: Draft) -> None:
    """Set the command and the resources of an Experiment's trials."""
    template = spec.section("trialTemplate")
    if template is None:
        draft.set_program(None)
        return
    references: dict[str, str] = {}
    for one in template.sections("trialParameters"):
        references[str(one.take("name"))] = str(one.take("reference"))
        one.drop("parameters here have no descriptions", "description")
        one.close()
    template.take("primaryContainerName")
    job = template.take("trialSpec", {})
    template.close()
    container = _container(job) or {}
    words = [*container.get("command", []), *container.get("args", [])]
    if image := container.get("image"):
        draft.note(template.at("trialSpec").line, f"image `{image}`: workers or agents run in it")
    draft.note(template.at("trialSpec").line, "of the job, the command and its resources are kept")
    _resources(container.get("resources", {}), draft)
    draft.set_program([_translated(str(word), references) for word in words] or None)


def _container(job: Any) -> dict[str, Any] | None:
    """Return the first container anywhere in a job's template."""
    if isinstance(job, dict):
        found = job.get("containers")
        if isinstance(found, list) and found and isinstance(found[0], dict):
            return found[0]
        return next((one for value in job.values() if (one := _container(value))), None)
    return None


def _resources(resources: Any, draft: Draft) -> None:
    limits = resources.get("limits", resources.get("requests", {})) if resources else {}
    gpus = [limits[key] for key in _GPUS if key in limits]
    made: dict[str, Any] = {"gpu": gpus[0]} if gpus else {}
    cpu = str(limits.get("cpu", ""))
    if cpu:
        made["cpu"] = float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)
    if memory := limits.get("memory"):
        made["memory"] = re.sub(r"^(\d+)([KMGT]i?)$", r"\1\2B", str(memory))
    if made:
        draft.data["resources"] = made


def _translated(word: str, references: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: f"${{{references.get(found[1], found[1])}}}", word)
