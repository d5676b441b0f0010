"""The place of a study's checkpoints: a folder, or an address in an object store."""

from __future__ import annotations

import os
import re
import shutil

from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import ArtifactStoreError
from tunesvc.util.paths import home_directory, is_url


def checkpoint_root(record: StudyRecord) -> str:
    """Return the folder or address of a study's checkpoints; its key keeps databases apart.

    `TUNE_CHECKPOINTS` names what all nodes of a cluster reach: a folder, or an object store such as
    `s3://bucket/checkpoints`.
    """
    root = os.environ.get("TUNE_CHECKPOINTS") or str(home_directory() / "checkpoints")
    readable = re.sub(r"[^A-Za-z0-9]", "-", record.name)[:60]
    return f"{root.rstrip('/')}/{readable}-{record.key}"


def delete_checkpoints(record: StudyRecord) -> str:
    """Delete a study's checkpoints; return why that is impossible, or nothing. May be repeated."""
    root = checkpoint_root(record)
    if not is_url(root):
        shutil.rmtree(root, ignore_errors=True)
        return ""
    from tunesvc.artifacts.object_store import ObjectStore

    try:
        ObjectStore.open(root).clear()
    except ArtifactStoreError as error:
        return str(error)
    return ""
