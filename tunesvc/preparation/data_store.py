"""Versions of prepared data in the artifact store.

    data/versions/<version>.json    a manifest: publishes the version as a whole
    data/sha256/ab/ab12...          its files, by digest
    data/studies/<digest>.json      the version that a study of that name used last

What has no manifest is not there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunesvc.artifacts.artifact_store import ArtifactStore
from tunesvc.artifacts.object_store import ObjectStore
from tunesvc.data.prepared_data import (
    FINAL_VARIANT,
    FOLD_FOLDER,
    TEST,
    TRIAL_PARTS,
    PreparedData,
    part_of_fold,
    part_path,
)
from tunesvc.errors import ArtifactMissing, DataError

_VERSIONS = "versions"
_STUDIES = "studies"


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a version."""

    digest: str
    bytes: int
    rows: int = 0


@dataclass(frozen=True, slots=True)
class DataInput:
    """A file that was read, or the table of a function."""

    name: str
    digest: str
    bytes: int


@dataclass(frozen=True, slots=True)
class DataManifest:
    """A version: what it was made from, its files, and what its columns hold."""

    version: str
    created_at: str
    source: str
    settings: Mapping[str, Any]
    inputs: Sequence[DataInput]
    code: str
    """Digest of the study's own transformers; empty if it has none."""
    scikit_learn: str
    """Version of scikit-learn."""
    parts: Mapping[str, DataFile]
    raw: DataFile
    """All rows as they were read, as Parquet."""
    preparation: DataFile
    """The fitted transformer."""
    feature_types: Mapping[str, str]
    """Types of the columns that trials get, by name and in order."""
    columns: Sequence[Mapping[str, Any]]
    """Statistics of each column that was read, over the training part."""
    warnings: Sequence[str] = ()
    seconds: float = 0.0
    by_row: bool = False
    """True if rows are transformed one by one, see `fitted_preparation`."""
    schema: Mapping[str, str] = field(default_factory=dict)
    """Types of the columns that were read."""
    refit_of: str = ""
    """The version of which this one has training and validation part together to train on."""
    test_rows: str = ""
    """Digest of the inputs and of the numbers of the rows of the test part, which versions share
    that differ in steps, folds or draw. Empty without a test part, and in manifests of before."""

    @property
    def features(self) -> list[str]:
        """Names of the columns that trials get."""
        return list(self.feature_types)

    @property
    def folds(self) -> int:
        """Number of folds of the training part; 0 without."""
        return sum(name.startswith(FOLD_FOLDER) for name in self.parts) // len(TRIAL_PARTS)

    @property
    def validation_ratio(self) -> float:
        """Validation rows per training row, of folds their mean.

        Folds at random all have the same; those by time train on ever more rows.
        """
        if not self.folds:
            return self._rows_of("validation") / self._rows_of("train")
        ratios = []
        for fold in range(self.folds):
            training = self._rows_of(part_of_fold("train", fold))
            ratios.append(self._rows_of(part_of_fold("validation", fold)) / training)
        return sum(ratios) / len(ratios)

    def _rows_of(self, part: str) -> int:
        return self.parts[part].rows

    @property
    def whole_parts(self) -> Mapping[str, DataFile]:
        """The parts that are not of a fold: together they have each row once."""
        return {name: part for name, part in self.parts.items() if not name.startswith(FOLD_FOLDER)}

    @property
    def rows(self) -> int:
        """Number of rows that were read."""
        return self.raw.rows

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def files(self) -> list[DataFile]:
        """All files."""
        return [*self.parts.values(), self.raw, self.preparation]

    def prepared(self, store: str) -> PreparedData:
        """Return what trials may know of it."""
        named = [name for name in self.parts if name.startswith(FOLD_FOLDER)] or TRIAL_PARTS
        parts = {name: self.parts[name].digest for name in named}
        return PreparedData(self.version, store, parts)

    def prepared_for_final(self, store: str, *, is_scored: bool) -> PreparedData:
        """Return what a final run gets: the test part for its scorers, if there is one.

        Without scorers the objective returns its value, so that it finds the test part in the place
        of the validation part. Data of folds has no validation part: the training part takes its
        place, so that nothing that stops early by it learns from the test part.
        """
        parts = {name: part.digest for name, part in self.whole_parts.items()}
        parts.setdefault("validation", parts["train"])
        if TEST in parts and not is_scored:
            parts["validation"] = parts.pop(TEST)
        return PreparedData(self.version, store, parts, variant=FINAL_VARIANT)


class DataStore:
    """Prepared data in an artifact store."""

    def __init__(self, objects: ObjectStore) -> None:
        """Keep it below `data/`."""
        self.address = objects.url
        self._objects = objects.below("data")
        self.files = ArtifactStore(self._objects)
        """Files by digest."""

    @classmethod
    def open(cls, address: str | None = None) -> DataStore:
        """Return the prepared data at an address, see `ObjectStore.open`."""
        return cls(ObjectStore.open(address))

    def find(self, version: str) -> DataManifest | None:
        """Return a version's manifest; None if it was never prepared, or was removed."""
        content = self._read(f"{_VERSIONS}/{version}.json")
        return None if content is None else parse_manifest(content)

    def get(self, named: str) -> DataManifest:
        """Return the version with this name or beginning of a name, or the one of a study.

        Raises:
            DataError: there is none, or there are several.
        """
        version = self.version_of(named)
        if (found := self.find(version or named)) is not None:
            return found
        fitting = [one for one in self.list() if one.version.startswith(named)]
        if len(fitting) == 1:
            return fitting[0]
        if version is not None:
            raise DataError(
                f"the data of study {named!r}, version {version}, was removed: "
                "start a study with that `data`, which prepares it again"
            )
        if fitting:
            listed = ", ".join(one.version for one in fitting)
            raise DataError(f"{named!r} begins several versions: {listed}. Write more of it")
        raise DataError(
            f"there is no version {named!r} of prepared data, and no study of that name with data "
            f"in {self.address}: `tune data ls` lists the versions"
        )

    def list(self) -> Iterator[DataManifest]:
        """Yield all versions, the newest first."""
        found = [self._read(one.key) for one in self._objects.list(_VERSIONS) if _is_json(one.key)]
        manifests = [parse_manifest(content) for content in found if content is not None]
        yield from sorted(manifests, key=lambda one: one.created_at, reverse=True)

    def publish(self, manifest: DataManifest) -> None:
        """Store a version's manifest. Its files have to be there."""
        content = json.dumps(asdict(manifest), indent=1).encode()
        self._objects.publish(f"{_VERSIONS}/{manifest.version}.json", content)

    def remove(self, manifest: DataManifest) -> None:
        """Delete a version, but for files that others have too. May be repeated."""
        self._objects.delete(f"{_VERSIONS}/{manifest.version}.json")
        kept = {file.digest for other in self.list() for file in other.files}
        for file in manifest.files:
            if file.digest not in kept:
                self.files.delete(file.digest)

    def name_study(self, study: str, version: str) -> None:
        """Note the version that a study uses, for readers without a database."""
        content = json.dumps({"study": study, "version": version}).encode()
        self._objects.publish(_study_key(study), content)

    def version_of(self, study: str) -> str | None:
        """Return the version that a study of this name used last; None if there was none."""
        content = self._read(_study_key(study))
        return None if content is None else str(json.loads(content)["version"])

    def _read(self, key: str) -> bytes | None:
        try:
            return b"".join(self._objects.read(key))
        except ArtifactMissing:
            return None


def place_on_this_machine(prepared: PreparedData) -> Path:
    """Copy the parts that trials get to this machine, once per version; return their folder.

    Raises:
        ArtifactMissing: the version was removed.
        ArtifactDamaged: a file is not what was stored.
    """
    folder = prepared.folder
    store = DataStore.open(prepared.store)
    for name, digest in prepared.parts.items():
        path = part_path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            store.files.get(digest, path)
    return folder


def _study_key(study: str) -> str:
    return f"{_STUDIES}/{hashlib.sha256(study.encode()).hexdigest()[:32]}.json"


def _is_json(key: str) -> bool:
    return key.endswith(".json")


def parse_manifest(content: bytes) -> DataManifest:
    """Return a manifest from its JSON."""
    fields = json.loads(content)
    fields["inputs"] = [DataInput(**one) for one in fields["inputs"]]
    fields["parts"] = {name: DataFile(**one) for name, one in fields["parts"].items()}
    for name in ("raw", "preparation"):
        fields[name] = DataFile(**fields[name])
    return DataManifest(**fields)
