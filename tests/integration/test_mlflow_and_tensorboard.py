"""Trials in real stores of MLflow and TensorBoard: parameters, curves and ends, each once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa

from tests.support import stored_studies
from tests.support.logger_senders import sender
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.integrations.loggers.mlflow_logger import MlflowLogger
from tunesvc.integrations.loggers.tensorboard_logger import TensorBoardLogger
from tunesvc.integrations.loggers.trial_logger import LoggedPoint, LoggedStudy, LoggedTrial

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def study(database: Database) -> optuna.Study:
    """A study of this process, whose trials run as the test says."""
    return optuna.create_study(study_name="live", storage=PgStorage(database))


# --- MLflow ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A local store of MLflow, which takes a second to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def test_mlflow_has_parameters_curves_states_and_results(database: Database, uri: str) -> None:
    import mlflow

    stored_studies.fill(database, 20, running=1, name="live", tags=["mine"])
    sender(database, MlflowLogger(uri)).send_new()
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("live")
    runs = client.search_runs([experiment.experiment_id], "tags.`mine` = 'true'")
    by_number = {int(run.data.tags["tunesvc.trial"]): run for run in runs}
    assert sorted(by_number) == list(range(20))
    complete, running = by_number[0], by_number[19]
    assert complete.info.status == "FINISHED"
    assert complete.data.params.keys() == {"x", "n"}
    history = client.get_metric_history(complete.info.run_id, "loss")
    assert [metric.step for metric in history] == [0, 1, 2, 3, 4, 5]
    assert complete.data.metrics["result/loss"] == pytest.approx(0.09 + 0.05)
    assert running.info.status == "RUNNING"
    assert complete.data.tags["tunesvc.state"] == "complete"


def test_mlflow_has_each_metric_once_after_a_crash_before_its_record(
    database: Database, study: optuna.Study, uri: str
) -> None:
    """The process is killed after MLflow has the run and before the store knows it."""
    import mlflow

    trial = study.ask()
    for step in range(5):
        trial.report(step / 10, step)
    sender(database, MlflowLogger(uri, "killed")).send_new()
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE logged_trials SET run = NULL"))
    trial.report(0.5, 5)
    study.tell(trial, 0.5)
    sender(database, MlflowLogger(uri, "killed")).send_new()
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE logged_trials SET run = NULL, complete = false"))
    sender(database, MlflowLogger(uri, "killed")).send_new()
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("killed").experiment_id])
    history = client.get_metric_history(run.info.run_id, "value")
    assert [metric.step for metric in history] == [0, 1, 2, 3, 4, 5]
    assert len(client.get_metric_history(run.info.run_id, "result/value")) == 1


def test_mlflow_gets_parameters_once_while_a_trial_runs(
    database: Database, study: optuna.Study, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a study without a declared space are known when it ends."""
    import mlflow

    sent: list[list[str]] = []
    log_batch = mlflow.MlflowClient.log_batch

    def count(client: Any, run: str, metrics: Any, params: Any, tags: Any) -> None:
        sent.append([param.key for param in params])
        log_batch(client, run, metrics, params, tags)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", count)
    logger = MlflowLogger(uri, "once")
    trial = LoggedTrial(
        LoggedStudy("once", "key", ""), 0, "running", False, {"x": 1}, {}, {}, (), {}, NOW, None, 0
    )
    logger.open(trial.study)
    run = None
    for step in range(3):
        run = logger.send(run, trial, [LoggedPoint(step, NOW, {"loss": 0.1})])
    ended = replace(trial, state="complete", is_finished=True, ended_at=NOW)
    logger.send(run, ended, [LoggedPoint(3, NOW, {"loss": 0.1})])
    assert sent == [["x"], [], [], []]


# --- TensorBoard ----------------------------------------------------------------------------------


def test_tensorboard_has_curves_and_a_row_of_its_hparams_page(
    database: Database, tmp_path: Path
) -> None:
    stored_studies.fill(database, 14, running=0, name="live")
    logger = TensorBoardLogger(str(tmp_path / "runs"))
    sender(database, logger).send_new()
    run = _tensorboard(tmp_path / "runs/live/trial-0")
    assert [event.step for event in run.Scalars("loss")] == [0, 1, 2, 3, 4, 5]
    assert run.Scalars("result/loss")[0].value == pytest.approx(0.14)
    started = _hparams(run, "session_start_info")
    assert {name: value.number_value for name, value in started.hparams.items()} == {
        "x": 0.0,
        "n": 1.0,
    }
    assert started.group_name == "live/trial-0"
    assert _hparams(run, "session_end_info").status == 1  # success
    assert len(list((tmp_path / "runs/live").iterdir())) == 14


def test_tensorboard_has_each_step_once_after_a_crash_in_the_middle_of_a_trial(
    database: Database, study: optuna.Study, tmp_path: Path
) -> None:
    trial = study.ask()
    trial.report(1.0, 1)
    sender(database, TensorBoardLogger(str(tmp_path))).send_new()
    trial.report(0.5, 2)
    trial.set_user_attr("kind", "a|b")
    sender(database, TensorBoardLogger(str(tmp_path))).send_new()
    study.tell(trial, 0.5)
    sender(database, TensorBoardLogger(str(tmp_path))).send_new()
    run = _tensorboard(tmp_path / "live/trial-0")
    assert [event.step for event in run.Scalars("value")] == [1, 2]
    assert len(run.Scalars("result/value")) == 1
    table = run.Tensors("trial/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '| kind | "a\\|b" |' in table.splitlines()


def _tensorboard(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = EventAccumulator(str(folder))
    run.Reload()
    return run


def _hparams(run: Any, name: str) -> Any:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = run.SummaryMetadata(f"_hparams_/{name}").plugin_data.content
    return getattr(HParamsPluginData.FromString(content), name)
