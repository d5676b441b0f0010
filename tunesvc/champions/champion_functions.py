"""The Python functions of champions: watch, list, load, promote and roll back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from tunesvc.api import shared_database
from tunesvc.champions import promotion
from tunesvc.champions.announcements import deliver_due
from tunesvc.champions.family_lock import locked_family
from tunesvc.champions.family_watch import FamilyWatch
from tunesvc.champions.study_runner import LocalRunner
from tunesvc.champions.watch_result import WatchResult
from tunesvc.db.champions import champion_records
from tunesvc.db.champions.champion_records import Champion
from tunesvc.errors import SpecError
from tunesvc.execution.driver.ray_pool import RayPool
from tunesvc.queries.studies import get_study
from tunesvc.run_options import RunOptions, check_names
from tunesvc.runs import open_view
from tunesvc.runtime.imported_searchers import machine_check
from tunesvc.runtime.interrupts import interruptible
from tunesvc.runtime.run_study import StudySource
from tunesvc.spec.checks import why_not_watched
from tunesvc.spec.yaml.document import StudyDocument, load
from tunesvc.util.user import whoami


def watch(
    study_file: StudyDocument | str | Path,
    *,
    always: bool = False,
    database_url: str | None = None,
    **options: Unpack[RunOptions],
) -> WatchResult:
    """Look once whether a study's data have changed, and whether its champion still is the best.

    Without a champion, runs the study and promotes its recommended trial. May be repeated, also
    after an interruption, from which it continues: with the outcome `interrupted` if it was the
    caller's event `interrupt`, see `RunOptions`.

    Args:
        study_file: a study file with `data`, or its path.
        always: tune again for each new version of the data, also if nothing has drifted.
        database_url: a Postgres; without it `TUNE_DATABASE_URL`, else the embedded one.
        options: display and end of the run, see `RunOptions`.

    Raises:
        SpecError: the study cannot be watched.
        StudyBusy: another process watches it.
        DataError: the data cannot be prepared.
        StudyFailed: no trial has a result.
        KeyboardInterrupt: Ctrl-C was pressed; the next call continues.
    """
    check_names("watch", options)
    if isinstance(study_file, StudyDocument):
        document = study_file
    else:
        path = Path(study_file)
        document = load(path, machine_check(path.absolute().parent))
    name = document.spec.name
    if text := why_not_watched(document.spec):
        raise SpecError(f"study {name!r} cannot be watched: it {text}")
    opened = functools.partial(shared_database, database_url)
    with (
        interruptible(name, options.get("interrupt")) as interrupt,
        open_view(options, name, interrupt, opened) as observer,
        RayPool() as rays,
    ):
        database = opened()
        source = StudySource(document.text, str(document.folder))
        make_executor = options.get("make_executor", rays.executor)
        runner = LocalRunner(database, source, make_executor, observer, interrupt)
        with locked_family(database, name):
            family = FamilyWatch(
                database, document.spec, runner, folder=str(document.folder), always=always
            )
            return family.look()


def list_champions(*, database_url: str | None = None) -> tuple[Champion, ...]:
    """Return the champion of each family, by name."""
    with shared_database(database_url).engine.connect() as connection:
        return champion_records.list_current(connection)


def load_champion(family: str, *, database_url: str | None = None) -> Champion:
    """Return the champion of a family; its `configuration` has parameters and evidence.

    Raises:
        ChampionNotFound: there is none.
    """
    with shared_database(database_url).engine.connect() as connection:
        return champion_records.get_current(connection, family)


def champion_history(family: str, *, database_url: str | None = None) -> tuple[Champion, ...]:
    """Return all champions of a family, the newest first."""
    with shared_database(database_url).engine.connect() as connection:
        return champion_records.list_history(connection, family)


def promote(
    study: str,
    trial: int | None = None,
    *,
    family: str | None = None,
    reason: str = "",
    database_url: str | None = None,
) -> Champion:
    """Make a trial the champion of its study's family; the recommended one by default.

    Its announcements are made by the next watch, or by `tune champion deliver`.

    Raises:
        StudyNotFound: there is no such study.
        ChampionNotFound: there is no such trial.
        TuneError: the study has several metrics, or the trial is not complete and feasible.
    """
    database = shared_database(database_url)
    view = get_study(database, study)
    return promotion.promote(database, view, trial, whoami(), family=family, reason=reason)


def rollback(
    family: str,
    champion_id: int | None = None,
    *,
    reason: str = "",
    database_url: str | None = None,
) -> Champion:
    """Restore an earlier champion: by default the last one with another configuration.

    Raises:
        ChampionNotFound: there is none.
    """
    database = shared_database(database_url)
    return promotion.roll_back(database, family, whoami(), champion_id=champion_id, reason=reason)


def deliver_promotions(
    family: str,
    say: Callable[[str], None] = lambda text: None,
    *,
    database_url: str | None = None,
) -> int:
    """Announce the promotions of a family that are due; return the number that failed.

    Args:
        family: its name.
        say: called with a sentence about each.
        database_url: a Postgres; without it `TUNE_DATABASE_URL`, else the embedded one.

    Raises:
        StudyBusy: another process does so, or watches the family.
    """
    database = shared_database(database_url)
    with locked_family(database, family):
        return deliver_due(database, family, say)
