"""The placement groups of gangs: made, found by name, and removed. Imports Ray.

A group has the name of the actor that runs its trial.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    placement_group,
    placement_group_table,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tunesvc.execution.gang import gang_reaper
from tunesvc.execution.gang.gang_reaper import GangReaper


def make_group(bundle: dict[str, float], workers: int, strategy: str, name: str) -> PlacementGroup:
    """Reserve the bundles of one gang. Returns at once.

    Args:
        bundle: the resources of each worker, by Ray's names.
        workers: number of bundles.
        strategy: Ray's placement strategy.
        name: name on a shared cluster, where the group outlives this driver. Empty on a local Ray.
    """
    if name:
        # First: whatever happens to this process between the two, no group is left over.
        _start_reaper(name)
    group: PlacementGroup = placement_group(
        [bundle or {"CPU": 0.01}] * workers,  # Ray refuses an empty bundle
        strategy=strategy,
        name=name,
        lifetime="detached" if name else None,
    )
    return group


def options_in_group(group: PlacementGroup) -> dict[str, Any]:
    """Return the options of the actor that runs a gang's trial, in the first bundle.

    It takes nothing of the bundle: all of them are for what the objective starts, which Ray places
    in the group.
    """
    strategy = PlacementGroupSchedulingStrategy(
        group,
        placement_group_bundle_index=0,
        placement_group_capture_child_tasks=True,
    )
    return {"num_cpus": 0, "num_gpus": 0, "scheduling_strategy": strategy}


def group_names() -> list[str]:
    """Return the names of all placement groups, except removed ones."""
    table: dict[str, dict[str, Any]] = placement_group_table()
    return [group["name"] for group in table.values() if group["state"] != "REMOVED"]


def find_group(name: str) -> PlacementGroup | None:
    """Return the placement group of this name, or None."""
    with suppress(ValueError):
        group: PlacementGroup = get_placement_group(name)
        return group
    return None


def _start_reaper(name: str) -> None:
    cloudpickle: Any = ray.cloudpickle  # untyped
    cloudpickle.register_pickle_by_value(gang_reaper)
    remote: Any = ray.remote(GangReaper).options(
        name=f"{name}/reaper",
        lifetime="detached",
        max_restarts=-1,
        num_cpus=0,
    )
    remote.remote(name)
