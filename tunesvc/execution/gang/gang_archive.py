"""A checkpoint that travels between nodes of a gang, as one argument of Ray's: in memory."""

from __future__ import annotations

from pathlib import Path

from tunesvc.artifacts.checkpoint_archive import pack
from tunesvc.errors import BadReport

ARCHIVE_MAX_BYTES = 10**9
"""Most bytes of a checkpoint; both nodes hold it in memory."""


def pack_whole(path: Path) -> list[bytes]:
    """Return the chunks of an archive of a file or folder.

    Raises:
        BadReport: it is larger than `ARCHIVE_MAX_BYTES`.
        OSError: it cannot be read.
    """
    chunks, size = [], 0
    for chunk in pack(path):
        size += len(chunk)
        if size > ARCHIVE_MAX_BYTES:
            raise BadReport(
                f"the checkpoint {path.name!r} has more than {ARCHIVE_MAX_BYTES / 1e9:g} GB, the "
                "most that travels between the nodes of a gang: save and read it in a process on "
                "the node of the trial's function, where `resources: {strategy: STRICT_PACK}` "
                "keeps all of them"
            )
        chunks.append(chunk)
    return chunks
