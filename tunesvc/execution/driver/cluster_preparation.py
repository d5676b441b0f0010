"""Main program of the process that has a study's data prepared on a shared cluster.

A server runs no code of studies, so a task of Ray prepares, in the environment of the study's
workers. Its answer is unpickled here, so that this process gets no secret of the server. Imports
Ray.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from tunesvc.errors import ExecutorError
from tunesvc.execution import preparation_main
from tunesvc.execution.preparation_main import PreparationTask
from tunesvc.spec import Environment

_TAIL_CHARS = 2_000
_VARIABLES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "LD_LIBRARY_PATH"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"),
        *("no_proxy", "NO_PROXY", "grpc_proxy", "http_proxy", "https_proxy"),
        *("HTTP_PROXY", "HTTPS_PROXY"),
    }
)
_PREFIXES = ("RAY_", "LC_")
_OF_STUDIES = frozenset(
    {
        *("TUNE_HOME", "TUNE_ARTIFACTS", "TUNE_DATA_MEMORY", "VIRTUAL_ENV"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    }
)
_PREFIXES_OF_STUDIES = ("LC_", "AWS_", "AZURE_", "GOOGLE_", "GCS_", "S3_", "FSSPEC_")


def needed_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those that this process needs: the system's and Ray's.

    It does not open the artifact store, whose credentials the cluster's nodes have.
    """
    return {
        name: text
        for name, text in variables.items()
        if name in _VARIABLES or name.startswith(_PREFIXES)
    }


def study_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those of a server that code of studies gets where it prepares data.

    These are the system's and those that stores and sources of data need. No database address,
    token or secret of the server.
    """
    return {
        name: text
        for name, text in variables.items()
        if name in _VARIABLES | _OF_STUDIES or name.startswith(_PREFIXES_OF_STUDIES)
    }


@dataclass(frozen=True, slots=True)
class ClusterPreparation:
    """The first message to the process, with the path of a file for the task's output."""

    task: PreparationTask
    address: str | None
    """The cluster; RAY_ADDRESS by default."""
    environment: Environment
    is_snapshot: bool
    """True if the cluster gets every file of the study's folder."""


def main(descriptor: int) -> None:
    """Do the task that arrives at a descriptor, and answer as `preparation_main`."""
    connection = Connection(descriptor)
    message: tuple[ClusterPreparation, Path] = connection.recv()
    asked, output = message

    def answer(**message: str) -> None:
        connection.send_bytes(json.dumps(message).encode())

    answer(doing="preparing data on the cluster")
    try:
        answer(**_run(asked, output))
    except ExecutorError as error:
        answer(failure=str(error))


def _run(asked: ClusterPreparation, output: Path) -> dict[str, str]:
    import ray
    from ray.exceptions import RayError

    from tunesvc.execution.ray.cluster_connection import connect
    from tunesvc.execution.ray.runtime_env import RuntimeEnv

    with closing(connect(asked.address)):
        folder = str(asked.task.folder)
        environment = RuntimeEnv(asked.environment, folder, is_snapshot=asked.is_snapshot)
        # The task changes its process, which so has to end with it.
        remote = ray.remote(
            num_cpus=1,
            max_calls=1,
            max_retries=2,
            runtime_env=environment.as_ray() or {},
        )(_prepare_there)
        try:
            answer, printed = ray.get(remote.remote(asked.task))
        except RayError as error:
            reason = " ".join(str(error).split())
            return {"failure": f"the task that prepares it on the cluster failed: {reason}"}
    output.write_text(printed)
    return dict(answer)


def _prepare_there(task: PreparationTask) -> tuple[dict[str, str], str]:
    """Prepare in a process of the cluster; return the answer and the end of the output."""
    here = replace(task, folder=Path.cwd())
    with tempfile.TemporaryDirectory(prefix="tunesvc-data-") as scratch:
        output = Path(scratch, "output")
        answer = preparation_main.run(here, output, lambda text: None)
        return answer, output.read_text("utf-8", "replace")[-_TAIL_CHARS:]
