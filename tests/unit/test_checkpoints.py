"""Where an attempt's checkpoints lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesvc.execute.checkpoints import Checkpoints, step_of


@pytest.mark.parametrize("step", [-1, 0, 7])
def test_a_checkpoint_is_a_copy_that_knows_its_step(tmp_path: Path, step: int) -> None:
    model = tmp_path / "model.txt"
    model.write_text("weights")
    kept = Checkpoints(tmp_path / "kept", trial_number=3, attempt_number=2, restored=None).save(model, step)
    model.unlink()
    assert kept.read_text() == "weights"
    assert step_of(kept) == step


def test_older_ones_are_deleted_only_when_a_newer_one_is_recorded(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    checkpoints = Checkpoints(tmp_path / "kept", 0, 1, None)
    first, second = checkpoints.save(model, 1), checkpoints.save(model, 2)
    assert first.exists()
    checkpoints.forget_before(second)
    assert (first.exists(), second.exists()) == (False, True)
