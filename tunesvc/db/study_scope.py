"""The set of studies that a reader may view, as a condition of queries."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from tunesvc.db.schema.tables import studies


@dataclass(frozen=True, slots=True)
class StudyScope:
    """All studies, or those of some projects.

    Lists put it into their queries. They never drop rows afterwards: counts and limits would then
    say how many other studies there are.
    """

    projects: frozenset[int] | None = None
    """None for all studies, also those without a project."""

    def condition(self) -> sa.ColumnElement[bool]:
        """Return the condition on a row of `studies`."""
        if self.projects is None:
            return sa.true()
        return studies.c.project_id.in_(self.projects)

    def includes(self, project_id: int | None) -> bool:
        """Return True if a study of this project is one of them."""
        return self.projects is None or project_id in self.projects


ALL_STUDIES = StudyScope()
