"""Whether a study is well: what its checks found, what to do about it, and what they looked at in vain."""

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
    """The page, or the checks alone when htmx asks for them."""
    study = source.view
    key, database = ("health", study.study_id), request.app.state.database
    examined = source.kept.get(
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
        can_act=request.app.state.access.allows(user, Permission.STEER, study.study_id),
        fields=lambda action: list(_fields(action)),
    )


def _fields(action: Action) -> Iterator[tuple[str, str]]:
    """An action as its form has it."""
    match action.kind:
        case "parallelism":
            yield "trials", str(action.payload["trials"])
        case "extend":
            yield from (
                (name, f"{more:g}s" if name == "wall" else f"{more:g}") for name, more in action.payload.items()
            )
        case "widen":
            for name, ends in action.payload["parameters"].items():
                yield from (
                    ("name", name),
                    ("low", str(ends.get("min", ""))),
                    ("high", str(ends.get("max", ""))),
                )
