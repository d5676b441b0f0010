"""Tags and notes of studies and trials, written by users. Nothing that runs depends on them.

They are written at once, with or without a coordinator. Each change is also recorded among the
study's commands, where overwritten notes can still be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from tunesvc.db import study_records
from tunesvc.db.schema.ids import trial_id
from tunesvc.db.schema.tables import studies as studies_table
from tunesvc.db.schema.tables import trial_annotations, trials
from tunesvc.errors import SpecError, StudyNotFound
from tunesvc.spec.text import check_name, check_text

MAX_TAG = 60
"""Characters of a tag."""
MAX_TAGS = 50
"""Tags of one study or trial."""
MAX_NOTE = 20_000
"""Characters of a note."""


def tag(
    connection: sa.Connection,
    study_id: int,
    number: int | None,
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    asked_by: str,
) -> tuple[str, ...]:
    """Add and remove tags of the trial `number`, or of the study; return the new tags.

    May be repeated.

    Raises:
        SpecError: a tag cannot be stored, or there are too many.
        StudyNotFound: there is no such trial.
    """
    for new in add:
        _checked(new, check_name, f"the tag {new!r}", MAX_TAG)
        if not new:
            raise SpecError("a tag needs at least one character")
    before = _locked(connection, study_id, number)
    remaining = [tag for tag in before if tag not in remove]
    tags = tuple(dict.fromkeys([*remaining, *add]))
    if len(tags) > MAX_TAGS:
        raise SpecError(f"that would be {len(tags)} tags; {MAX_TAGS} is the most")
    _write(connection, study_id, number, {"tags": list(tags)})
    payload = {"add": list(add), "remove": list(remove)}
    _record(connection, study_id, "tag", number, payload, asked_by)
    return tags


def note(
    connection: sa.Connection,
    study_id: int,
    number: int | None,
    text: str,
    *,
    asked_by: str,
) -> None:
    """Replace the note of the trial `number`, or of the study. May be repeated.

    Raises:
        SpecError: it cannot be stored, or is too long.
        StudyNotFound: there is no such trial.
    """
    _checked(text, check_text, "the note", MAX_NOTE)
    _locked(connection, study_id, number)
    _write(connection, study_id, number, {"note": text})
    _record(connection, study_id, "note", number, {"note": text}, asked_by)


def _checked(text: str, check: Callable[[str], str], what: str, most: int) -> None:
    try:
        check(text)
    except ValueError as error:
        raise SpecError(f"{what} {error}") from None
    if len(text) > most:
        raise SpecError(f"{what[:40]} has {len(text)} characters; {most} is the most")


def _locked(
    connection: sa.Connection,
    study_id: int,
    number: int | None,
) -> Sequence[str]:
    """Return the current tags, and lock them until the transaction ends."""
    if number is None:
        found = sa.select(studies_table.c.tags).where(studies_table.c.study_id == study_id)
    else:
        at = trial_id(study_id, number)
        known = sa.select(trials.c.trial_id).where(trials.c.trial_id == at)
        connection.execute(
            pg.insert(trial_annotations).from_select(["trial_id"], known).on_conflict_do_nothing(),
        )
        found = sa.select(trial_annotations.c.tags).where(trial_annotations.c.trial_id == at)
    tags = connection.execute(found.with_for_update()).scalar()
    if tags is None:
        what = f"study {study_id}" if number is None else f"trial {number} in it"
        raise StudyNotFound(f"there is no {what}")
    return list(tags)


def _write(
    connection: sa.Connection,
    study_id: int,
    number: int | None,
    values: Mapping[str, Any],
) -> None:
    if number is None:
        change = sa.update(studies_table).where(studies_table.c.study_id == study_id)
    else:
        change = sa.update(trial_annotations).where(
            trial_annotations.c.trial_id == trial_id(study_id, number),
        )
    connection.execute(change.values(**values))


def _record(
    connection: sa.Connection,
    study_id: int,
    kind: str,
    number: int | None,
    payload: Mapping[str, Any],
    asked_by: str,
) -> None:
    about = {} if number is None else {"number": number}
    study_records.request(
        connection,
        study_id,
        kind,
        {**about, **payload},
        asked_by,
        answer="",
    )
