"""Which GPUs this machine has, as `nvidia-smi` tells. Imports no Ray and no torch."""

from __future__ import annotations

import shutil
import subprocess


def describe_gpus(timeout_s: float = 10.0) -> tuple[str, ...]:
    """One line per GPU, such as `NVIDIA A100-SXM4-40GB, 40960 MiB`; empty without a GPU or its driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip()) if done.returncode == 0 else ()
