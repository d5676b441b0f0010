"""Location of an attempt's checkpoints, and the ones that are kept."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from tunesvc.execution.attempt.checkpoints import Checkpoints, checkpoint_files, step_of
from tunesvc.spec.goals import Goal
from tunesvc.spec.sections.execution_keys import Keep


@pytest.mark.parametrize("step", [-1, 0, 7])
def test_a_checkpoint_is_a_copy_that_knows_its_step(tmp_path: Path, step: int) -> None:
    model = tmp_path / "model.txt"
    model.write_text("weights")
    kept = Checkpoints(tmp_path / "kept", trial_number=3, attempt_number=2).save(model, step)
    model.unlink()
    assert kept.read_text() == "weights"
    assert step_of(kept) == step


def test_older_ones_are_deleted_only_when_a_newer_one_is_recorded(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    checkpoints = Checkpoints(tmp_path / "kept", 0, 1)
    first, second = checkpoints.save(model, 1), checkpoints.save(model, 2)
    assert first.exists()
    checkpoints.forget_before(second)
    assert (first.exists(), second.exists()) == (False, True)


def test_checkpoints_are_listed_while_others_are_saved_and_removed(tmp_path: Path) -> None:
    """A worker keeps to `keep` as soon as a checkpoint is recorded, while its trial saves more."""
    model = tmp_path / "model.txt"
    model.write_text("weights")
    checkpoints = Checkpoints(tmp_path / "kept", trial_number=0, attempt_number=1)
    has_ended = threading.Event()

    def save_many() -> None:
        for step in range(300):
            checkpoints.save(model, step)
        has_ended.set()

    saving = threading.Thread(target=save_many)
    saving.start()
    while not has_ended.is_set():
        for file in checkpoint_files(tmp_path / "kept" / "0"):
            shutil.rmtree(file.path.parent)
    saving.join()


def saved(checkpoints: Checkpoints, model: Path, values: list[float], first: int = 0) -> None:
    """Report each value and save; every checkpoint is recorded at once."""
    for step, value in enumerate(values, first):
        checkpoints.note(step, value)
        checkpoints.forget_before(checkpoints.save(model, step))


@pytest.mark.parametrize(
    ("keep", "goal", "steps"),
    [
        (Keep(), "minimize", [1, 4]),
        (Keep(), "maximize", [2, 4]),
        (Keep(best=2, last=2), "minimize", [1, 3, 4]),
        (Keep(best=0), "minimize", [4]),
        (Keep(best=9), "minimize", [0, 1, 2, 3, 4]),
    ],
)
def test_the_best_and_the_last_are_kept(
    tmp_path: Path, keep: Keep, goal: Goal, steps: list[int]
) -> None:
    model = tmp_path / "model"
    model.touch()
    saved(
        Checkpoints(tmp_path, 0, 1, keep, goal=goal),
        model,
        [0.5, 0.1, 0.9, 0.2, 0.3],
    )
    assert [file.step for file in checkpoint_files(tmp_path / "0")] == steps


def test_the_best_of_an_earlier_attempt_is_kept_until_there_is_a_better_one(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.touch()
    saved(Checkpoints(tmp_path, 0, 1), model, [0.5, 0.1, 0.3])
    second = Checkpoints(tmp_path, 0, 2)
    saved(second, model, [0.4, float("nan")], first=3)
    assert [(file.attempt, file.step) for file in checkpoint_files(tmp_path / "0")] == [
        (1, 1),
        (2, 4),
    ]
    saved(second, model, [0.05, 0.06], first=5)
    assert [(file.attempt, file.step) for file in checkpoint_files(tmp_path / "0")] == [
        (2, 5),
        (2, 6),
    ]


def test_what_cannot_be_read_of_earlier_values_costs_no_trial(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.touch()
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "values.json").write_text("[1")
    saved(Checkpoints(tmp_path, 0, 1), model, [0.5, 0.1, 0.3])
    assert [file.step for file in checkpoint_files(tmp_path / "0")] == [1, 2]


def test_those_that_copies_may_start_from_stay(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_text("weights")
    checkpoints = Checkpoints(tmp_path / "kept", 0, 1)
    paths = [checkpoints.save(model, step) for step in (5, 6, 10)]
    checkpoints.forget_before(str(paths[-1]), [str(paths[0])])
    assert [path.exists() for path in paths] == [True, False, True]
    checkpoints.forget_before(str(paths[-1]))
    assert [path.exists() for path in paths] == [False, False, True]
