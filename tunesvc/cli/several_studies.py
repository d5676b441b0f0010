"""Study files and studies that one command runs together: reading all of them, and what they must not differ in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesvc.errors import SpecError
from tunesvc.execution.driver.ray_pool import is_shared
from tunesvc.spec.yaml.document import StudyDocument, load


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """What the command line says instead of each file."""

    trials: int | None = None
    parallelism: int | None = None
    name: str | None = None
    seed: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class StudyLocation:
    """Where a study runs."""

    label: str
    """What the user called it."""
    name: str
    cluster: str | None
    folder: str | None


def read_all(files: Sequence[Path], changes: Changes) -> list[StudyDocument]:
    """Read study files, and see that they can run together, before anything starts.

    Raises:
        SpecError: some cannot be used, with all mistakes of all files; or they cannot run together.
    """
    try:
        documents = [_changed(load(file), changes) for file in files]
    except SpecError:
        check_options(files)
        raise
    check_together(
        [
            StudyLocation(
                str(file),
                document.spec.name,
                document.spec.cluster,
                str(document.folder),
            )
            for file, document in zip(files, documents, strict=True)
        ]
    )
    return documents


def check_options(files: Sequence[Path]) -> None:
    """See that files have no mistake, samplers' and pruners' options included, whose import takes a second.

    Raises:
        SpecError: with all mistakes of all files.
    """
    from tunesvc.search.registry.component_check import option_faults

    mistakes = []
    for file in files:
        try:
            load(file, option_faults)
        except SpecError as error:
            mistakes.append(str(error))
    if mistakes:
        raise SpecError("\n".join(mistakes))


def places(studies: Sequence[str], database_url: str | None) -> list[StudyLocation]:
    """Where stored studies run.

    Raises:
        StudyNotFound: there is no such study.
    """
    from tunesvc import api

    views = [api.load_study(study, database_url=database_url).view for study in studies]
    return [
        StudyLocation(
            repr(view.name),
            view.name,
            None if view.spec is None else view.spec.cluster,
            view.source_dir,
        )
        for view in views
    ]


def check_together(places: Sequence[StudyLocation]) -> None:
    """See that studies can run in one process, on one Ray.

    Raises:
        SpecError: two have one name, or they are for several clusters, or for one cluster and in several folders.
    """
    first, *others = places
    named = {place.name: place for place in reversed(places)}
    for other in others:
        if (twin := named[other.name]).label == other.label and twin is not other:
            raise SpecError(f"{other.label} is given twice")
        if twin is not other:
            raise SpecError(
                f"{twin.label} and {other.label} are both the study {other.name!r}: give one of them another `name`"
            )
        if other.cluster != first.cluster:
            raise SpecError(
                f"{first.label} runs on {_where(first)} and {other.label} on {_where(other)}: give both the same "
                "`cluster`, or run them with a command each"
            )
        if is_shared(first.cluster) and other.folder != first.folder:
            raise SpecError(
                f"{first.label} and {other.label} lie in different folders, and a cluster gets a copy of one: put them "
                "side by side, or run them with a command each"
            )


def _where(place: StudyLocation) -> str:
    return f"the cluster at {place.cluster}" if place.cluster else "no `cluster`"


def _changed(document: StudyDocument, changes: Changes) -> StudyDocument:
    """The document under what the command line says instead."""
    spec = document.spec
    made: dict[str, Any] = {
        "parallelism": changes.parallelism,
        "name": changes.name,
        "seed": changes.seed,
    }
    if changes.trials is not None:
        made["budget"] = spec.budget.model_copy(update={"trials": changes.trials})
    if changes.seed is not None:
        made["sampler"] = spec.sampler.model_copy(update={"seed": None})  # it would win over the study's
    kept = {key: value for key, value in made.items() if value is not None}
    return dataclasses.replace(document, spec=spec.model_copy(update=kept)) if kept else document
