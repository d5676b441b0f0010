"""The configuration page: a study's file, space, sampler, and package versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from tunesvc.client.local.local_alerts import LocalAlerts
from tunesvc.db.alerts import AlertTarget
from tunesvc.db.schema.service_tables import ALERTS
from tunesvc.preview import describe_size, preview
from tunesvc.queries.rows import StudyView
from tunesvc.spec import CategoricalParameter, Parameter, StudySpec
from tunesvc.spec.yaml.document import written
from tunesvc.util.versions import package_versions
from tunesvc.web.access import User, viewable_studies
from tunesvc.web.pages.dependencies import AskedStudy
from tunesvc.web.render import page

router = APIRouter()


@router.get("/studies/{study_id}/configuration", name="configuration_page")
def configuration_page(request: Request, study: AskedStudy) -> HTMLResponse:
    """Render the page."""
    spec = study.spec
    parameters = {} if spec is None else spec.parameters
    return page(
        request,
        "configuration.html",
        study=study,
        text="" if spec is None else study.source_text or written(spec),
        facts=dict(_facts(study)),
        size="" if spec is None else describe_size(spec, preview(spec, samples=0)),
        space=[(name, *_range(parameter)) for name, parameter in parameters.items()],
        versions=package_versions(),
        packages=_packages(study),
        targets=_targets(request, study),
        alert_kinds=ALERTS,
    )


def _targets(request: Request, study: StudyView) -> tuple[AlertTarget, ...] | None:
    """Return the user's alert targets of this study; None without accounts."""
    user: User = request.state.user
    if user.account is None:
        return None
    alerts = LocalAlerts(request.app.state.database, user.name, viewable_studies(request, user))
    return tuple(one for one in alerts.targets() if one.study == study.name)


def _packages(study: StudyView) -> list[str]:
    """Return the packages of the machine that submitted the study, with their versions."""
    packages = study.provenance.get("packages")
    if not isinstance(packages, Mapping):
        return []
    return [f"{name} {version}" for name, version in packages.items()]


def _facts(study: StudyView) -> Iterator[tuple[str, str]]:
    spec = study.spec
    yield "objectives", ", ".join(f"{one.goal} {one.name}" for one in study.objectives)
    if spec is None:
        return
    yield "runs", spec.entrypoint or " ".join(spec.command or ())
    submission = study.submission
    folder = study.source_dir or study.provenance.get("folder")
    yield "folder", str(folder or "–")
    if submission is not None:
        yield "snapshot of the folder", submission.snapshot or "none"
        yield "submitted by", submission.submitted_by
    yield "code", study.origin
    for kind, part in (("sampler", spec.sampler), ("pruner", spec.pruner)):
        yield kind, _named({**part.model_dump(exclude_defaults=True), "name": part.name})
    yield from _rest(spec)


def _rest(spec: StudySpec) -> Iterator[tuple[str, str]]:
    yield "budget", _named(spec.budget.model_dump(exclude_none=True, exclude_defaults=True))
    yield "trials at a time", str(spec.parallelism or "all that fit")
    yield "resources of a trial", _named(spec.resources.model_dump(exclude_none=True))
    bounds = [_bounds(one.metric, one.min, one.max) for one in spec.constraints]
    yield "constraints", ", ".join(bounds)
    yield "seed", "–" if spec.seed is None else str(spec.seed)


def _named(values: dict[str, object]) -> str:
    """Format a name with its non-default options: `gp, startup 10`."""
    name = values.pop("name", None)
    options = [f"{key} {value}" for key, value in values.items() if value not in (None, {}, ())]
    return ", ".join([*([str(name)] if name else []), *options])


def _bounds(name: str, low: float | None, high: float | None) -> str:
    lower = "" if low is None else f"{low:g} ≤ "
    upper = "" if high is None else f" ≤ {high:g}"
    return f"{lower}{name}{upper}"


def _range(one: Parameter) -> tuple[str, str]:
    """Return the kind and the range of a parameter in words."""
    if isinstance(one, CategoricalParameter):
        return "choice", ", ".join(str(value) for value in one.values)
    scale = ", logarithmic" if getattr(one, "log", False) else ""
    step = getattr(one, "step", None)
    steps = f", in steps of {step:g}" if step else ""
    return one.type, f"{one.min:g} … {one.max:g}{scale}{steps}"
