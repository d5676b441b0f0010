"""Runs a job's objective in this process, for one attempt after the other.

Imports no Ray.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from tunesvc.execution.attempt.attempt import Attempt, Run
from tunesvc.execution.attempt.block_runner import run_blocks
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.executor import Job, Outcome
from tunesvc.execution.objectives import adapters
from tunesvc.execution.objectives.command import run_command
from tunesvc.execution.objectives.entrypoint import Objective, load
from tunesvc.execution.objectives.pickled_function import unpickle_function
from tunesvc.execution.objectives.script_environment import imitate_interpreter
from tunesvc.execution.objectives.source_digest import digest_of


class ObjectiveRunner:
    """The objective of a job in this process, which it makes look like the user's."""

    def __init__(self, job: Job, folder: Path, *, is_copy: bool) -> None:
        """Set up the interpreter.

        Args:
            job: names the objective.
            folder: the user's directory on this node.
            is_copy: True if the folder is a copy from another machine.
        """
        self._job = job
        self._folder = folder
        is_shared = job.command is not None or job.environment.isolation != "process"
        self.leaves_process_clean = is_shared and job.resources.workers == 1
        """True if another attempt may follow one that has left no thread behind.

        A gang ends with its trial, and with it all processes that the objective has started there.
        """
        imitate_interpreter(job, folder, is_copy=is_copy)

    def __call__(self, attempt: Attempt) -> Outcome:
        """Run the objective in this thread, and return the outcome."""
        return attempt.outcome(self._run)

    def source_digest(self) -> str:
        """Return the digest of the code that the next attempt runs.

        Programs are read for each attempt; a module stays as it was when this process imported it.
        """
        if self._job.command:
            return digest_of(self._job, self._folder)
        return self._imported_digest

    def _run(self, attempt: Attempt) -> Mapping[str, float]:
        try:
            os.chdir(self._folder)  # the previous attempt may have changed it
        except OSError as error:
            text = f"the study's folder {self._folder} is not there: {error.strerror}"
            raise EntrypointError(text) from None
        return dict(run_blocks(self._call, attempt))

    @cached_property
    def _call(self) -> Run:
        """Function that runs the objective.

        Created in the first attempt, so that a failing import is its failure.
        """
        if self._job.command:
            return run_command
        run = adapters.prepare(self._load(), is_scored=bool(self._job.scoring))
        # What the imports made stays for good: a collection after each attempt need not look at
        # it, and takes a millisecond instead of thirty.
        gc.freeze()
        return run

    @cached_property
    def _imported_digest(self) -> str:
        return digest_of(self._job, self._folder)

    def _load(self) -> Objective:
        if self._job.entrypoint is not None:
            return load(self._job.entrypoint, self._folder)
        return unpickle_function(self._job.function or b"")
