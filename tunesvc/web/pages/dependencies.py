"""Dependencies of routes: the study and the trial whose numbers are in the URL."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from tunesvc.errors import StudyNotFound
from tunesvc.queries.rows import StudyView, TrialDetail
from tunesvc.queries.studies import get_study_by_id
from tunesvc.queries.trials.trial_table import get_trial
from tunesvc.web.access import Permission, Viewer, authorize

ID_MAX = 2**31 - 1
"""Largest id of a study and number of a trial: each is half of a trial's id, see `schema.ids`."""


def _study(
    request: Request,
    _: Viewer,
    study_id: Annotated[int, Path(ge=0, le=ID_MAX)],
) -> StudyView:
    return get_study_by_id(request.app.state.database, study_id)


AskedStudy = Annotated[StudyView, Depends(_study)]


def viewable(request: Request, study_id: int) -> StudyView:
    """Return a study that is not named in the path, if the user may view it.

    Raises:
        StudyNotFound: there is no such study.
        Forbidden: the user may not view it.
    """
    authorize(request, Permission.VIEW, study_id)
    return get_study_by_id(request.app.state.database, study_id)


def _trial(
    request: Request,
    study: AskedStudy,
    number: Annotated[int, Path(ge=0, le=ID_MAX)],
) -> TrialDetail:
    return trial_of(request, study, number)


def trial_of(request: Request, study: StudyView, number: int) -> TrialDetail:
    """Return a trial of a study.

    Raises:
        StudyNotFound: there is no trial of that number.
    """
    found = get_trial(request.app.state.database, study.study_id, number)
    if found is None:
        raise StudyNotFound(f"study {study.name!r} has no trial {number}")
    return found


AskedTrial = Annotated[TrialDetail, Depends(_trial)]
