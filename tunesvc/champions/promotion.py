"""Promotion of a trial by hand, rollback, and export of a champion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from tunesvc.champions.promotion_hooks import plan_by_hand
from tunesvc.champions.watch_specs import family_of
from tunesvc.db import study_records
from tunesvc.db.champions import champion_records
from tunesvc.db.champions.champion_records import Champion, Configuration, PromotionEvidence
from tunesvc.db.engine.database import Database
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope
from tunesvc.errors import ChampionNotFound, SpecError, TuneError
from tunesvc.queries.operations.data_lineage import get_data
from tunesvc.queries.recommendation import find_best_trial
from tunesvc.queries.rows import StudyView, TrialRow
from tunesvc.queries.trials.trial_table import rows_of

OnRecord = Callable[[Any, int], None]
"""Called with connection and command id in the transaction that records a request."""
_OTHER_PROJECT = "{!r} is not a family of the study's project"


def promote(
    database: Database,
    view: StudyView,
    number: int | None,
    user: str,
    *,
    family: str | None = None,
    reason: str = "",
    scope: StudyScope = ALL_STUDIES,
    on_record: OnRecord = lambda connection, command_id: None,
) -> Champion:
    """Make a trial the champion of its family, and log the request.

    Args:
        database: of the study.
        view: the study.
        number: of the trial; the recommended one by default.
        user: recorded with the promotion.
        family: by default the one of the study's name.
        reason: for the history.
        scope: studies that the user may view.
        on_record: see `OnRecord`.

    Raises:
        TuneError: the study has several metrics, or the trial has no value.
        ChampionNotFound: the family is of another project than the study.
        StudyBusy: another process has replaced the champion meanwhile.
    """
    configuration = configuration_of(database, view, number)
    family = family_of(view.name) if family is None else family
    with database.engine.begin() as connection:
        before = champion_records.current(connection, family)
        project_id = study_records.project_of(connection, view.study_id)
        _check_project(family, before, project_id)
        if before is None:
            _check_name(connection, family, project_id, scope)
        champion_id = champion_records.record(
            connection,
            family,
            "first" if before is None else "manual",
            configuration,
            PromotionEvidence(reason or "chosen by hand"),
            user,
            follows=before,
            project_id=project_id,
        )
        plan_by_hand(connection, champion_id, family)
        payload = {"number": configuration.trial_number, "family": family, "reason": reason}
        answer = f"champion {champion_id}"
        command_id = study_records.request(
            connection, view.study_id, "promote", payload, user, answer
        )
        on_record(connection, command_id)
        return champion_records.get_current(connection, family, scope)


def roll_back(
    database: Database,
    family: str,
    user: str,
    *,
    champion_id: int | None = None,
    reason: str = "",
    scope: StudyScope = ALL_STUDIES,
    view: StudyView | None = None,
    on_record: OnRecord = lambda connection, command_id: None,
) -> Champion:
    """Restore an earlier champion, and log the request.

    Args:
        database: of the family.
        family: its name.
        user: recorded with the rollback.
        champion_id: the one to restore; by default the last one with another configuration.
        reason: for the history.
        scope: studies that the user may view.
        view: a study that the user may change; the family has to be of its project. The request
            is logged there, without one in the study that the family is named for.
        on_record: see `OnRecord`.

    Raises:
        ChampionNotFound: there is no such champion.
        StudyBusy: another process has replaced the champion meanwhile.
    """
    with database.engine.begin() as connection:
        today = champion_records.get_current(connection, family, scope)
        if view is not None:
            project_id = study_records.project_of(connection, view.study_id)
            _check_project(family, today, project_id)
        history = champion_records.list_history(connection, family, scope)
        restored = champion_records.earlier_configuration(history, champion_id)
        new_id = champion_records.record(
            connection,
            family,
            "rollback",
            restored.configuration,
            PromotionEvidence(reason or f"champion {restored.champion_id} is restored"),
            user,
            follows=today,
            restores_id=restored.champion_id,
        )
        plan_by_hand(connection, new_id, family)
        study = study_records.look_up(connection, family) if view is None else view
        if study is not None:
            payload = {"champion": restored.champion_id, "family": family, "reason": reason}
            answer = f"champion {new_id}"
            command_id = study_records.request(
                connection, study.study_id, "rollback", payload, user, answer
            )
            on_record(connection, command_id)
        return champion_records.get_current(connection, family, scope)


def carry_out(
    database: Database,
    view: StudyView,
    kind: str,
    payload: Mapping[str, Any],
    user: str,
    scope: StudyScope = ALL_STUDIES,
    *,
    on_record: OnRecord = lambda connection, command_id: None,
) -> str:
    """Promote a trial of a study, or restore a champion of its family; return the answer.

    See `CommandOperations.send` for kinds and payloads.

    Raises:
        SpecError: the payload cannot be read.
        ChampionNotFound: there is no such trial or champion.
    """
    family, reason = payload.get("family") or family_of(view.name), payload.get("reason") or ""
    named = "number" if kind == "promote" else "champion"
    number = payload.get(named)
    is_number = number is None or (isinstance(number, int) and not isinstance(number, bool))
    if not (is_number and isinstance(family, str) and isinstance(reason, str)):
        raise SpecError(f"`{named}` is a whole number, `family` and `reason` are text")
    if kind == "promote":
        made = promote(
            database,
            view,
            number,
            user,
            family=family,
            reason=reason,
            scope=scope,
            on_record=on_record,
        )
    else:
        made = roll_back(
            database,
            family,
            user,
            champion_id=number,
            reason=reason,
            scope=scope,
            view=view,
            on_record=on_record,
        )
    of = f"trial {made.configuration.trial_number} of {made.configuration.study}"
    return f"champion {made.champion_id} of {made.family} is {of}"


def _check_project(family: str, champion: Champion | None, project_id: int | None) -> None:
    """Refuse a family of another project than the study's, in which the user may do something.

    Raises:
        ChampionNotFound: it is of another one.
    """
    if champion is not None and champion.project_id != project_id:
        raise ChampionNotFound(_OTHER_PROJECT.format(family))


def _check_name(
    connection: sa.Connection, family: str, project_id: int | None, scope: StudyScope
) -> None:
    """Refuse a first champion of a family that is named for a study of another project.

    A user that does not see all projects has to name a study, so that no study that another
    project creates later continues from this champion.

    Raises:
        ChampionNotFound: the name is not one of the project.
    """
    named = study_records.look_up(connection, family)
    if named is None:
        is_other = scope.projects is not None
    else:
        is_other = study_records.project_of(connection, named.study_id) != project_id
    if is_other:
        raise ChampionNotFound(_OTHER_PROJECT.format(family))


def configuration_of(database: Database, view: StudyView, number: int | None) -> Configuration:
    """Return a trial as a configuration; the recommended one by default.

    Raises:
        ChampionNotFound: there is no such trial.
        TuneError: the study has several metrics, or the trial has no value.
    """
    if len(view.objectives) > 1:
        raise TuneError(
            f"study {view.name!r} has several metrics: of several, there is no one champion"
        )
    row = find_best_trial(database, view) if number is None else _row(database, view, number)
    if row.state != "complete" or not row.feasible:
        raise TuneError(
            f"trial {row.number} of {view.name!r} is {row.state}: a champion has to be complete "
            "and feasible"
        )
    objective, used = view.objectives[0], get_data(database, view.study_id)
    (row,) = view.as_given([row])
    value = row.value
    if value is None:
        raise AssertionError("a complete trial has a value")
    return Configuration(
        view.name,
        row.number,
        dict(row.params),
        {} if view.spec is None else dict(view.spec.constants),
        None if used is None else used.version,
        objective.name,
        objective.goal,
        value,
    )


def _row(database: Database, view: StudyView, number: int) -> TrialRow:
    rows = rows_of(database, view.study_id, [number])
    if not rows:
        raise ChampionNotFound(f"study {view.name!r} has no trial {number}")
    return rows[0]


def export_champion(champion: Champion) -> dict[str, Any]:
    """Return a champion as plain data: parameters first, then where they come from."""
    configuration, evidence = champion.configuration, champion.evidence
    return {
        "family": champion.family,
        "champion": champion.champion_id,
        "params": dict(configuration.params),
        "constants": dict(configuration.constants),
        "study": configuration.study,
        "trial": configuration.trial_number,
        "data_version": configuration.data_version,
        "metric": {
            "name": configuration.metric,
            "goal": configuration.goal,
            "value": configuration.value,
            "standard_error": configuration.standard_error,
            "fold_values": list(configuration.fold_values),
        },
        "promotion": {
            "kind": champion.kind,
            "at": champion.promoted_at.isoformat(),
            "by": champion.user_name,
            "reason": evidence.reason,
            "previous": champion.previous_id,
            "restores": champion.restores_id,
            "rival_values": list(evidence.rival_values),
            "p_value": evidence.p_value,
            "level": evidence.level,
            "drifted": []
            if evidence.drift is None
            else [one.column for one in evidence.drift.drifted],
        },
    }
