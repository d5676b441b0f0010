"""Provides prepared data from Ray's object store to a process of Ray.

Imports Ray and NumPy when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesvc.data.prepared_data import PreparedData, part_path, write_whole
from tunesvc.data.trial_data import provide
from tunesvc.execution import ray_internals


def provide_shared(prepared: PreparedData, shared_parts: Mapping[str, Any]) -> None:
    """Map the data, without a copy, and write files if this node has none.

    Args:
        prepared: names the data.
        shared_parts: references to its files in the object store.
    """
    import ray

    buffers = {name: ray.get(shared) for name, shared in shared_parts.items()}
    folder = prepared.folder
    if not all(part_path(folder, name).exists() for name in buffers):
        logs = ray_internals.log_folder()
        folder = Path(logs or folder.parent, "tunesvc-data", folder.name)
    for name, buffer in buffers.items():
        path = part_path(folder, name)
        if not path.exists():
            write_whole(path, [buffer])
    provide(prepared, folder, buffers)
