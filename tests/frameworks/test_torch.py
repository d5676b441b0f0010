"""Loops in plain PyTorch."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.recording_channel import RecordingChannel, trial_on
from tunesvc import Pruned, Trial

torch = pytest.importorskip("torch")
from tunesvc.integrations import TorchReporter  # noqa: E402  # it needs PyTorch
from tunesvc.integrations.torch import _restore_random  # noqa: E402

STEPS = 6


def train(trial: Trial, checkpoint_every: int = 2) -> tuple[Any, list[float]]:
    """Train with noise from three sources of random numbers."""
    torch.manual_seed(0)
    np.random.seed(0)  # the global one is what is restored
    random.seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    reporter = TorchReporter(
        trial, checkpoint_every, model=model, optimizer=optimizer, scheduler=scheduler
    )
    losses = []
    for epoch in reporter.steps(STEPS):
        noise = float(np.random.normal()) + random.random()
        loss = (model(torch.randn(8, 3) + noise) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        reporter.report(epoch, loss=loss.item(), lr=scheduler.get_last_lr()[0])
    return model, losses


def test_an_interrupted_loop_continues_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = RecordingChannel(tmp_path / "0")
    model, losses = train(trial_on(whole))
    assert whole.steps == list(range(1, STEPS + 1))
    first = RecordingChannel(tmp_path / "1", stop_after=5)
    with pytest.raises(Pruned):
        train(trial_on(first))
    assert list(first.saved) == [2, 4, 5]
    for step in (2, 5):
        again = RecordingChannel(tmp_path / f"from-{step}")
        continued, rest = train(trial_on(again, first.saved[step]))
        assert again.reports == whole.reports[step:]
        assert rest == losses[step:]
        for mine, theirs in zip(continued.parameters(), model.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_nothing_is_saved_or_restored_unless_asked_for(tmp_path: Path) -> None:
    first = RecordingChannel(tmp_path / "0", stop_after=4)
    with pytest.raises(Pruned):
        train(trial_on(first))
    channel = RecordingChannel(tmp_path / "1")
    train(trial_on(channel, first.saved[2]), checkpoint_every=0)
    assert channel.steps == list(range(1, STEPS + 1))
    assert channel.saved == {}


def test_random_states_of_more_devices_than_there_are_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    restored: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.extend)
    states = {"python": random.getstate(), "torch": torch.get_rng_state(), "cuda": ["0", "1"]}
    _restore_random(states)
    assert restored == ["0"]
