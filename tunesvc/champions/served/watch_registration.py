"""Registers a family with the servers of a database, which then watch it."""

from __future__ import annotations

import sqlalchemy as sa

from tunesvc.champions.served.served_watch_check import require_served
from tunesvc.db import study_records
from tunesvc.db.champions import champion_records, served_watches
from tunesvc.db.champions.served_watches import ServedWatch, WatchSource
from tunesvc.db.engine.database import Database, checked_name
from tunesvc.db.people.accounts import find_project
from tunesvc.db.study_scope import ALL_STUDIES, StudyScope
from tunesvc.errors import ChampionNotFound, SpecError, StudyExists
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.runtime.submission import require_runnable, require_snapshot
from tunesvc.search.registry.component_check import check

INTERVAL_MIN_S = 60.0
"""Shortest interval: each look reads all of the data."""
INTERVAL_MAX_S = 366 * 86_400.0


def register_watch(
    database: Database,
    new: NewSubmission,
    *,
    interval_s: float | None,
    always: bool,
    submitted_by: str,
    scope: StudyScope = ALL_STUDIES,
) -> ServedWatch:
    """Let the servers of a database watch a family, in place of an earlier watch of it.

    Args:
        database: of the family.
        new: its study, whose folder's snapshot is stored.
        interval_s: time between two looks; None for a single one, or for that of the earlier watch.
        always: tune again for each new version, drifted or not.
        submitted_by: the user.
        scope: studies that the user may view.

    Raises:
        SpecError: servers cannot watch such a study; the text has the remedy.
        StudyExists: a study, champion or watch of this name is of another project.
        TuneError: its snapshot is not stored.
    """
    checked_name(new.spec.name, "the study's name")
    require_served(new.spec)
    require_runnable(new)
    check(new.spec)
    if interval_s is not None and not INTERVAL_MIN_S <= interval_s <= INTERVAL_MAX_S:
        raise SpecError(
            f"the interval of servers is a minute to {INTERVAL_MAX_S / 86_400:g} days, not "
            f"{interval_s:g} s"
        )
    with database.engine.begin() as connection:
        require_snapshot(connection, new.snapshot)
        project_id = _project_of(connection, new, scope)
        served_watches.register(
            connection,
            WatchSource(new.spec, new.source_text, new.provenance),
            project_id=project_id,
            snapshot=new.snapshot,
            interval_s=interval_s,
            always=always,
            submitted_by=submitted_by,
        )
        made = served_watches.find(connection, new.spec.name)
    if made is None:
        raise AssertionError("the watch was just stored")
    return made


def remove_watch(database: Database, family: str, scope: StudyScope = ALL_STUDIES) -> ServedWatch:
    """Stop servers from watching a family; return the watch that was removed.

    Raises:
        ChampionNotFound: they do not watch it.
    """
    with database.engine.begin() as connection:
        found = served_watches.find(connection, family, scope, lock=True)
        if found is None:
            raise ChampionNotFound(
                f"servers do not watch a family {family!r}: `tune champion ls` lists those that "
                "they watch"
            )
        served_watches.remove(connection, family)
    return found


def _project_of(connection: sa.Connection, new: NewSubmission, scope: StudyScope) -> int | None:
    """Return the project of a family: the named one, or the one that it is in.

    Raises:
        StudyExists: a study, champion or watch of this name is of another project.
    """
    name = new.spec.name
    for earlier in new.spec.warm_start:
        study_records.find(connection, earlier)
    study = study_records.look_up(connection, name)
    watch = served_watches.find(connection, name, lock=True)
    champion = champion_records.current(connection, name)
    known = []
    if study is not None:
        known.append(study_records.project_of(connection, study.study_id))
    known += [one.project_id for one in (watch, champion) if one is not None]
    project_id: int | None
    if new.project is not None:
        project_id = find_project(connection, new.project)
    else:
        project_id = known[0] if known and scope.includes(known[0]) else None
    if any(one != project_id for one in known):
        raise StudyExists(
            f"there is a family {name!r} in another project: name that one (--project), or give "
            "this study another name"
        )
    return project_id
