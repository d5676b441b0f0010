"""Routes of requests to a study."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body
from fastapi.responses import Response

from tunesvc.queries.rows import RequestRow, RowPage
from tunesvc.web.api.api_requests import After, Limit, SteeringStudy, ViewingStudy

router = APIRouter(prefix="/studies/{study}/commands", tags=["commands"])

Kind = Literal[
    "pause",
    "resume",
    "stop",
    "extend",
    "parallelism",
    "widen",
    "enqueue",
    "retry",
    "stop_trial",
    "promote",
    "rollback",
]


@dataclass(frozen=True, slots=True)
class CommandBody:
    """A request to a study."""

    kind: Kind
    payload: dict[str, Any] = field(default_factory=dict)
    """`extend`: `trials`, `wall` in seconds, `gpu_hours` or `cost`, by how much. `parallelism`:
    `trials`. `widen`: `parameters`. `enqueue`: `params` by name, or `near`, a trial. `retry` and
    `stop_trial`: `number` of a trial. `promote`: `number`, `family`, `reason`. `rollback`:
    `champion`, `family`, `reason`."""


_EXAMPLES: Any = {
    "more trials": {"value": {"kind": "extend", "payload": {"trials": 20}}},
    "a wider range": {"value": {"kind": "widen", "payload": {"parameters": {"lr": {"min": 1e-6}}}}},
    "stop": {"value": {"kind": "stop"}},
}


@router.post("", response_model=str)
def send_command(
    asked: SteeringStudy,
    body: Annotated[CommandBody, Body(openapi_examples=_EXAMPLES)],
) -> Response:
    """Send a request to a study, and return its answer, a sentence."""
    commands = asked.client.commands
    return asked.carry_out(lambda: commands.send(asked.study, body.kind, body.payload))


@router.get("", response_model=RowPage[RequestRow])
def list_commands(asked: ViewingStudy, after: After = "", limit: Limit = 100) -> Response:
    """List the requests to a study with their answers, the newest first."""
    return asked.answer(asked.client.commands.page(asked.study, after=after, limit=limit))
