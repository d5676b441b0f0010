"""Base of all integrations; each framework has a file of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

import tunesvc.integrations
from tests.support.integrations_page import run_snippet
from tests.support.recording_channel import RecordingChannel
from tunesvc import Pruned, Trial
from tunesvc.errors import BadReport
from tunesvc.execution.attempt.failures import outcome_of
from tunesvc.execution.executor import Failed, StoppedEarly
from tunesvc.integrations.step_reporter import Save, StepReporter, select

VALUES = {"valid-l2": 0.5, "valid-auc": 0.9}


def test_a_metric_is_reported_as_the_studys() -> None:
    assert select("valid-auc", VALUES) == 0.9
    assert select({"auc": "valid-auc", "l2": "valid-l2"}, VALUES) == {"auc": 0.9, "l2": 0.5}
    assert select(None, {"loss": 0.1}) == 0.1


def test_a_metric_that_cannot_be_told_is_an_error_with_those_that_there_are() -> None:
    with pytest.raises(BadReport, match="did you mean `valid-auc`.*found: valid-l2, valid-auc"):
        select("valid_auc", VALUES)
    with pytest.raises(BadReport, match="name the metric .* there are valid-l2, valid-auc"):
        select(None, VALUES)
    with pytest.raises(BadReport, match="validation data"):
        select(None, {})


def write_step(step: int) -> Save:
    return lambda path: path.write_text(str(step))


def test_a_checkpoint_is_saved_every_few_steps_and_when_the_trial_stops(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path, stop_after=5)
    reporter = StepReporter(Trial(channel, metrics=("loss",)), checkpoint_every=2)
    with pytest.raises(Pruned):
        for step in range(1, 9):
            reporter.report(step, {"any": 1 / step}, write_step(step))
    assert channel.steps == [1, 2, 3, 4, 5]
    assert {step: path.read_text() for step, path in channel.saved.items()} == {
        2: "2",
        4: "4",
        5: "5",
    }


def test_a_member_of_a_population_pauses_with_its_checkpoint(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path, pause_at=4)
    reporter = StepReporter(Trial(channel, metrics=("loss",)), checkpoint_every=2)
    with pytest.raises(Pruned, match="pauses after step 4"):
        for step in range(1, 9):
            reporter.report(step, 1 / step, write_step(step))
    assert channel.steps == [1, 2, 3, 4]
    assert list(channel.saved) == [2, 4]


def test_no_checkpoint_is_saved_unless_asked_for(tmp_path: Path) -> None:
    channel = RecordingChannel(tmp_path, stop_after=2)
    reporter = StepReporter(Trial(channel, metrics=("loss",)))
    reporter.report(1, {"any": 1.0}, write_step(1))
    with pytest.raises(Pruned):
        reporter.report(2, {"any": 1.0}, write_step(2))
    assert channel.saved == {}


def test_tunesvc_loads_no_framework() -> None:
    code = "import sys, tunesvc.cli, tunesvc.integrations; print('tunesvc.integrations.' in ' '.join(sys.modules))"
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def test_a_missing_framework_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    monkeypatch.delitem(sys.modules, "tunesvc.integrations.lightgbm", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'tunesvc\[lightgbm\]'"):
        _ = tunesvc.integrations.LightGBMReporter
    with pytest.raises(AttributeError, match="LightGMBReporter"):
        _ = tunesvc.integrations.LightGMBReporter


@pytest.mark.parametrize(
    ("heading", "framework"),
    [("LightGBM", "lightgbm"), ("XGBoost", "xgboost"), ("scikit-learn", "sklearn")],
)
def test_a_snippet_of_the_page_trains_without_a_study(
    heading: str, framework: str, tmp_path: Path
) -> None:
    pytest.importorskip(framework)
    train = run_snippet(heading, tmp_path / "snippet.py")["train"]
    with threadpool_limits(1):
        assert 0 < train(lr=0.1) < 10_000


def test_a_detached_trial_reports_a_plain_number() -> None:
    Trial().report(1, 0.5)


def test_a_trial_pruned_in_a_child_process_of_pytorch_is_pruned() -> None:
    """PyTorch raises its own exception in the parent, with the child's traceback as text."""
    raised = type("ProcessRaisedException", (Exception,), {"__module__": "torch.multiprocessing"})
    text = "Traceback (most recent call last):\n  ...\ntunesvc.errors.Pruned: trial 3 was asked to stop"
    assert isinstance(outcome_of(raised(text), stop_requested=True), StoppedEarly)
    assert isinstance(outcome_of(raised("ValueError: broken"), stop_requested=True), Failed)
