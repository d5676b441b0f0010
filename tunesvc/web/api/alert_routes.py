"""Routes of the user's own alert targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Request
from fastapi.responses import Response

from tunesvc.client.alert_operations import AlertOperations
from tunesvc.client.local.local_alerts import LocalAlerts
from tunesvc.db.alerts import AlertTarget
from tunesvc.web.access import AccountUser, viewable_studies
from tunesvc.web.api.api_requests import unstored_answer

router = APIRouter(tags=["alerts"])


@dataclass(frozen=True, slots=True)
class AlertBody:
    """A target to add."""

    url: str
    """Address as Apprise reads it."""
    study: str | None = None
    """None for all studies that the user submits."""
    kinds: list[str] = field(default_factory=list)
    """All by default."""


def _own(request: Request, user: AccountUser) -> AlertOperations:
    return LocalAlerts(request.app.state.database, user.name, viewable_studies(request, user))


Own = Annotated[AlertOperations, Depends(_own)]
TargetId = Annotated[int, Path(ge=0, lt=2**63)]


@router.get("/alerts", response_model=tuple[AlertTarget, ...])
def list_targets(own: Own) -> Response:
    """List the user's targets, without the secrets in their addresses."""
    return unstored_answer(own.targets())


@router.post("/alerts", response_model=int, status_code=201)
def add_target(own: Own, body: Annotated[AlertBody, Body()]) -> Response:
    """Add a target; return its id."""
    return unstored_answer(own.add(body.url, study=body.study, kinds=body.kinds), 201)


@router.delete("/alerts/{target_id}", response_model=None)
def remove_target(own: Own, target_id: TargetId) -> Response:
    """Remove a target."""
    own.remove(target_id)
    return unstored_answer(None)


@router.post("/alerts/{target_id}/test", response_model=str)
def send_test(own: Own, target_id: TargetId) -> Response:
    """Send a test message; return the error, empty if there is none."""
    return unstored_answer(own.test(target_id))
