"""What an address asks for: the study, and the trial, that its numbers name."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from tunesvc.errors import StudyNotFound
from tunesvc.queries.rows import StudyView, TrialDetail
from tunesvc.queries.studies import get_study_by_id
from tunesvc.queries.trials.trial_table import get_trial
from tunesvc.web.access import Permission, Viewer, allowed

ID_MAX = 2**31 - 1
"""Ids of studies are half of a trial's id, see `schema.ids`; numbers of trials are the other half."""


def _study(
    request: Request,
    _: Viewer,
    study_id: Annotated[int, Path(ge=0, le=ID_MAX)],
) -> StudyView:
    return get_study_by_id(request.app.state.database, study_id)


AskedStudy = Annotated[StudyView, Depends(_study)]


def viewable(request: Request, study_id: int) -> StudyView:
    """A study that is asked for otherwise than by the path, where who asks may see it.

    Raises:
        StudyNotFound: there is none.
        NotAllowed: they may not.
    """
    allowed(request, Permission.VIEW, study_id)
    return get_study_by_id(request.app.state.database, study_id)


def _trial(
    request: Request,
    study: AskedStudy,
    number: Annotated[int, Path(ge=0, le=ID_MAX)],
) -> TrialDetail:
    found = get_trial(request.app.state.database, study.study_id, number)
    if found is None:
        raise StudyNotFound(f"study {study.name!r} has no trial {number}")
    return found


AskedTrial = Annotated[TrialDetail, Depends(_trial)]
