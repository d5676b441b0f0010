"""The GPUs of this machine, listed by `nvidia-smi`. Imports no Ray and no torch."""

from __future__ import annotations

import shutil
import subprocess


def describe_gpus(timeout_s: float = 10.0) -> tuple[str, ...]:
    """Return one line per GPU, such as `NVIDIA A100-SXM4-40GB, 40960 MiB`. Empty without a GPU or driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if done.returncode != 0:
        return ()
    lines = [line.strip() for line in done.stdout.splitlines()]
    return tuple(line for line in lines if line)
