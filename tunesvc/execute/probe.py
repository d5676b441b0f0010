"""What an entrypoint asks for by `ray.tune.with_resources`, found out on a worker: only workers import user code.

Imports Ray.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from tunesvc.execute.entrypoint import load
from tunesvc.execute.executor import Job
from tunesvc.execute.failures import EntrypointError
from tunesvc.execute.imitation import imitate
from tunesvc.execute.ray_space import resources_of
from tunesvc.execute.source import entrypoint_files
from tunesvc.spec import Resources


def with_own_resources(job: Job) -> Job:
    """The job with the resources that its function brings along, where the study asks for none of its own.

    Costs a worker and an import, so only a file that speaks of `with_resources` is asked.

    Raises:
        SpecError: the function asks for what cannot be had, such as bundles that differ.
    """
    if job.resources != Resources() or not _speaks_of_resources(job):
        return job
    ask = ray.remote(_ask).options(max_retries=0, num_cpus=0)  # other studies may hold all that there is
    asked: dict[str, Any] | None = ray.get(ask.remote(job))
    return job if asked is None else replace(job, resources=Resources(**asked))


def _speaks_of_resources(job: Job) -> bool:
    files = entrypoint_files(job.entrypoint or "", Path(job.source or "."))
    texts = [path.read_text("utf-8", "replace") for path in files if path.is_file()]
    return any(word in text for text in texts for word in ("with_resources", "default_resource_request"))


def _ask(job: Job) -> dict[str, Any] | None:
    folder = Path(job.source or ".")
    imitate(job, folder, is_copy=False)
    try:
        return resources_of(load(job.entrypoint or "", folder))
    except EntrypointError:
        return None  # the first attempt will say so
