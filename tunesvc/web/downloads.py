"""Checkpoints and models as downloads."""

from __future__ import annotations

import base64
from itertools import chain

from fastapi.responses import StreamingResponse

from tunesvc.execution.agents.uploaded_checkpoints import UploadedCheckpoint
from tunesvc.models.model_store import ModelStore, StoredModel
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


def model_response(found: StoredModel, study: str) -> StreamingResponse:
    """Return a study's model as a tar archive, in pieces.

    Raises:
        ArtifactStoreError: it cannot be read.
    """
    pieces = ModelStore.open().read(found.digest)
    digest = base64.b64encode(bytes.fromhex(found.digest)).decode()
    headers = {
        **attachment(f"{study}-model", ".tar"),
        "Content-Length": str(found.bytes),
        "Repr-Digest": f"sha-256=:{digest}:",
        "Cache-Control": "no-store",
        "Content-Encoding": "identity",  # compressing gigabytes would take the server's time
    }
    return StreamingResponse(pieces, headers=headers, media_type=TAR)
