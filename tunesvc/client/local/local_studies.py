"""Studies as a whole, on a database. What writes is imported where it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tunesvc.client.local.keyset import key_of, page_of
from tunesvc.db.engine.database import Database
from tunesvc.db.study_scope import StudyScope
from tunesvc.errors import SpecError
from tunesvc.queries import studies as queries
from tunesvc.queries.rows import RowPage, StudyRow, StudyStatus, StudyView

if TYPE_CHECKING:
    from tunesvc.client.study_inputs import BudgetChange, NewStudy, StudyPatch
    from tunesvc.queries.comparison import Fact
    from tunesvc.spec import StudySpec


class LocalStudies:
    """See `StudyOperations`."""

    def __init__(self, database: Database, user: str, among: StudyScope) -> None:
        self._database = database
        self._user = user
        self._among = among

    def page(
        self,
        *,
        search: str = "",
        states: Sequence[StudyStatus] = (),
        tags: Sequence[str] = (),
        owner: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> RowPage[StudyRow]:
        """Return studies, the newest first."""
        only: queries.StudyFilter = {
            "search": search,
            "states": states,
            "tags": tags,
            "owner": owner,
            "among": self._among,
            "before": key_of(after),
        }
        rows = queries.list_studies(self._database, limit + 1, **only)
        return page_of(rows, limit, lambda row: row.study_id)

    def names(self, prefix: str = "", *, limit: int = 100) -> tuple[str, ...]:
        """Return names of studies that begin with a text, the newest first."""
        return queries.list_study_names(self._database, prefix, limit, self._among)

    def get(self, name: str) -> StudyView:
        """Return a study."""
        return queries.get_study(self._database, name, self._among)

    def create(self, new: NewStudy) -> StudyView:
        """Store a study, without running it."""
        spec = _spec_of(new)
        for earlier in spec.warm_start:
            self._id_of(earlier)
        from tunesvc.runtime.run_study import StudySource, create

        source = StudySource(new.text, new.folder)
        record = create(self._database, spec, source, owner=self._user, project=new.project)
        return queries.get_study_by_id(self._database, record.study_id)

    def change(self, name: str, patch: StudyPatch) -> tuple[str, ...]:
        """Change a study; return the answers, a sentence for each change."""
        from tunesvc.runtime import study_requests

        view = self.get(name)
        answers = []
        for kind, payload in _commands(view, patch):
            answer = study_requests.request(
                self._database, view.study_id, kind, payload, self._user
            )
            answers.append(answer)
        if patch.priority is not None:
            study_requests.prioritize(self._database, view.study_id, patch.priority, self._user)
            answers.append(f"{view.name} has priority {patch.priority}")
        if patch.note is not None:
            self.note(name, patch.note)
            answers.append(f"the note of {view.name} is saved")
        return tuple(answers)

    def delete(self, name: str) -> str:
        """Delete a study with its trials, logs and checkpoints."""
        from tunesvc.runtime import study_requests

        return study_requests.remove(self._database, self._id_of(name), self._user)

    def tag(
        self,
        name: str,
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        number: int | None = None,
    ) -> tuple[str, ...]:
        """Add and remove tags of a study, or of a trial; return the new tags."""
        from tunesvc.db import study_annotations

        with self._database.engine.begin() as connection:
            return study_annotations.tag(
                connection,
                self._id_of(name),
                number,
                add=add,
                remove=remove,
                asked_by=self._user,
            )

    def note(self, name: str, text: str, *, number: int | None = None) -> str:
        """Replace the note of a study, or of a trial; return it."""
        from tunesvc.db import study_annotations

        with self._database.engine.begin() as connection:
            study_annotations.note(connection, self._id_of(name), number, text, asked_by=self._user)
        return text

    def compare(self, names: Sequence[str]) -> tuple[Fact, ...]:
        """Return results and specs of several studies by key."""
        from tunesvc.queries.comparison import study_facts

        return with_text_times(study_facts([self.get(name) for name in names]))

    def _id_of(self, name: str) -> int:
        return queries.get_study_id(self._database, name, self._among)


def with_text_times(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    """Return facts with times as text, since a reader could not tell them from text."""
    return tuple(replace(fact, values=tuple(map(_text_time, fact.values))) for fact in facts)


def _text_time(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _spec_of(new: NewStudy) -> StudySpec:
    """Read the spec of a new study, without its folder.

    Raises:
        SpecError: it cannot be used; the text has all issues.
    """
    from tunesvc.search.registry.component_check import option_issues
    from tunesvc.spec.yaml.document import parse, spec_from_dict

    if (new.text is None) is (new.spec is None):
        raise SpecError("a new study needs either `text`, a study file, or `spec`, its keys")
    if new.text is not None:
        return parse(new.text, extra_check=option_issues)
    return spec_from_dict(new.spec or {}, extra_check=option_issues)


def _commands(view: StudyView, patch: StudyPatch) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield kind and payload of the requests that make up a patch."""
    if patch.budget is not None and (additions := _additions(view, patch.budget)):
        yield "extend", additions
    if patch.parallelism is not None:
        yield "parallelism", {"trials": patch.parallelism.trials}
    if patch.parameters:
        changes: dict[str, dict[str, Any]] = {}
        for name, change in patch.parameters.items():
            ends = {"min": change.min, "max": change.max}
            changes[name] = {end: value for end, value in ends.items() if value is not None}
            if change.values:
                changes[name] |= {"values": list(change.values)}
        yield "widen", {"parameters": changes}


def _additions(view: StudyView, budget: BudgetChange) -> dict[str, Any]:
    """Return by how much limits grow.

    Raises:
        SpecError: one would shrink.
    """
    limits = {} if view.budget is None else view.budget.limits
    additions = {}
    for name in ("trials", "wall", "gpu_hours", "cost"):
        limit, now = getattr(budget, name), limits.get(name)
        if limit is None or limit == now:
            continue
        if now is not None and limit < now:
            raise SpecError(
                f"the budget only grows: {name} is {now:g}, which is more than {limit:g}"
            )
        additions[name] = limit - (now or 0)
    return additions
