"""Memory that this process may still use: the machine's, within the limit of its container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_V2 = "sys/fs/cgroup"
_V1 = "sys/fs/cgroup/memory"


def free_memory(root: Path = Path("/")) -> int:
    """Return the number of free bytes. `root` has `proc` and `sys`."""
    return min([_free_on_machine(root), *_free_in_container(root)])


def _free_on_machine(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(free.split()[1]) * 1024
    except (OSError, StopIteration):
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)


def _free_in_container(root: Path) -> Iterator[int]:
    """Yield what the limit of a control group leaves; nothing where there is no limit.

    A container sees its own group at the root. Its pages of files that are not in use count as
    free, as the kernel takes them back first. See the kernel's "Control Group v2", `memory.stat`.
    """
    files = (
        (_V2, "memory.max", "memory.current", "inactive_file"),
        (_V1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    for folder, limit, used, unused in files:
        try:
            most = int((root / folder / limit).read_text())
            taken = int((root / folder / used).read_text())
            lines = (root / folder / "memory.stat").read_text().splitlines()
        except (OSError, ValueError):  # no such group, or `max`
            continue
        counts = dict(line.split() for line in lines)
        yield max(0, most - taken + int(counts.get(unused, 0)))
