"""Reads an entrypoint's `ray.tune.with_resources` on a worker: only workers import user code.

Imports Ray.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.executor import Job
from tunesvc.execution.objectives.entrypoint import load
from tunesvc.execution.objectives.ray_tune_space import resources_of
from tunesvc.execution.objectives.script_environment import imitate_interpreter
from tunesvc.execution.objectives.source_digest import mentions_resources
from tunesvc.spec import Resources


def with_own_resources(job: Job) -> Job:
    """Return the job with its function's own request, unless the study makes a request.

    Costs a worker and an import, so only files that mention `with_resources` are imported.

    Raises:
        SpecError: the function's request is not supported, such as bundles that differ.
    """
    folder = Path(job.source or ".")
    if job.resources != Resources() or not mentions_resources(job.entrypoint, folder):
        return job
    # no CPUs: other studies may use all of them
    task = ray.remote(_read_request).options(max_retries=0, num_cpus=0)
    request: dict[str, Any] | None = ray.get(task.remote(job))
    if request is None:
        return job
    return replace(job, resources=Resources(**request))


def _read_request(job: Job) -> dict[str, Any] | None:
    folder = Path(job.source or ".")
    imitate_interpreter(job, folder, is_copy=False)
    try:
        return resources_of(load(job.entrypoint or "", folder))
    except EntrypointError:
        return None  # the first attempt will report it
