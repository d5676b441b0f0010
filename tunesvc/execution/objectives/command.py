"""`command:`: the objective is a program of any kind.

`${name}` in an argument becomes the parameter's value, and the argument `${--name}` an option: `--name=VALUE`, `--name`
for true, nothing for false (no shell is involved). The program finds in its environment

    TUNE_PARAMS           all parameters as a JSON object
    TUNE_PARAM_<NAME>     each of them, its name in capitals
    TUNE_REPORTS          a named pipe for reports as JSON lines, see `report_pipe`
    TUNE_CHECKPOINT_DIR   a folder of its own for files that it hands over as checkpoints
    TUNE_DIRECTORY        an empty folder of its own for scratch files, removed afterwards
    TUNE_RESTORED         where an earlier attempt's checkpoint lies, if there is one
    TUNE_STUDY, TUNE_TRIAL, TUNE_ATTEMPT, TUNE_SEED, TUNE_METRICS (a JSON array), TUNE_LAST_STEP (of that checkpoint)

A request to stop is SIGTERM to its process group. Imports no Ray.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tunesvc.errors import Pruned
from tunesvc.execution.attempt import supervise
from tunesvc.execution.attempt.attempt import Attempt
from tunesvc.execution.attempt.checkpoints import step_of
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.attempt.report_pipe import LineReports, ReportPipe
from tunesvc.spec import ParamValue
from tunesvc.spec.placeholders import PLACEHOLDER, option_in, parameter_of

_POLL_S = 0.05
_GRACE_S = 5.0
"""From the request to stop until a program that wrote nonsense is killed."""


class ProgramFailed(Exception):
    """The program ended with an error."""


def run_command(attempt: Attempt) -> Mapping[str, float]:
    """Run the job's command for an attempt; returns its final metrics.

    Raises:
        ProgramFailed: it ended with another exit code than 0.
        Pruned: it ended without a result after it was asked to stop.
        BadReport: it wrote a line that is no report.
        EntrypointError: there is no such program, or a `${name}` that is no parameter.
    """
    arguments = substitute(attempt.job.command or (), attempt.launch.params)
    folder = attempt.directory
    checkpoints, scratch = folder / "checkpoints", folder / "scratch"
    checkpoints.mkdir()
    scratch.mkdir()
    reports = LineReports(attempt.trial(), checkpoints, attempt.job.metrics)
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
    _judge(code, arguments[0], attempt, reports.final)
    return reports.final


def _path_with_our_python() -> str:
    """`python` is the one that runs tunesvc, also where its virtual environment is not activated."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def substitute(command: Sequence[str], params: Mapping[str, ParamValue]) -> list[str]:
    """The command with the values of the parameters; `$${` stands for `${`.

    Raises:
        EntrypointError: a name that is no parameter of this trial.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        if match[2] not in params:
            known = ", ".join(params) or "none"
            raise EntrypointError(f"command: {match[0]} is no parameter of this trial (it has: {known})")
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
    """The arguments for an option; none for false, null, and a parameter that does not exist under its `when`."""
    if value is None or value is False:
        return []
    return [f"--{name}" if value is True else f"--{name}={as_text(value)}"]


def as_text(value: ParamValue) -> str:
    """A value as programs read it: `0.1`, `true`, `null`, and text as it is."""
    return value if isinstance(value, str) else json.dumps(value)


def variables(attempt: Attempt) -> dict[str, str]:
    """The environment variables that describe an attempt."""
    launch = attempt.launch
    described = {
        "TUNE_STUDY": attempt.job.study,
        "TUNE_TRIAL": str(launch.trial_number),
        "TUNE_ATTEMPT": str(launch.attempt.number),
        "TUNE_SEED": str(launch.seed),
        "TUNE_PARAMS": json.dumps(dict(launch.params)),
        "TUNE_METRICS": json.dumps(attempt.job.metrics),
        "TUNE_LAST_STEP": str(step_of(Path(launch.checkpoint) if launch.checkpoint else None)),
    }
    if launch.checkpoint:
        described["TUNE_RESTORED"] = launch.checkpoint
    named = {f"TUNE_PARAM_{re.sub(r'[^A-Za-z0-9_]', '_', n).upper()}": as_text(v) for n, v in launch.params.items()}
    return {**named, **described}


def _run(arguments: list[str], environment: Mapping[str, str], attempt: Attempt, pipe: ReportPipe) -> int:
    if shutil.which(arguments[0], path=environment.get("PATH")) is None:
        raise EntrypointError(f"command: there is no program {arguments[0]!r} on the worker's PATH or in its folder")
    watched_end, held_end = os.pipe()
    ours = [str(watched_end), str(attempt.directory)]
    supervisor = [sys.executable, "-I", "-S", supervise.__file__, *ours, *arguments]
    process = subprocess.Popen(
        supervisor, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[watched_end]
    )
    os.close(watched_end)
    try:
        return _follow(process, attempt, pipe)
    finally:
        with suppress(ProcessLookupError):  # nothing that the program started outlives the attempt
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(BrokenPipeError):  # it died before it split its watcher off
            os.write(held_end, supervise.RELEASE)
        os.close(held_end)
        process.wait()


def _follow(process: subprocess.Popen[bytes], attempt: Attempt, pipe: ReportPipe) -> int:
    """Read reports until the program ends; its exit code. The process is left unreaped: its group keeps its number."""
    kill_at_s: float | None = None
    with _exit_watch(process.pid) as watched:
        while (ended := os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None:
            if (attempt.stop_requested or pipe.error) and kill_at_s is None:
                os.killpg(process.pid, signal.SIGTERM)
                kill_at_s = time.monotonic() + _GRACE_S
            if pipe.error and kill_at_s is not None and time.monotonic() >= kill_at_s:
                os.killpg(process.pid, signal.SIGKILL)  # what it reports no longer counts, and nobody else ends it
            select.select([pipe.fileno(), *watched], [], [], _POLL_S)
            pipe.read()
    pipe.finish()
    return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status


@contextmanager
def _exit_watch(pid: int) -> Iterator[list[int]]:
    """A descriptor that `select` finds readable when the process has ended, where the system has such a thing."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        yield []
        return
    try:
        yield [descriptor]
    finally:
        os.close(descriptor)


def _judge(code: int, program: str, attempt: Attempt, final: Mapping[str, float]) -> None:
    if attempt.noticed_stop and not final:
        raise Pruned(f"{program} was asked to stop and ended with exit code {code}")
    if code == supervise.NOT_EXECUTABLE:
        raise EntrypointError(f"command: {program!r} cannot be executed")
    if code != 0:
        signals = {int(s): s.name for s in signal.Signals}
        by = f" ({signals[code - 128]})" if code - 128 in signals else ""
        raise ProgramFailed(f"{program} ended with exit code {code}{by}")
