"""The health page of a study: findings with advice, and checks without findings."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from tunesvc.queries.health import Action, health
from tunesvc.web.access import Permission, Viewer
from tunesvc.web.pages.figures import AskedFresh
from tunesvc.web.render import page, wants_fragment

router = APIRouter()


@router.get("/studies/{study_id}/health", name="health_page")
def health_page(request: Request, user: Viewer, source: AskedFresh) -> HTMLResponse:
    """Render the page; for htmx, only the checks."""
    study = source.view
    key = ("health", study.study_id)
    database = request.app.state.database
    examined = source.cache.get(
        key,
        source.stamp,
        lambda _: health(database, study),
        is_final=source.is_final,
    )
    return page(
        request,
        "health_checks.html" if wants_fragment(request) else "health.html",
        study=study,
        health=examined.value,
        fresh_in_s=examined.fresh_in_s,
        can_act=request.app.state.access.allows(
            user,
            Permission.STEER,
            study.study_id,
        ),
        fields=lambda action: list(_fields(action)),
    )


def _fields(action: Action) -> Iterator[tuple[str, str]]:
    """Yield the form fields of an action."""
    match action.kind:
        case "parallelism":
            yield "trials", str(action.payload["trials"])
        case "extend":
            for name, more in action.payload.items():
                yield name, f"{more:g}s" if name == "wall" else f"{more:g}"
        case "widen":
            for name, ends in action.payload["parameters"].items():
                yield "name", name
                yield "low", str(ends.get("min", ""))
                yield "high", str(ends.get("max", ""))
