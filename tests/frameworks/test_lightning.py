"""Lightning's callback, in real trainings."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.support.recording_channel import RecordingChannel, trial_on
from tests.support.specs import make_spec
from tunesvc import Pruned, Trial
from tunesvc.execution.attempt.attempt import Attempt, WorkerInfo
from tunesvc.execution.executor import AttemptId, Checkpointed, Job, Launch, Reported, StoppedEarly
from tunesvc.execution.worker.outbox import Outbox

pytest.importorskip("lightning")
import lightning  # after the skip
import torch
from lightning.pytorch.loggers import CSVLogger

from tunesvc.integrations import LightningReporter

EPOCHS = 5
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)


class Net(lightning.LightningModule):
    """A linear model of noise; its data are always the same."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.ended: list[str] = []

    def training_step(self, batch: Any, index: int) -> Any:
        x, y = batch
        loss = ((self.layer(x) - y) ** 2).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        x, y = batch
        self.log("val_loss", ((self.layer(x) - y) ** 2).mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)]


class Ends(lightning.Callback):
    """Notes what Lightning calls when it ends by an exception."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.seen.append(type(exception).__name__)


def loader() -> Any:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 3, generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True)), 8)


def fit(
    trial: Trial, folder: Path, *others: Any, checkpoint_every: int = 0, **options: Any
) -> tuple[Any, Any]:
    reporter = LightningReporter(trial, "val_loss", checkpoint_every)
    torch.manual_seed(0)
    model = Net()
    defaults = {"logger": False, "enable_checkpointing": False, "max_epochs": EPOCHS}
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[reporter, *others],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **defaults | options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, loader(), loader(), ckpt_path=reporter.restored)
    return model, trainer


def test_each_epoch_is_reported_once_and_the_sanity_check_is_not(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path)
    _, trainer = fit(trial_on(channel), tmp_path, val_check_interval=0.5)
    assert channel.steps == list(range(1, EPOCHS + 1))
    assert channel.reports[-1][1]["loss"] == float(trainer.callback_metrics["val_loss"])
    assert channel.saved == {}


def test_only_epochs_with_validation_are_reported(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path)
    fit(trial_on(channel), tmp_path, check_val_every_n_epoch=2)
    assert channel.steps == [2, 4]


def test_a_pruned_training_ends_in_order_and_continues_to_the_same_weights(tmp_path: Path) -> None:
    whole, _ = fit(trial_on(RecordingChannel(tmp_path / "0")), tmp_path)
    ends, logger = Ends(), CSVLogger(tmp_path / "logs")
    first = RecordingChannel(tmp_path / "1", stop_after=3)
    with pytest.raises(Pruned):
        fit(trial_on(first), tmp_path, ends, checkpoint_every=2, logger=logger, log_every_n_steps=1)
    assert first.steps == [1, 2, 3]
    assert list(first.saved) == [2, 3]
    assert ends.seen == ["Pruned"]
    assert "val_loss" in (Path(logger.log_dir) / "metrics.csv").read_text()
    for step in (2, 3):
        again = RecordingChannel(tmp_path / f"from-{step}")
        model, trainer = fit(trial_on(again, first.saved[step]), tmp_path, checkpoint_every=2)
        assert again.steps == list(range(step + 1, EPOCHS + 1))
        assert trainer.global_step == EPOCHS * 4
        for mine, theirs in zip(model.parameters(), whole.parameters(), strict=True):
            assert torch.allclose(mine, theirs), "optimizer or scheduler were not restored"


def test_the_first_of_several_processes_reports_and_all_of_them_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    spec, outbox = make_spec(), Outbox()
    job = Job("s", "key", ("loss",), spec.resources, spec.environment, str(tmp_path))
    launch = Launch(AttemptId(1, 1), 0, {}, seed=0)
    attempt = Attempt(job, launch, WorkerInfo("here", os.getpid()), outbox)
    attempt.stop()

    def objective(attempt: Attempt) -> dict[str, float]:
        processes = {"strategy": "ddp_spawn", "devices": 2}
        fit(attempt.trial(), tmp_path, checkpoint_every=3, **processes)
        return {"loss": 1.0}

    assert isinstance(attempt.outcome(objective), StoppedEarly)
    sent = [payload for _, payload in outbox.take(0)]
    assert [one.step for one in sent if isinstance(one, Reported)] == [1]
    assert [one.step for one in sent if isinstance(one, Checkpointed)] == [1]
