"""The command that runs trials for a server on this machine: agent."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from tunesvc.cli.chosen_client import chosen_server
from tunesvc.cli.cli_options import Quiet, StudyName
from tunesvc.cli.exits import ExitCode

if TYPE_CHECKING:
    from tunesvc.execution.agents.agent import Agent


def agent(
    study: StudyName,
    server: Annotated[
        str | None,
        typer.Option(
            envvar="TUNE_SERVER",
            show_envvar=True,
            show_default=False,
            help="Address of the server; by default that of `tune login`. TUNE_TOKEN is a token.",
        ),
    ] = None,
    cpus: Annotated[
        float | None,
        typer.Option(min=0.01, help="CPUs for trials; all of this machine by default."),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=0, help="GPUs for trials; all that this process may use by default."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="The study's folder; what it was submitted with by default.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End after one trial.")] = False,
    max_idle: Annotated[
        float | None, typer.Option(min=0, help="End after so many seconds without a trial.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Its name for others; host and process by default.")
    ] = None,
    allow_functions: Annotated[
        bool,
        typer.Option(
            "--allow-functions",
            help="Run objectives that Python has pickled: only if you trust who may submit.",
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Run trials of a study on this machine, which needs no Ray and no open port.

    The study has `agents: only` or `agents: also`. Start as many agents as you like, wherever the
    server can be reached: in a SLURM array, a Kubernetes job, on a workstation. An agent ends with
    the study. SIGTERM or Ctrl-C ends it at once, and its trials are run again elsewhere.
    """
    from tunesvc.client.remote.http_agents import HttpAgentServer
    from tunesvc.execution.agents.agent import Agent, AgentOptions
    from tunesvc.execution.driver.machine_claims import Machine

    machine = Machine.here()
    options = AgentOptions(
        name=name or f"{socket.gethostname()}:{os.getpid()}",
        cpus=machine.cpus if cpus is None else cpus,
        gpus=_devices(machine.gpus, gpus),
        folder=folder,
        once=once,
        max_idle_s=max_idle,
        allows_functions=allow_functions,
    )
    say = _silent if quiet else _say
    running = Agent(HttpAgentServer(*_login(server), study), options, say)
    with _signals(running):
        say(f"agent {options.name} ends: {running.run()}")


def _login(server: str | None) -> tuple[str, str | None]:
    """Return address and token of the server."""
    from tunesvc.client.stored_login import load_login

    server = chosen_server(server)
    if server is None:
        raise typer.BadParameter("an agent needs a server: `--server URL`, or `tune login URL`")
    token = os.environ.get("TUNE_TOKEN") or load_login().tokens.get(server.rstrip("/"))
    return server, token


def _devices(available: tuple[str, ...], count: int | None) -> tuple[str, ...]:
    if count is not None and count > len(available):
        raise typer.BadParameter(f"--gpus {count}: this process may use {len(available)}")
    return available[:count]


def _say(text: str) -> None:
    from tunesvc.views.terminal import out

    out().print(text, markup=False, highlight=False, soft_wrap=True)


def _silent(_: str) -> None:
    return


@contextmanager
def _signals(agent: Agent) -> Iterator[None]:
    """End the agent at the first Ctrl-C or SIGTERM, and this process at the second."""

    def end(number: int, _frame: FrameType | None) -> None:
        if agent.is_ending:
            os._exit(ExitCode.INTERRUPTED)
        agent.end(f"it got {signal.Signals(number).name}")

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
