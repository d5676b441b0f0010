"""A study on its way to the servers. Imports nothing that runs one, so that clients stay light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesvc.db.schema.states import Priority
from tunesvc.spec import StudySpec


@dataclass(frozen=True, slots=True)
class NewSubmission:
    """A study that is to be run by servers."""

    spec: StudySpec
    source_text: str | None = None
    """The study file as written."""
    snapshot: str | None = None
    """Digest of the folder's archive, which the artifact store has."""
    folder: str | None = None
    """Folder that all servers and workers see, for a study without a snapshot.

    Without both, its program is installed where workers run.
    """
    project: str | None = None
    """Project that it belongs to. A server takes the user's only one by default."""
    priority: Priority = Priority.NORMAL
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """See `util.provenance`."""
    rows_of: str = ""
    """Version of prepared data whose rows it uses; empty for those that its source gives."""
