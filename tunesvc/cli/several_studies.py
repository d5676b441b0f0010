"""Study files and studies that one command runs together: reading them and checking that they
fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesvc.errors import SpecError
from tunesvc.spec.yaml.document import StudyDocument, load, scheduled


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """Values from the command line that override a study file."""

    trials: int | None = None
    parallelism: int | None = None
    name: str | None = None
    seed: int | None = None
    schedule: Path | None = None
    """File with the `search` of a schedule."""


@dataclasses.dataclass(frozen=True, slots=True)
class StudyLocation:
    """Cluster of a study."""

    label: str
    """Name that the user gave for it."""
    name: str
    cluster: str | None


def read_all(files: Sequence[Path], changes: Changes) -> list[StudyDocument]:
    """Read study files and check that they can run together, before anything starts.

    Raises:
        SpecError: files are invalid, with all issues of all files; or they cannot run together.
    """
    try:
        documents = [_with_overrides(load(file), changes) for file in files]
    except SpecError:
        check_options(files)
        raise
    check_together(
        [
            StudyLocation(
                str(file),
                document.spec.name,
                document.spec.cluster,
            )
            for file, document in zip(files, documents, strict=True)
        ]
    )
    return documents


def check_options(files: Sequence[Path]) -> None:
    """Check files completely, including options of samplers and pruners, which import slowly.

    Raises:
        SpecError: lists all issues of all files.
    """
    from tunesvc.runtime.imported_searchers import machine_check

    mistakes = []
    for file in files:
        try:
            load(file, machine_check(file.absolute().parent))
        except SpecError as error:
            mistakes.append(str(error))
    if mistakes:
        raise SpecError("\n".join(mistakes))


def locations(studies: Sequence[str], database_url: str | None) -> list[StudyLocation]:
    """Return the locations of stored studies.

    Raises:
        StudyNotFound: one of the studies does not exist.
    """
    from tunesvc import api

    views = [api.load_study(study, database_url=database_url).view for study in studies]
    return [
        StudyLocation(
            repr(view.name),
            view.name,
            None if view.spec is None else view.spec.cluster,
        )
        for view in views
    ]


def check_together(locations: Sequence[StudyLocation]) -> None:
    """Check that studies can run in one process, on one Ray.

    Raises:
        SpecError: two share a name, or use different clusters.
    """
    first, *others = locations
    named = {location.name: location for location in reversed(locations)}
    for other in others:
        if (namesake := named[other.name]).label == other.label and namesake is not other:
            raise SpecError(f"{other.label} is given twice")
        if namesake is not other:
            labels = f"{namesake.label} and {other.label}"
            raise SpecError(f"{labels} are both named {other.name!r}: give one another `name`")
        if other.cluster != first.cluster:
            raise SpecError(
                f"{first.label} runs on {_where(first)} and {other.label} on {_where(other)}: give "
                "both the same `cluster`, or run them with a command each"
            )


def _where(location: StudyLocation) -> str:
    return f"the cluster at {location.cluster}" if location.cluster else "no `cluster`"


def _with_overrides(document: StudyDocument, changes: Changes) -> StudyDocument:
    """Apply the command line's overrides to a document."""
    if changes.schedule is not None:
        document = scheduled(document, changes.schedule)
    spec = document.spec
    overrides: dict[str, Any] = {
        "parallelism": changes.parallelism,
        "name": changes.name,
        "seed": changes.seed,
    }
    if changes.trials is not None:
        overrides["budget"] = spec.budget.model_copy(update={"trials": changes.trials})
    if changes.seed is not None:
        # a seed of the sampler would take precedence over the study's
        overrides["sampler"] = spec.sampler.model_copy(update={"seed": None})
    given = {key: value for key, value in overrides.items() if value is not None}
    return dataclasses.replace(document, spec=spec.model_copy(update=given)) if given else document
