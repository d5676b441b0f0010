"""The meaning of errors that an objective gets from its gang's processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, NodeDiedError, RayActorError, RayTaskError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from tunesvc.artifacts.checkpoint_archive import CHUNK_BYTES, unpack
from tunesvc.errors import BadReport, Pruned
from tunesvc.execution.attempt.failures import outcome_of
from tunesvc.execution.executor import Failed, Lost, StoppedEarly
from tunesvc.execution.gang import gang_archive
from tunesvc.execution.gang.gang_archive import pack_whole
from tunesvc.execution.gang.gang_errors import loss_in


def test_a_checkpoint_that_is_too_large_to_travel_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.write_bytes(bytes(5 * CHUNK_BYTES))
    whole = pack_whole(model)
    assert unpack(whole, tmp_path / "there").read_bytes() == model.read_bytes()
    monkeypatch.setattr(gang_archive, "ARCHIVE_MAX_BYTES", 3 * CHUNK_BYTES)
    with pytest.raises(BadReport, match="'model' has more than .*strategy: STRICT_PACK"):
        pack_whole(model)


def raised_from(cause: BaseException) -> BaseException:
    try:
        raise ValueError("the framework has its own error") from cause
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RayActorError(), "lost"),
        (raised_from(ActorDiedError()), "lost"),
        (NodeDiedError("the node was dead"), "node"),
        (RayActorError(preempted=True), "preempted"),
        (WorkerGroupError("", {0: RuntimeError("gloo"), 1: RayActorError()}), "lost"),
    ],
)
def test_the_death_of_a_process_is_a_loss_of_its_kind(error: BaseException, kind: str) -> None:
    lost = loss_in(error)
    assert isinstance(lost, Lost)
    assert lost.kind == kind


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        WorkerGroupError("", {0: ValueError("no")}),
        RayTaskError("f", "", ValueError()),
    ],
)
def test_an_error_of_the_user_is_none(error: BaseException) -> None:
    assert loss_in(error) is None


@pytest.mark.parametrize(
    "error",
    [
        RayTaskError("train", "", Pruned("asked to stop")).as_instanceof_cause(),
        WorkerGroupError("", {0: Pruned("asked to stop"), 1: RayActorError()}),
        ControllerError(Pruned("asked to stop")),
    ],
)
def test_a_process_that_was_pruned_ends_the_trial_early(error: BaseException) -> None:
    assert outcome_of(error, stop_requested=True) == StoppedEarly()


def test_the_memory_that_a_worker_of_ray_train_lacked_is_found() -> None:
    error = WorkerGroupError("", {1: MemoryError()})
    outcome = outcome_of(error, stop_requested=False)
    assert isinstance(outcome, Failed)
    assert outcome.kind == "host_oom"
