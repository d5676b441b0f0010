"""The callback of Hugging Face's `Trainer`, in real trainings of a tiny model made from a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.recording_channel import RecordingChannel, trial_on
from tunesvc import Pruned, Trial
from tunesvc.errors import BadReport

pytest.importorskip("transformers")
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from tunesvc.integrations import TransformersReporter

EPOCHS = 4
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)


def dataset() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 16, (16, 4), generator=generator)
    return [{"input_ids": row, "labels": int(row[0] > 8)} for row in tokens]


def build(trial: Any = None) -> Any:
    set_seed(0)
    config = BertConfig(
        vocab_size=16,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    return BertForSequenceClassification(config)


class Ends(TrainerCallback):
    """Notes that the training ended in order."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.seen.append(state.global_step)


def train(
    trial: Trial,
    folder: Path,
    *others: Any,
    metric: Any = "eval_loss",
    data: Any = None,
    **options: Any,
) -> Any:
    reporter = TransformersReporter(trial, metric)
    defaults = {"eval_strategy": "epoch", "save_strategy": "no", "num_train_epochs": EPOCHS}
    args = TrainingArguments(
        str(folder / "out"),
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        learning_rate=0.01,
        **defaults | options,
    )
    rows = dataset()
    trainer = Trainer(
        build(), args, train_dataset=rows, eval_dataset=data or rows, callbacks=[*others, reporter]
    )
    trainer.train(resume_from_checkpoint=reporter.restored)
    return trainer


def test_evaluations_by_epoch_are_reported_by_epoch(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path)
    trainer = train(trial_on(channel), tmp_path, metric={"loss": "eval_loss"})
    assert channel.steps == [1, 2, 3, 4]
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [values["loss"] for _, values in channel.reports] == evaluated
    trainer.evaluate()
    assert channel.steps == [1, 2, 3, 4], "an evaluation after training is no step"
    assert channel.saved == {}


def test_evaluations_by_step_are_reported_by_step(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path)
    train(trial_on(channel), tmp_path, eval_strategy="steps", eval_steps=3)
    assert channel.steps == [3, 6, 9, 12, 15, 16]


@pytest.mark.parametrize(
    ("strategy", "steps", "saved"),
    [
        ({"eval_strategy": "epoch", "save_strategy": "epoch"}, [1, 2, 3, 4], 2),
        (
            {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 3, "save_steps": 6},
            [3, 6, 9, 12, 15, 16],
            6,
        ),
    ],
    ids=["epochs", "steps"],
)
def test_a_pruned_training_ends_in_order_and_continues_to_the_same_weights(
    tmp_path: Path, strategy: dict[str, Any], steps: list[int], saved: int
) -> None:
    whole = train(trial_on(RecordingChannel(tmp_path / "0")), tmp_path / "whole", **strategy)
    ends = Ends()
    first = RecordingChannel(tmp_path / "1", stop_after=3)
    with pytest.raises(Pruned):
        train(trial_on(first), tmp_path / "first", ends, **strategy)
    assert first.steps == steps[:3]
    last = steps[2]
    assert set(first.saved) >= {saved, last}, "a paused trial continues from its last report"
    assert len(ends.seen) == 1
    for step in (saved, last):
        again = RecordingChannel(tmp_path / f"from-{step}")
        trainer = train(trial_on(again, first.saved[step]), tmp_path / f"again-{step}", **strategy)
        assert again.steps == [one for one in steps if one > step]
        assert trainer.state.global_step == 16
        for mine, theirs in zip(trainer.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.allclose(mine, theirs, atol=1e-6)


def test_of_several_data_sets_the_named_metric_is_reported(tmp_path: Path) -> None:
    channel, both = RecordingChannel(tmp_path), {"old": dataset(), "new": dataset()}
    metric = {"loss": "eval_new_loss", "old": "eval_old_loss"}
    train(trial_on(channel), tmp_path, metric=metric, data=both, num_train_epochs=2)
    assert [(step, set(values)) for step, values in channel.reports] == [
        (1, {"loss", "old"}),
        (2, {"loss", "old"}),
    ]
    with pytest.raises(BadReport, match="did you mean `eval_new_loss`"):
        train(trial_on(channel), tmp_path, metric="eval_news_loss", data=both)


def test_a_member_of_a_population_pauses_in_order_with_its_checkpoint(tmp_path: Path) -> None:
    channel, ends = RecordingChannel(tmp_path, pause_at=2), Ends()
    with pytest.raises(Pruned):
        train(trial_on(channel), tmp_path, ends, save_strategy="epoch")
    assert channel.steps == [1, 2]
    assert list(channel.saved) == [1, 2]
    assert len(ends.seen) == 1
