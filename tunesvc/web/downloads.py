"""Checkpoints as downloads."""

from __future__ import annotations

from itertools import chain

from fastapi.responses import StreamingResponse

from tunesvc.execution.agents.uploaded_checkpoints import UploadedCheckpoint
from tunesvc.web.render import attachment

TAR = "application/x-tar"


def archive_response(found: UploadedCheckpoint, study: str, number: int) -> StreamingResponse:
    """Return a checkpoint's file or folder as a tar archive, in pieces.

    Raises:
        ArtifactStoreError: it cannot be read.
    """
    pieces = found.archive()
    first = next(pieces, b"")  # what is wrong with it shows before the answer begins
    name = f"{study}-trial-{number}-{found.checkpoint}"
    headers = attachment(name, ".tar")
    return StreamingResponse(chain([first], pieces), headers=headers, media_type=TAR)
