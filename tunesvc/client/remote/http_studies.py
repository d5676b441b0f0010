"""Studies as a whole, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesvc.client.remote.connection import ServerConnection, study_path
from tunesvc.queries.rows import RowPage, StudyRow, StudyStatus, StudyView

if TYPE_CHECKING:
    from tunesvc.client.study_inputs import NewStudy, StudyPatch
    from tunesvc.queries.comparison import Fact


class HttpStudies:
    """See `StudyOperations`."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

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
        return self._connection.get(
            RowPage[StudyRow],
            "/studies",
            search=search,
            state=list(states),
            tag=list(tags),
            owner=owner,
            after=after,
            limit=limit,
        )

    def names(self, prefix: str = "", *, limit: int = 100) -> tuple[str, ...]:
        """Return names of studies that begin with a text, the newest first."""
        return self._connection.get(tuple[str, ...], "/names", prefix=prefix, limit=limit)

    def get(self, name: str) -> StudyView:
        """Return a study."""
        return self._connection.get(StudyView, study_path(name))

    def create(self, new: NewStudy) -> StudyView:
        """Store a study, without running it."""
        return self._connection.post(StudyView, "/studies", new)

    def change(self, name: str, patch: StudyPatch) -> tuple[str, ...]:
        """Change a study; return the answers, a sentence for each change."""
        return self._connection.patch(tuple[str, ...], study_path(name), patch)

    def delete(self, name: str) -> str:
        """Delete a study with its trials, logs and checkpoints."""
        return self._connection.delete(str, study_path(name))

    def tag(
        self,
        name: str,
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        number: int | None = None,
    ) -> tuple[str, ...]:
        """Add and remove tags of a study, or of a trial; return the new tags."""
        body = {"add": list(add), "remove": list(remove)}
        path = _annotated(name, number, "tags")
        return self._connection.post(tuple[str, ...], path, body)

    def note(self, name: str, text: str, *, number: int | None = None) -> str:
        """Replace the note of a study, or of a trial; return it."""
        return self._connection.put(str, _annotated(name, number, "note"), {"text": text})

    def compare(self, names: Sequence[str]) -> tuple[Fact, ...]:
        """Return results and specs of several studies by key."""
        from tunesvc.queries.comparison import Fact

        return self._connection.get(tuple[Fact, ...], "/comparison", study=list(names))


def _annotated(study: str, number: int | None, what: str) -> str:
    if number is None:
        return study_path(study, what)
    return study_path(study, "trials", number, what)
