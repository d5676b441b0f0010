"""Runs the program of a study with `command:` as the objective.

`${name}` in an argument becomes the parameter's value. The argument `${--name}` becomes an option:
`--name=VALUE`, `--name` for true, nothing for false. No shell is involved. The program's
environment contains

    TUNE_PARAMS           all parameters as a JSON object
    TUNE_PARAM_<NAME>     each parameter, its name in capitals
    TUNE_REPORTS          a named pipe for reports as JSON lines, see `report_pipe`
    TUNE_CHECKPOINT_DIR   a folder for files that the program hands over as checkpoints
    TUNE_DIRECTORY        an empty folder for scratch files, removed at the end
    TUNE_RESTORED         path of an earlier attempt's checkpoint, if there is one
    TUNE_LAST_STEP        the step of that checkpoint
    TUNE_DATA             folder of the prepared data: train.arrow and validation.arrow
    TUNE_FOLD             number of the fold or repeat; with several, the program runs once for each
    TUNE_METRICS          the names of the metrics as a JSON array
    TUNE_STUDY, TUNE_TRIAL, TUNE_ATTEMPT, TUNE_SEED

A request to stop is SIGTERM to the program's process group. Imports no Ray.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from tunesvc.data.prepared_data import FOLD_FOLDER
from tunesvc.data.trial_data import FOLDER_VARIABLE
from tunesvc.errors import Pruned
from tunesvc.execution.attempt.attempt import Attempt
from tunesvc.execution.attempt.checkpoints import step_of
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.attempt.report_pipe import LineReports, ReportPipe
from tunesvc.execution.supervision import supervise
from tunesvc.execution.supervision.supervised_process import (
    exit_code,
    exit_watch,
    signal_name,
    supervised,
)
from tunesvc.spec import ParamValue
from tunesvc.spec.placeholders import PLACEHOLDER, option_in, parameter_of

_POLL_S = 0.05
_GRACE_S = 5.0
"""Time from SIGTERM to SIGKILL for a program that wrote an invalid report."""


class ProgramFailed(Exception):
    """The program ended with an error."""


def run_command(attempt: Attempt) -> Mapping[str, float]:
    """Run the job's command for an attempt and return its final metrics.

    Raises:
        ProgramFailed: its exit code is not 0.
        Pruned: it ended without a result after it was asked to stop.
        BadReport: it wrote a line that is not a report.
        EntrypointError: the program does not exist, or a `${name}` is not a parameter.
    """
    arguments = substitute(attempt.job.command or (), attempt.launch.params)
    folder = attempt.directory
    if attempt.is_stepwise:
        folder /= f"{attempt.trial().fold}"
    checkpoints, scratch = folder / "checkpoints", folder / "scratch"
    checkpoints.mkdir(parents=True)
    scratch.mkdir()
    trial, metrics = attempt.trial(), attempt.job.metrics
    reports = LineReports(trial, checkpoints, metrics, is_one_step=attempt.is_stepwise)
    with closing(ReportPipe(folder / "reports", reports)) as pipe:
        environment = {
            **os.environ,
            "PATH": _path_with_our_python(),
            **variables(attempt),
            "TUNE_REPORTS": str(folder / "reports"),
            "TUNE_CHECKPOINT_DIR": str(checkpoints),
            "TUNE_DIRECTORY": str(scratch),
        }
        code = _run(arguments, environment, attempt, pipe)
    if pipe.error:
        raise pipe.error
    _check_exit(code, arguments[0], attempt, reports.final)
    return reports.final


def _path_with_our_python() -> str:
    """Return a PATH on which `python` is this interpreter.

    Its virtual environment need not be activated.
    """
    path = os.environ.get("PATH", os.defpath)
    return os.pathsep.join([str(Path(sys.executable).parent), path])


def substitute(command: Sequence[str], params: Mapping[str, ParamValue]) -> list[str]:
    """Return the command with the parameters' values. `$${` stands for `${`.

    Raises:
        EntrypointError: a name is not a parameter of this trial.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        if match[2] not in params:
            known = ", ".join(params) or "none"
            text = f"command: {match[0]} is no parameter of this trial (it has: {known})"
            raise EntrypointError(text)
        return as_text(params[match[2]])

    arguments: list[str] = []
    for argument in command:
        option = option_in(argument, params)
        if option is None:
            arguments.append(PLACEHOLDER.sub(value, argument))
        else:
            arguments += _option(option, params.get(parameter_of(option, params)))
    return arguments


def _option(name: str, value: ParamValue) -> list[str]:
    """Return the arguments for an option.

    None for false, null, and a parameter that its `when` excludes.
    """
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{name}"]
    return [f"--{name}={as_text(value)}"]


def as_text(value: ParamValue) -> str:
    """Format a value for programs: `0.1`, `true`, `null`, and text unchanged."""
    return value if isinstance(value, str) else json.dumps(value)


def variables(attempt: Attempt) -> dict[str, str]:
    """Return the environment variables that describe an attempt."""
    launch, trial = attempt.launch, attempt.trial()
    described = {
        "TUNE_STUDY": attempt.job.study,
        "TUNE_TRIAL": str(launch.trial_number),
        "TUNE_ATTEMPT": str(launch.attempt.number),
        "TUNE_SEED": str(trial.seed),
        "TUNE_PARAMS": json.dumps(dict(launch.params)),
        "TUNE_METRICS": json.dumps(attempt.job.metrics),
        "TUNE_LAST_STEP": str(
            step_of(Path(launch.checkpoint) if launch.checkpoint else None),
        ),
    }
    if launch.checkpoint:
        described["TUNE_RESTORED"] = launch.checkpoint
    if trial.fold is not None:
        described["TUNE_FOLD"] = str(trial.fold)
    if attempt.is_folded and (data := os.environ.get(FOLDER_VARIABLE)):
        described[FOLDER_VARIABLE] = str(Path(data, f"{FOLD_FOLDER}{trial.fold}"))
    named = {}
    for name, value in launch.params.items():
        suffix = re.sub(r"[^A-Za-z0-9_]", "_", name).upper()
        named[f"TUNE_PARAM_{suffix}"] = as_text(value)
    return {**named, **described}


def _run(
    arguments: list[str],
    environment: Mapping[str, str],
    attempt: Attempt,
    pipe: ReportPipe,
) -> int:
    if shutil.which(arguments[0], path=environment.get("PATH")) is None:
        raise EntrypointError(
            f"command: there is no program {arguments[0]!r} on the worker's PATH or in its folder",
        )
    with supervised(arguments, environment, attempt.directory) as process:
        return _follow(process, attempt, pipe)


def _follow(
    process: subprocess.Popen[bytes],
    attempt: Attempt,
    pipe: ReportPipe,
) -> int:
    """Read reports until the program ends, and return its exit code."""
    kill_at_s: float | None = None
    with exit_watch(process) as watched:
        while (code := exit_code(process)) is None:
            if (attempt.stop_requested or pipe.error) and kill_at_s is None:
                os.killpg(process.pid, signal.SIGTERM)
                kill_at_s = time.monotonic() + _GRACE_S
            if pipe.error and kill_at_s is not None and time.monotonic() >= kill_at_s:
                # Its reports no longer count. (After a stop request the coordinator kills it.)
                os.killpg(process.pid, signal.SIGKILL)
            select.select([pipe.fileno(), *watched], [], [], _POLL_S)
            pipe.read()
    pipe.finish()
    return code


def _check_exit(
    code: int,
    program: str,
    attempt: Attempt,
    final: Mapping[str, float],
) -> None:
    if attempt.noticed_stop and not final:
        raise Pruned(f"{program} was asked to stop and ended with exit code {code}")
    if code == supervise.NOT_EXECUTABLE:
        raise EntrypointError(f"command: {program!r} cannot be executed")
    if code != 0:
        name = signal_name(code)
        suffix = f" ({name})" if name else ""
        raise ProgramFailed(f"{program} ended with exit code {code}{suffix}")
