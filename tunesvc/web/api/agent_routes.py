"""Routes of agents, and of programs and people that ask for one trial at a time.

A request that waits for a trial takes no thread meanwhile. A lost lease is answered with 409.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote

from anyio import from_thread
from fastapi import APIRouter, Body, Depends, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from tunesvc.artifacts.artifact_store import ArtifactStore
from tunesvc.client.wire_format import encode
from tunesvc.db.agents.agent_leases import is_new
from tunesvc.db.agents.agent_messages import (
    AgentEvent,
    AgentOrders,
    AgentPoll,
    AskedTrial,
    LeaseStatus,
)
from tunesvc.errors import LeaseRefused, TuneError
from tunesvc.execution.agents.agent_desk import AgentDesk
from tunesvc.execution.executor import Failed, Finished, Outcome, StoppedEarly
from tunesvc.web.access import Permission, User, may
from tunesvc.web.api.api_requests import Body as RawBody
from tunesvc.web.api.api_requests import Key
from tunesvc.web.api.idempotency import await_once
from tunesvc.web.live.launch_wakeups import RECHECK_S, LaunchWakeups

router = APIRouter(prefix="/studies/{study}", tags=["agents"])

WAIT_MAX_S = 60.0
LEASE_MAX_S = 7 * 86_400.0
CHECKPOINT_MAX = 2**50
"""Most bytes of a checkpoint: as many as the disk holds."""
TAR = "application/x-tar"
BYTES = "application/octet-stream"

Wait = Annotated[
    float, Query(ge=0, le=WAIT_MAX_S, description="Longest wait for something new, in seconds.")
]
Token = Annotated[int, Path(ge=1, lt=2**63, description="Token of the lease.")]


@dataclass(frozen=True, slots=True)
class Working:
    """A request of someone who runs trials of a study."""

    request: Request
    user: User
    study_id: int
    desk: AgentDesk

    def answer(self, value: object, status: int = 200) -> Response:
        """Return a value as JSON."""
        return Response(encode(value), status, media_type="application/json")


def _working(request: Request, user: Annotated[User, Depends(may(Permission.WORK))]) -> Working:
    return Working(request, user, request.state.study_id, AgentDesk(request.app.state.database))


Worker = Annotated[Working, Depends(_working)]


def _leasing(asked: Worker, token: Token) -> Working:
    if asked.desk.leases.study_of_lease(token) != asked.study_id:
        raise LeaseRefused(f"this study has no lease {token}: ask for another trial")
    return asked


def _of_agent(asked: Worker, agent: Annotated[int, Path(ge=1, lt=2**63)]) -> Working:
    if asked.desk.leases.study_of(agent) != asked.study_id:
        raise LeaseRefused(f"this study has no agent {agent}: start another")
    return asked


Leasing = Annotated[Working, Depends(_leasing)]
OfAgent = Annotated[Working, Depends(_of_agent)]


# --- agents ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AgentBody:
    """An agent that starts."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    total: Annotated[
        dict[str, Annotated[float, Field(ge=0, le=2**60, allow_inf_nan=False)]],
        Field(min_length=1, max_length=100),
    ]
    """Its resources, by Ray's names: `CPU`, `GPU`."""


@router.post("/agents", status_code=201, response_model=int)
def add_agent(asked: Worker, body: AgentBody) -> Response:
    """Add an agent, and return its id."""
    leases = asked.desk.leases
    agent_id = leases.register(asked.study_id, body.name, asked.user.name, body.total)
    return asked.answer(agent_id, 201)


@router.post("/agents/{agent}/poll", response_model=AgentOrders)
async def poll_agent(asked: OfAgent, agent: int, body: AgentPoll, wait: Wait = 0.0) -> Response:
    """Renew an agent's leases, and wait for launches and requests to stop."""

    def poll() -> AgentOrders:
        return asked.desk.poll(agent, body)

    def takes(orders: AgentOrders) -> bool:
        has_job = body.job != ""
        return not has_job or (body.takes and body.slots > len(orders.held))

    orders = await _await_new(
        asked, agent, poll, lambda orders: is_new(orders, body.held), takes, wait
    )
    return asked.answer(orders)


@router.post("/agents/{agent}/end", status_code=204)
def end_agent(
    asked: OfAgent, agent: int, reason: Annotated[str, Body(max_length=1_000, embed=True)] = ""
) -> Response:
    """End an agent. Its leases are lost at once."""
    asked.desk.leases.end(agent, reason)
    return Response(status_code=204)


@router.post("/attempts/{token}/events", response_model=LeaseStatus, max_body_size=100_000_000)
def send_events(asked: Leasing, token: int, body: list[AgentEvent]) -> Response:
    """Store events of an agent's attempt, each once."""
    return asked.answer(asked.desk.send(token, body))


@router.get(
    "/snapshot",
    response_class=StreamingResponse,
    responses={200: {"content": {TAR: {}}}, 204: {"description": "It has no snapshot."}},
)
def load_snapshot(asked: Worker) -> Response:
    """Return the archive of the folder that a study was submitted with; 204 if it has none."""
    digest = asked.desk.leases.snapshot_of(asked.study_id)
    if digest is None:
        return Response(status_code=204)
    return StreamingResponse(ArtifactStore.open().read(digest), media_type=TAR)


@router.get(
    "/data/{digest}",
    response_class=StreamingResponse,
    responses={200: {"content": {BYTES: {}}}},
)
def load_data(asked: Worker, digest: Annotated[str, Path(pattern="^[0-9a-f]{64}$")]) -> Response:
    """Return a part of the study's prepared data, an Arrow file."""
    return StreamingResponse(asked.desk.data(asked.study_id, digest), media_type=BYTES)


# --- one trial at a time --------------------------------------------------------------------------


@router.post(
    "/ask", response_model=AskedTrial, responses={204: {"description": "No trial is there yet."}}
)
async def ask(
    asked: Worker,
    wait: Wait = 0.0,
    lease: Annotated[
        float, Query(ge=1, le=LEASE_MAX_S, description="Seconds without a heartbeat or report.")
    ] = 600.0,
    name: Annotated[str, Query(max_length=200, description="Who runs the trial.")] = "",
    body: RawBody = b"",
    key: Key = None,
) -> Response:
    """Lease the next trial of a study; 204 if there is none within the wait."""
    return await await_once(
        asked.request,
        asked.user.name,
        body,
        lambda: _ask(asked, wait, lease, name or asked.user.name),
    )


async def _ask(asked: Working, wait: float, lease: float, name: str) -> Response:
    leases = asked.desk.leases
    agent = await run_in_threadpool(leases.register, asked.study_id, name, asked.user.name)

    def poll() -> AgentOrders:
        return asked.desk.poll(agent, AgentPoll(slots=1, job=None), lease)

    try:
        orders = await _await_new(
            asked,
            agent,
            poll,
            lambda orders: orders.launches or orders.state in _ENDED,
            lambda _: True,
            wait,
        )
        if not orders.launches:
            return _no_trial(orders.state)
        trial = await run_in_threadpool(asked.desk.begin, orders.launches[0], name)
    finally:
        await run_in_threadpool(leases.forget, agent)
    return asked.answer(trial)


_ENDED = ("finished", "stopped", "failed")


def _no_trial(state: str) -> Response:
    if state in _ENDED:
        raise LeaseRefused(f"the study is {state}: it has no more trials")
    return Response(status_code=204)


@router.post("/attempts/{token}/heartbeat", response_model=LeaseStatus)
def send_heartbeat(asked: Leasing, token: int) -> Response:
    """Renew a lease. `stop` in the answer asks the attempt to stop."""
    return asked.answer(asked.desk.leases.heartbeat(token))


@dataclass(frozen=True, slots=True)
class ReportBody:
    """Metrics after a step of training."""

    step: Annotated[int, Field(ge=0, lt=2**63)]
    metrics: Annotated[dict[str, float], Field(max_length=1_000)]


_REPORTS: Any = {"after an epoch": {"value": {"step": 3, "metrics": {"loss": 0.42}}}}


@router.post("/attempts/{token}/report", response_model=LeaseStatus)
def send_report(
    asked: Leasing, token: int, body: Annotated[ReportBody, Body(openapi_examples=_REPORTS)]
) -> Response:
    """Report metrics and renew the lease. `stop` in the answer asks the attempt to stop."""
    return asked.answer(asked.desk.report(token, body.step, body.metrics))


@dataclass(frozen=True, slots=True)
class TellBody:
    """The outcome of an attempt."""

    state: Literal["complete", "pruned", "failed"] = "complete"
    values: float | list[float] | dict[str, float] | None = None
    """The objectives: one number, one for each, or by name. The last reports if left out."""
    message: Annotated[str, Field(max_length=4_000)] = ""
    """Reason of the failure."""


_TELLS: Any = {
    "a result": {"value": {"values": 0.42}},
    "by name": {"value": {"values": {"loss": 0.42, "latency": 3.5}}},
    "it stopped as it was asked": {"value": {"state": "pruned"}},
    "it failed": {"value": {"state": "failed", "message": "out of flour"}},
}


@router.post("/attempts/{token}/tell", response_model=LeaseStatus)
def tell(
    asked: Leasing, token: int, body: Annotated[TellBody, Body(openapi_examples=_TELLS)]
) -> Response:
    """Tell the outcome of an attempt, which ends its lease."""
    return asked.answer(asked.desk.tell(token, _outcome(asked, token, body)))


def _outcome(asked: Working, token: int, body: TellBody) -> Outcome:
    if body.state == "failed":
        return Failed("error", body.message or "it was told to have failed")
    if body.state == "pruned":
        return StoppedEarly()
    if body.values is None or isinstance(body.values, dict):
        return Finished(body.values or {})
    values = body.values if isinstance(body.values, list) else [body.values]
    names = asked.desk.metrics_of(token)
    if len(values) != len(names):
        raise TuneError(f"{len(values)} values were told of {len(names)}: {', '.join(names)}")
    return Finished(dict(zip(names, values, strict=True)))


# --- checkpoints ----------------------------------------------------------------------------------


@router.put("/attempts/{token}/checkpoint", response_model=str, max_body_size=CHECKPOINT_MAX)
async def save_checkpoint(
    asked: Leasing,
    request: Request,
    token: int,
    name: Annotated[str, Query(max_length=200, description="Name of the file.")] = "checkpoint",
    step: Annotated[int | None, Query(ge=0, lt=2**63, description="The last report.")] = None,
) -> Response:
    """Store the body as the checkpoint after a step.

    An agent sends an archive (`application/x-tar`) and the checkpoint's name, and gets its path.
    """
    if request.headers.get("content-type") == TAR:
        path = await run_in_threadpool(asked.desk.upload, token, name, _chunks(request))
        return asked.answer(path)
    await run_in_threadpool(asked.desk.save_file, token, step, name, _chunks(request))
    return asked.answer("")


@router.get("/attempts/{token}/checkpoint")
def load_checkpoint(asked: Leasing, request: Request, token: int) -> Response:
    """Return the checkpoint that an attempt continues from; 204 if there is none.

    A folder is an archive, as is everything for a client that accepts `application/x-tar`.
    """
    found = asked.desk.restored(token)
    if found is None:
        return Response(status_code=204)
    if found.content is not None and request.headers.get("accept") != TAR:
        headers = {"Content-Disposition": f"attachment; filename*=utf-8''{quote(found.name)}"}
        return StreamingResponse(found.content(), headers=headers, media_type=BYTES)
    headers = {"X-Checkpoint": found.checkpoint}
    return StreamingResponse(found.archive(), headers=headers, media_type=TAR)


# --- waiting --------------------------------------------------------------------------------------


async def _await_new(
    asked: Working,
    agent_id: int,
    poll: Callable[[], AgentOrders],
    is_new: Callable[[AgentOrders], object],
    takes: Callable[[AgentOrders], bool],
    wait_s: float,
) -> AgentOrders:
    """Poll until there is something new, or the wait is over, or the client has gone.

    `takes`: whether the agent could take a launch.
    """
    state, deadline_s = asked.request.app.state, time.monotonic() + wait_s
    if not hasattr(state, "wakeups"):
        state.wakeups = LaunchWakeups(state.database)
    wakeups: LaunchWakeups = state.wakeups
    with wakeups.watch(asked.study_id, agent_id) as waiter:
        while True:
            waiter.clear()
            orders = await run_in_threadpool(poll)
            if orders.launches:
                wakeups.wake_takers(asked.study_id)  # there may be more
            left_s = deadline_s - time.monotonic()
            if is_new(orders) or left_s <= 0 or state.hub.is_closed:
                return orders
            waiter.takes_launches = takes(orders)
            await waiter.wait(min(left_s, RECHECK_S))
            if await asked.request.is_disconnected():
                return orders


def _chunks(request: Request) -> Iterator[bytes]:
    """Yield the body, in a thread, as it arrives."""
    stream = request.stream()

    async def next_chunk() -> bytes | None:
        return await anext(stream, None)

    while (chunk := from_thread.run(next_chunk)) is not None:
        yield chunk
