"""Checkpoints in an object store: complete or absent, equal files once, and none lost that is needed."""

from __future__ import annotations

import io
import shutil
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.broken_stores import BrokenFilesystem, broken_store
from tunesvc.artifacts.trial_checkpoints import Manifest, TrialCheckpoints
from tunesvc.errors import ArtifactDamaged, ArtifactMissing
from tunesvc.execution.attempt import stored_checkpoints
from tunesvc.execution.attempt.stored_checkpoints import StoredCheckpoints
from tunesvc.spec.sections.execution_keys import Keep


@pytest.fixture
def place(tmp_path: Path) -> tuple[TrialCheckpoints, BrokenFilesystem]:
    objects, filesystem = broken_store(tmp_path / "store")
    return TrialCheckpoints(objects.below("3")), filesystem


@pytest.fixture
def store(place: tuple[TrialCheckpoints, BrokenFilesystem]) -> TrialCheckpoints:
    return place[0]


def folder_of(root: Path, **files: str) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def stored(root: Path) -> int:
    """Return the number of pieces of content in the store."""
    return sum(path.is_file() and path.suffix != ".json" for path in root.rglob("*"))


def test_a_file_and_a_folder_come_back_as_they_were(
    store: TrialCheckpoints, tmp_path: Path
) -> None:
    file = tmp_path / "model.pt"
    file.write_text("weights")
    store.put(file, "attempt-1-step-1-1")
    folder = folder_of(tmp_path / "state", a="1", deep__b="2")
    (folder / "empty").mkdir()
    manifest = store.put(folder, "attempt-1-step-2-2", value=0.5)
    assert store.get("attempt-1-step-1-1", tmp_path / "one").read_text() == "weights"
    back = store.get("attempt-1-step-2-2", tmp_path / "two")
    assert back.name == "state"
    assert contents(back) == {"a": "1", "deep/b": "2"}
    assert (back / "empty").is_dir()
    assert store.find("attempt-1-step-2-2") == manifest
    assert sorted(store.names()) == ["attempt-1-step-1-1", "attempt-1-step-2-2"]
    assert store.location(manifest) == "fake://store/3/attempt-1-step-2-2/state"


def test_an_archive_has_the_same_files(store: TrialCheckpoints, tmp_path: Path) -> None:
    store.put(folder_of(tmp_path / "state", a="1" * 1000, deep__b=""), "attempt-1-step-2-1")
    text = b"".join(store.archive("attempt-1-step-2-1"))
    with tarfile.open(fileobj=io.BytesIO(text)) as archive:
        archive.extractall(tmp_path / "there", filter="data")
    assert contents(tmp_path / "there") == {"state/a": "1" * 1000, "state/deep/b": ""}


def test_equal_files_are_kept_once(store: TrialCheckpoints, tmp_path: Path) -> None:
    first = store.put(
        folder_of(tmp_path / "state", base="frozen", same="frozen", head="1"), "attempt-1-step-1-1"
    )
    second = store.put(
        folder_of(tmp_path / "state", base="frozen", head="2"), "attempt-1-step-2-2", base=first
    )
    assert stored(tmp_path / "store") == 3
    store.delete(["attempt-1-step-1-1"], ["attempt-1-step-1-1", "attempt-1-step-2-2"])
    assert stored(tmp_path / "store") == 2
    back = store.get("attempt-1-step-2-2", tmp_path / "back")
    assert contents(back) == {"base": "frozen", "head": "2"}
    third = store.put(
        folder_of(tmp_path / "state", base="frozen"), "attempt-1-step-3-3", base=second
    )
    assert third.parts[0].place == "attempt-1-step-1-1"


def test_content_of_an_upload_under_way_stays(store: TrialCheckpoints, tmp_path: Path) -> None:
    """Its manifest is missing until it is complete."""
    store.put(folder_of(tmp_path / "state", a="1"), "attempt-1-step-1-1")
    store.put(folder_of(tmp_path / "state", a="2"), "attempt-1-step-2-2")
    (tmp_path / "store" / "3" / "attempt-1-step-2-2.json").unlink()
    store.delete([], ["attempt-1-step-1-1"])
    assert stored(tmp_path / "store") == 2


@pytest.mark.parametrize("fault", ["drops the end", "flips a bit", "writes nothing"])
def test_a_store_that_lies_publishes_nothing(
    place: tuple[TrialCheckpoints, BrokenFilesystem], tmp_path: Path, fault: str
) -> None:
    """Fault 56."""
    store, filesystem = place
    filesystem.fault = fault
    with pytest.raises(ArtifactDamaged):
        store.put(folder_of(tmp_path / "state", a="1"), "attempt-1-step-1-1")
    filesystem.fault = ""
    assert store.names() == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"name": "../x", "parts": [], "folders": [], "value": null}',
        b'{"name": "x", "parts": [], "folders": ["/etc"], "value": null}',
        b'{"name": "x", "parts": [{"path": "../../y", "digest": "a", "bytes": 1, "place": "p"}], '
        b'"folders": [], "value": null}',
    ],
)
def test_a_manifest_that_leads_out_or_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(ArtifactDamaged):
        Manifest.load("attempt-1-step-1-1", text)


# --- of an attempt --------------------------------------------------------------------------------


class Kept:
    """What an attempt reports, and the log that it writes."""

    def __init__(self) -> None:
        self.locations: list[tuple[str, int]] = []
        self.notes: list[str] = []

    def __call__(self, location: str, step: int) -> None:
        self.locations.append((location, step))

    def until(self, happened: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + 10
        while not happened():
            assert time.monotonic() < deadline_s, (self.locations, self.notes)
            time.sleep(0.005)


@pytest.fixture
def kept() -> Kept:
    return Kept()


Make = Callable[..., StoredCheckpoints]


@pytest.fixture
def make(
    place: tuple[TrialCheckpoints, BrokenFilesystem],
    tmp_path: Path,
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
) -> Make:
    monkeypatch.setattr(stored_checkpoints, "RETRY_S", (0.01, 0.02))
    monkeypatch.setattr(TrialCheckpoints, "open", lambda root, number: place[0])

    def made(attempt: int = 1, keep: Keep | None = None, start: str | None = None):
        scratch = tmp_path / f"scratch-{attempt}"
        return StoredCheckpoints(
            "fake://store",
            3,
            attempt,
            keep,
            start=start,
            directory=lambda: scratch,
            note=kept.notes.append,
        )

    return made


def model(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "model.pt"
    path.write_text(text)
    return path


def test_a_checkpoint_counts_once_it_is_stored_and_the_objective_may_change_its_file(
    make: Make, kept: Kept, tmp_path: Path
) -> None:
    checkpoints = make()
    checkpoints.keep(model(tmp_path, "one"), 4, kept)
    model(tmp_path, "two")
    checkpoints.close()
    assert kept.locations == [("fake://store/3/attempt-1-step-4-1/model.pt", 4)]
    path = make(2).restore(kept.locations[0][0])
    assert path is not None
    assert (path.read_text(), path.parent.name) == ("one", "attempt-1-step-4-1")
    assert list((tmp_path / "scratch-1" / "checkpoints").iterdir()) == []


def test_a_store_that_is_away_delays_checkpoints_and_not_training(
    make: Make, kept: Kept, place: tuple[TrialCheckpoints, BrokenFilesystem], tmp_path: Path
) -> None:
    """Fault 53."""
    checkpoints = make(keep=Keep(last=1, best=1))
    place[1].fault = "away"
    for step, value in enumerate([0.5, 0.1, 0.4, 0.3]):
        checkpoints.note(step, value)
        checkpoints.keep(model(tmp_path, str(step)), step, kept)
    kept.until(lambda: bool(kept.notes))
    assert "waits on this machine's disk" in kept.notes[0]
    assert kept.locations == []
    waiting = {path.name for path in (tmp_path / "scratch-1" / "checkpoints").iterdir()}
    assert waiting == {"attempt-1-step-0-1", "attempt-1-step-1-2", "attempt-1-step-3-4"}
    place[1].fault = ""
    checkpoints.close()
    assert [step for _, step in kept.locations] == [0, 1, 3]
    assert len(kept.notes) == 1


def test_a_slow_store_delays_no_training(
    make: Make, kept: Kept, place: tuple[TrialCheckpoints, BrokenFilesystem], tmp_path: Path
) -> None:
    """Fault 54."""
    checkpoints = make()
    place[1].fault = "slow"
    began_s = time.monotonic()
    for step in range(50):
        checkpoints.keep(model(tmp_path, str(step)), step, kept)
    assert time.monotonic() - began_s < 5
    assert len(list((tmp_path / "scratch-1" / "checkpoints").iterdir())) == 2
    place[1].is_ready.set()
    checkpoints.close()
    assert [step for _, step in kept.locations] == [0, 49]


def test_an_attempt_does_not_wait_for_ever(
    make: Make,
    kept: Kept,
    place: tuple[TrialCheckpoints, BrokenFilesystem],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fault 55."""
    monkeypatch.setattr(stored_checkpoints, "WAIT_S", 0.1)
    checkpoints = make()
    place[1].fault = "full"
    checkpoints.keep(model(tmp_path, "x"), 1, kept)
    checkpoints.close()
    assert kept.locations == []
    assert "is lost" in kept.notes[-1]
    place[1].fault = ""
    assert place[0].names() == []


@pytest.mark.parametrize(
    ("keep", "steps"),
    [
        (Keep(), [1, 4]),
        (Keep(best=2, last=2), [1, 3, 4]),
        (Keep(best=0), [4]),
    ],
)
def test_the_best_and_the_last_are_kept(
    make: Make, kept: Kept, store: TrialCheckpoints, tmp_path: Path, keep: Keep, steps: list[int]
) -> None:
    checkpoints = make(keep=keep)
    for step, value in enumerate([0.5, 0.1, 0.9, 0.2, 0.3]):
        checkpoints.note(step, value)
        checkpoints.keep(model(tmp_path, str(step)), step, kept)
        kept.until(lambda: len(kept.locations) == step + 1)  # noqa: B023
        checkpoints.forget_before(kept.locations[-1][0])
    expected = {f"attempt-1-step-{step}-{step + 1}" for step in steps}
    kept.until(lambda: set(store.names()) == expected)
    kept.until(lambda: stored(tmp_path / "store") == len(steps))


def test_the_best_of_an_earlier_attempt_is_kept(
    make: Make, kept: Kept, store: TrialCheckpoints, tmp_path: Path
) -> None:
    first = make()
    first.note(1, 0.1)
    first.keep(model(tmp_path, "best"), 1, kept)
    first.close()
    second = make(2, start=kept.locations[0][0])
    second.note(2, 0.4)
    second.keep(model(tmp_path, "later"), 2, kept)
    second.close()
    make(2).forget_before(kept.locations[1][0])  # the worker's, beside the objective's process
    kept.until(lambda: threading.active_count() == 1 or not _deleting())
    assert sorted(store.names()) == ["attempt-1-step-1-1", "attempt-2-step-2-1"]


def _deleting() -> bool:
    return any(thread.name == "checkpoints" for thread in threading.enumerate())


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    make: Make, kept: Kept, tmp_path: Path
) -> None:
    """Fault 56."""
    checkpoints = make()
    for step in (1, 2):
        checkpoints.keep(model(tmp_path, f"after {step}"), step, kept)
    checkpoints.close()
    (damaged,) = (tmp_path / "store" / "3" / "attempt-1-step-2-2").rglob("sha256/*/*")
    damaged.write_text("something")
    path = make(2).restore(kept.locations[1][0])
    assert path is not None
    assert path.read_text() == "after 1"
    assert "cannot be used" in kept.notes[0]


def test_nothing_new_relies_on_damaged_content(
    make: Make, kept: Kept, store: TrialCheckpoints, tmp_path: Path
) -> None:
    """Fault 56."""
    folder = folder_of(tmp_path / "state", base="frozen", head="1")
    first = make()
    first.keep(folder, 1, kept)
    first.close()
    for content in (tmp_path / "store" / "3").rglob("sha256/*/*"):
        if content.read_text() == "frozen":
            content.write_text("thawed")
    second = make(2, start=kept.locations[0][0])
    assert second.restore(kept.locations[0][0]) is None
    second.keep(folder, 2, kept)
    second.close()
    back = store.get("attempt-2-step-2-1", tmp_path / "back")
    assert contents(back) == {"base": "frozen", "head": "1"}


def test_a_checkpoint_that_is_gone_is_none(make: Make) -> None:
    assert make(2).restore("fake://store/3/attempt-1-step-2-2/model.pt") is None


def test_a_start_waits_for_a_store_that_is_away(
    make: Make, kept: Kept, place: tuple[TrialCheckpoints, BrokenFilesystem], tmp_path: Path
) -> None:
    """Fault 53."""
    checkpoints = make()
    checkpoints.keep(model(tmp_path, "x"), 1, kept)
    checkpoints.close()
    place[1].fault = "away"
    back = threading.Timer(0.1, lambda: setattr(place[1], "fault", ""))
    back.start()
    assert make(2).restore(kept.locations[0][0]) is not None
    assert "waits for the checkpoint store" in kept.notes[0]


def test_a_missing_checkpoint_says_so(store: TrialCheckpoints) -> None:
    with pytest.raises(ArtifactMissing):
        store.find("attempt-1-step-2-2")


def test_a_copy_starts_from_another_trials_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    root = f"file://{tmp_path}/store"
    parent = TrialCheckpoints.open(root, 3)
    file = tmp_path / "model.pt"
    file.write_text("weights")
    location = parent.location(parent.put(file, "attempt-1-step-5-1"))
    copy = StoredCheckpoints(root, 4, 1, start=location, directory=lambda: tmp_path / "scratch")
    restored = copy.restore(location)
    assert restored is not None
    assert restored.read_text() == "weights"
    assert restored.parent.name == "attempt-1-step-5-1"
    kept: list[str] = []
    for step in (6, 7, 10):
        copy.note(step, 1.0 / step)
        copy.keep(file, step, lambda location, _: kept.append(location))
        while step not in (int(one.split("-")[-2]) for one in map(_folder_of, kept)):
            time.sleep(0.01)
    copy.close()
    copy.forget_before(kept[-1], [kept[0]])
    names = TrialCheckpoints.open(root, 4).names()
    assert sorted(names) == ["attempt-1-step-10-3", "attempt-1-step-6-1"]
    parent.delete(["attempt-1-step-5-1"], ["attempt-1-step-5-1"])
    assert copy.restore(location) is None, "not one of its own: a member does not start over"


def _folder_of(location: str) -> str:
    return location.rsplit("/", 2)[1]
