"""Trained models in the artifact store, found by the name of their study.

models/sha256/ab/ab12...        an archive of a model's folder, by digest
models/studies/<digest>.json    the newest model of a study of that name

FOLDER/tunesvc-model.json       what it is: `ModelMetadata`
FOLDER/model                    the fitted model, see `model_file`; or under its own name what
                                the trial saved
FOLDER/preparation.json, preparation.pkl    the fitted preparation of its inputs
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesvc.artifacts.artifact_store import ArtifactStore
from tunesvc.artifacts.object_store import ObjectStore
from tunesvc.errors import ArtifactMissing, DataError
from tunesvc.util.formatting import final_command
from tunesvc.util.paths import home_directory

METADATA = "tunesvc-model.json"
FORMAT = 1
_STUDIES = "studies"
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """A model's origin, and its values."""

    study: str
    trial: int
    """Number of the trial whose parameters it has."""
    params: Mapping[str, Any]
    """Parameters and constants."""
    metric: str
    goal: str
    validation: float | None
    """Value of that trial, which was trained on the training part alone."""
    test: float | None
    """Value of this model on the test part; None without one."""
    scores: Mapping[str, float]
    """Other metrics on the test part."""
    data_version: str
    """Version of the study's data; empty without `data`."""
    preparation_version: str
    """Version whose preparation it has, fitted on training and validation part."""
    trained_at: str
    trained_by: str
    file: str
    """Name of the model's file or folder."""
    tunesvc: str
    """Version of tunesvc."""
    format: int = FORMAT
    study_key: str = ""
    """Identifies the study where several databases meet; empty in models of before."""

    def is_of(self, study_key: str) -> bool:
        """Return True unless it is known to be the model of another study of the same name."""
        return self.study_key in ("", study_key)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """The newest model of a study in a store."""

    metadata: ModelMetadata
    digest: str
    """SHA-256 of its archive, in hexadecimal."""
    bytes: int
    """Size of its archive."""


class ModelStore:
    """Trained models in an artifact store."""

    def __init__(self, objects: ObjectStore) -> None:
        """Keep them below `models/`."""
        self.address = objects.url
        self._objects = objects.below("models")
        self._files = ArtifactStore(self._objects)

    @classmethod
    def open(cls, address: str | None = None) -> ModelStore:
        """Return the models at an address, see `ObjectStore.open`."""
        return cls(ObjectStore.open(address))

    def put(self, folder: Path, metadata: ModelMetadata, *, replace: bool = False) -> str:
        """Store a model's folder as the newest one of its study; return its digest.

        Args:
            folder: the model with its preparation and metadata.
            metadata: what it is.
            replace: also if another study of the same name has one.

        Raises:
            DataError: another study of the same name has one, and `replace` is off.
        """
        if not replace:
            self.require_own(metadata.study, metadata.study_key)
        with tempfile.TemporaryDirectory(prefix="tunesvc-model-") as scratch:
            archive = Path(scratch, "model.tar")
            with tarfile.open(archive, "w") as tar:
                for path in sorted(folder.iterdir()):
                    tar.add(path, path.name, filter=_without_origin)
            digest = self._files.put_file(archive).digest
        content = json.dumps({**asdict(metadata), "digest": digest}).encode()
        self._objects.publish(_key(metadata.study), content)
        return digest

    def require_own(self, study: str, study_key: str) -> None:
        """Refuse the name of a study if another one, as of another database, has a model by it.

        Raises:
            DataError: it has.
        """
        found = self.find(study)
        if found is None or found.is_of(study_key):
            return
        by = f" by {found.trained_by}" if found.trained_by else ""
        raise DataError(
            f"{self.address} has a model of another study named {study!r}, trained at "
            f"{found.trained_at}{by}, which `load_model({study!r})` returns: give this study "
            "another name, set TUNE_ARTIFACTS to another store, or replace that model, "
            f"`{final_command(study, 'apply')} --replace`"
        )

    def find(self, study: str) -> ModelMetadata | None:
        """Return the newest model of a study; None if there is none."""
        found = self._entry(study)
        return None if found is None else _metadata(found)

    def find_stored(self, study: str) -> StoredModel | None:
        """Return the newest model of a study with its archive's size; None if there is none."""
        found = self._entry(study)
        if found is None:
            return None
        digest = str(found["digest"])
        archive = self._files.find(digest)
        return None if archive is None else StoredModel(_metadata(found), digest, archive.bytes)

    def read(self, digest: str) -> Iterator[bytes]:
        """Return a model's archive in pieces; the last step checks the digest of all.

        Raises:
            ArtifactMissing: at once, the store has none of that digest.
            ArtifactDamaged: at the end, its content is not what was put.
        """
        return self._files.read(digest)

    def fetch(self, study: str) -> Path:
        """Return the folder of the newest model of a study on this machine, whole.

        Raises:
            DataError: there is none.
        """
        found = self._entry(study)
        if found is None:
            raise DataError(
                f"there is no trained model of a study {study!r} in {self.address}: "
                f"`{final_command(study, 'apply')}` trains one"
            )
        digest = str(found["digest"])
        return place_model(digest, lambda archive: self._files.get(digest, archive))

    def _entry(self, study: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(b"".join(self._objects.read(_key(study))))
        except ArtifactMissing:
            return None
        return found


def require_stored(study: str, found: StoredModel | None, digest: str | None = None) -> StoredModel:
    """Return a study's stored model.

    Raises:
        DataError: there is none.
        ArtifactMissing: it is another one than that of a digest.
    """
    if found is None:
        raise DataError(
            f"study {study!r} has no trained model: `{final_command(study, 'apply')}` trains one"
        )
    if digest not in (None, found.digest):
        raise ArtifactMissing(
            f"study {study!r} has another model by now than that of digest {digest}: ask again"
        )
    return found


def place_model(digest: str, write: Callable[[Path], None]) -> Path:
    """Return the folder of a model on this machine, whole.

    Args:
        digest: of the model's archive.
        write: writes the archive to a file; called if the folder is not there yet.
    """
    folder = home_directory() / "models" / digest[:_DIGITS]
    if not folder.exists():
        _unpack(write, folder)
    return folder


def _unpack(write: Callable[[Path], None], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}")
    archive = partial.with_suffix(".tar")
    try:
        write(archive)
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        if not folder.exists():
            partial.rename(folder)
    except OSError:
        if not folder.exists():  # else another process was faster
            raise
    finally:
        archive.unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)


def _without_origin(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out times and owners, so that equal models have equal archives."""
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def write_metadata(folder: Path, metadata: ModelMetadata) -> None:
    """Write what a model is into its folder."""
    (folder / METADATA).write_text(json.dumps(asdict(metadata), indent=1))


def read_metadata(folder: Path) -> ModelMetadata:
    """Return what a model in a folder is.

    Raises:
        DataError: the folder holds none.
    """
    try:
        return _metadata(json.loads((folder / METADATA).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{folder} is no folder of a trained model: it has no {METADATA}, which "
            "`tune apply STUDY --train --out DIR` writes"
        ) from None


def _metadata(fields: dict[str, Any]) -> ModelMetadata:
    fields.pop("digest", None)
    if fields.get("format") != FORMAT:
        raise DataError(
            f"the model was written by tunesvc {fields.get('tunesvc')}, in a form that this release"
            " does not read: train it again"
        )
    return ModelMetadata(**fields)


def _key(study: str) -> str:
    return f"{_STUDIES}/{hashlib.sha256(study.encode()).hexdigest()[:32]}.json"
