"""The environment of a study's processes on a cluster: its folder, variables and packages.

Imports Ray.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from tunesvc.errors import ExecutorError
from tunesvc.execution import ray_internals
from tunesvc.spec import Environment


class RuntimeEnv:
    """A runtime environment of Ray, whose working directory is a copy of the user's."""

    def __init__(
        self,
        environment: Environment,
        folder: str | None,
        *,
        is_snapshot: bool = False,
    ) -> None:
        """Give the cluster a copy of the user's directory.

        One driver may so serve jobs of many directories.

        Args:
            environment: variables and packages.
            folder: the user's directory; None if processes start in one that they can read.
            is_snapshot: True to copy every file.

        Raises:
            ExecutorError: the cluster cannot take it.
        """
        self._environment = environment
        self._folder = folder
        self._is_snapshot = is_snapshot
        self._package = None if folder is None else self._upload(folder)

    def as_ray(self) -> dict[str, Any] | None:
        """Return the options for Ray; None if there are none."""
        options: dict[str, Any] = {}
        if self._package is not None and self._folder is not None:
            # Each time, because the cluster forgets a copy that no worker has used for a while.
            with suppress(Exception):  # its head is away: the worker's start shows it
                ray_internals.upload_package(self._package, self._folder, whole=self._is_snapshot)
            options["working_dir"] = self._package
        if self._environment.env:
            options["env_vars"] = dict(self._environment.env)
        if self._environment.pip:
            options["pip"] = list(self._environment.pip)
        return options or None

    def _upload(self, folder: str) -> str:
        try:
            address: str = ray_internals.package_of(folder, whole=self._is_snapshot)
            ray_internals.upload_package(address, folder, whole=self._is_snapshot)
        except Exception as error:  # Ray has no class for it
            reason = " ".join(str(error).split())
            raise ExecutorError(
                f"the folder {folder} cannot be copied to the cluster: {reason}. Name what its "
                "workers do not need in .gitignore, or for `tune submit` in .tuneignore"
            ) from error
        return address
