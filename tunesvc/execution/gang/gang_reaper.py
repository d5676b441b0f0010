"""The actor that removes a gang's placement group if coordinator and trial's process have died.

Ray keeps a detached placement group until it is removed, and each of the two removes it if the
other one is dead. The reaper is for the death of both, and restarts on another node if its own is
lost.

Imports only Ray and the standard library: the actor runs on any node, even if that has no tunesvc.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.util.placement_group import get_placement_group, remove_placement_group

CHECK_S = 2.0
"""Interval between checks."""
REAP_S = 5.0
"""A group without its trial's process is removed after this time.

By then a living coordinator has done it.
"""
START_S = 60.0
"""Longest time between the starts of the reaper and its gang, after which there is none."""


class GangReaper:
    """Removes one placement group once the actor of its name has died. Ends with the group."""

    def __init__(self, name: str) -> None:
        """Watch the placement group and the actor with this name, in this actor's namespace."""
        self._name = name
        threading.Thread(target=self._run, name="reaper", daemon=True).start()

    def _run(self) -> None:
        has_begun, absent_s, waited_s = False, 0.0, 0.0
        while has_begun or waited_s < START_S:
            time.sleep(CHECK_S)
            waited_s += CHECK_S
            with suppress(ConnectionError, TimeoutError, ray.exceptions.RayError):  # no head
                group = _find(get_placement_group, self._name)
                if has_begun and group is None:
                    break
                has_begun |= group is not None
                is_alive = group is None or _find(ray.get_actor, self._name) is not None
                absent_s = 0.0 if is_alive else absent_s + CHECK_S
                if group is not None and absent_s > REAP_S:
                    remove_placement_group(group)
        # Ray would restart it after another end
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


def _find(get: Callable[[str], Any], name: str) -> Any:
    """Return what Ray has by this name, or None."""
    try:
        return get(name)
    except ValueError:
        return None
