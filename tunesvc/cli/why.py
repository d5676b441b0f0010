"""Commands that give reasons: explain, replay, confirm."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesvc.cli.options import DatabaseUrl, Json, StudyName


def explain(
    study: StudyName,
    trial: Annotated[int | None, typer.Argument(help="A trial's number; without it, the study.", min=0)] = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Say why a study stands as it does; or why a trial has its parameters, and why it was stopped or kept."""
    from tunesvc import insights
    from tunesvc.cli import output, study_text
    from tunesvc.cli.show import no_such_trial
    from tunesvc.store.database import open_database

    with open_database(database_url) as database:
        view = insights.study(database, study)
        told = insights.explain_study(database, view) if trial is None else None
        told = told or insights.explain_trial(database, view, trial or 0)
    if told is None:
        raise no_such_trial(view, trial or 0)
    if as_json:
        output.print_json(told)
    else:
        output.out().print(study_text.explanation(told))
