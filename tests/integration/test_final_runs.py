"""A study's last stages on real Ray and real Postgres: the test part is used once and recorded, and
the final model predicts anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

import tunesvc
from tests.objectives.on_models import flowers
from tunesvc.data.prepared_data import TEST, node_folder
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.errors import DataError, StudyFailed, TuneError
from tunesvc.preparation.data_store import DataStore
from tunesvc.queries.operations.final_runs import FINAL, OF_TRIAL
from tunesvc.study import Study

OBJECTIVES = Path(__file__).parent.parent / "objectives"
DATA = {
    "source": "on_models:flowers",
    "target": "kind",
    "split": {"validation": 0.2, "test": 0.2},
    "steps": [{"columns": "numeric", "apply": "standardize"}],
}
pytestmark = pytest.mark.usefixtures("local_ray")

RunStudy = Callable[..., Study]


@pytest.fixture
def run(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> RunStudy:
    """Write a study file beside its objectives, and run it."""
    shutil.copy(OBJECTIVES / "on_models.py", tmp_path)
    monkeypatch.setenv("TUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.delenv("TUNE_ARTIFACTS", raising=False)

    def run(**keys: Any) -> Study:
        spec = {
            "name": "flowers",
            "entrypoint": "on_models:classify",
            "evaluation": {"scoring": ["roc_auc", "accuracy"]},
            "parameters": {"x": {"min": -3.0, "max": 3.0}},
            "budget": 2,
            "parallelism": 1,
            "data": DATA,
        } | keys
        file = tmp_path / "study.yaml"
        file.write_text(json.dumps({name: key for name, key in spec.items() if key is not None}))
        return tunesvc.run(file, database_url=database_url)

    return run


def test_a_study_is_tested_once_and_becomes_a_model(
    run: RunStudy, tmp_path: Path, database_url: str
) -> None:
    study = run()
    best = study.best_trial
    with pytest.raises(DataError, match="no trained model of a study 'flowers'"):
        tunesvc.load_model("flowers")
    result = study.test()
    assert result is not None
    parts, scaler = by_hand(study)
    rows, y = parts["train"]
    by_x = LogisticRegression(C=10 ** best.params["x"]).fit(scaler.transform(rows), y)
    rows, y = parts[TEST]
    expected = roc_auc_score(y == "tulip", by_x.predict_proba(scaler.transform(rows))[:, 1])
    assert result.test == pytest.approx(expected, abs=1e-9)
    assert result.validation == best.value
    assert result.optimism == best.value - result.test
    assert result.error is not None
    assert 0.01 < result.error < 0.1
    assert (result.rows, set(result.scores), result.is_clean) == (180, {"accuracy"}, True)
    assert study.test() == result
    tested = tunesvc.load_study("flowers:test", database_url=database_url)
    assert [trial.state for trial in tested.trials] == ["complete"]
    assert tested.trials[0].params == best.params
    becomes_a_model(study, parts, tmp_path)


def becomes_a_model(study: Study, parts: dict[str, Any], tmp_path: Path) -> None:
    """Train the final model, and use it in a process that has no database."""
    model = study.apply(out=tmp_path / "out")
    assert model is not None
    both = [pd.concat(pair) for pair in zip(parts["train"], parts["validation"], strict=True)]
    scaler = StandardScaler().fit(both[0])
    x = study.best_trial.params["x"]
    by_hand = LogisticRegression(C=10**x).fit(scaler.transform(both[0]), both[1])
    rows, y = parts[TEST]
    expected = roc_auc_score(y == "tulip", by_hand.predict_proba(scaler.transform(rows))[:, 1])
    assert model.metadata.test == pytest.approx(expected, abs=1e-9)
    assert [use.kind for use in study.test_uses] == ["test", "apply"]
    assert study.test_result is not None
    assert study.test_result.is_clean  # the same configuration
    with pytest.raises(TuneError, match="out is there already"):
        study.apply(out=tmp_path / "out")
    program = """
        import sys
        import numpy as np, tunesvc
        from on_models import flowers
        table = flowers()
        model = tunesvc.load_model("flowers")
        batch = model.predict_proba(table)
        rows = [model.predict_proba(dict(row)) for _, row in table.iterrows()]
        assert np.array_equal(batch, np.concatenate(rows))
        assert np.array_equal(batch[5:7], model.predict_proba(table[5:7]))
        copy = tunesvc.load_model(sys.argv[1])
        assert np.array_equal(batch, copy.predict_proba(table))
        assert np.array_equal(batch[:1], copy.predict_proba(dict(table.iloc[0])))
        assert not {"sqlalchemy", "psycopg2", "ray", "optuna"} & set(sys.modules)
        print(list(model.predict({"a": 3.0, "b": 1, "c": 0})), model.metadata.trial)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "out")],
        env={
            **os.environ,
            "TUNE_DATABASE_URL": "postgresql://nowhere",
            "PYTHONPATH": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["['rose']", str(study.best_trial.number)], done.stderr


def by_hand(study: Study, *, folds: bool = False) -> tuple[dict[str, Any], StandardScaler]:
    """Return the rows of each part as they were read, and the scaler of the training part."""
    table, store = flowers(), DataStore.open()
    manifest = store.get("flowers")
    parts: dict[str, Any] = {}
    by_values = {tuple(row): place for place, row in enumerate(table[["a", "b", "c"]].to_numpy())}
    transformed = tunesvc.load_preparation("flowers").transform(table).to_numpy()
    places = {row.tobytes(): place for place, row in enumerate(transformed)}
    assert len(places) == len(by_values) == len(table)
    import pyarrow as pa

    stored = manifest.whole_parts if folds else manifest.parts
    for name, file in stored.items():
        content = b"".join(store.files.read(file.digest))
        frame = pa.ipc.open_file(content).read_all().to_pandas()
        found = [places[row.tobytes()] for row in frame[["a", "b", "c"]].to_numpy()]
        parts[name] = (table.iloc[found][["a", "b", "c"]], table.iloc[found]["kind"])
    assert sum(len(y) for _, y in parts.values()) == len(table)
    return parts, StandardScaler().fit(parts["train"][0])


@pytest.mark.slow
def test_a_test_part_that_is_not_there_is_refused_at_once(run: RunStudy, database_url: str) -> None:
    study = run(entrypoint="on_models:number", evaluation=None, data=None, metric="x", name="plain")
    with pytest.raises(TuneError, match="no test part, since it has no `data`"):
        study.test()
    with pytest.raises(TuneError, match=r"has run and saved no model: return the fitted model"):
        study.apply()
    with pytest.raises(TuneError, match="is itself a final run of 'plain'"):
        tunesvc.load_study("plain:apply", database_url=database_url).apply()
    with pytest.raises(TuneError, match="has no trial 9"):
        study.apply(9)
    final = tunesvc.load_study("plain:apply", database_url=database_url)
    final.extend(trials=1)
    with pytest.raises(TuneError, match=r"runs recommended configurations only: `tune apply plain"):
        final.resume()


@pytest.mark.slow
def test_another_choice_needs_again_and_is_a_use_that_all_studies_of_the_data_see(
    run: RunStudy,
) -> None:
    study = run()
    first = study.test()
    other = run(name="other")
    assert [use.study for use in other.test_uses] == ["flowers"]
    assert first is not None
    assert first.is_clean
    second = other.test()
    assert second is not None
    assert not second.is_clean
    assert "was used twice, for 2 configurations" in second.caution
    study.enqueue({"x": 0.5})
    study.resume()
    again = study.test(again=True)
    assert again is not None
    assert [use.study for use in again.uses] == ["flowers", "other", "flowers"]
    assert study.test() == again


@pytest.mark.slow
def test_an_objective_that_judges_itself_finds_the_test_part_as_validation(
    run: RunStudy, tmp_path: Path
) -> None:
    study = run(entrypoint="on_models:judged", evaluation=None, metric="error")
    result = study.test()
    assert result is not None
    parts, scaler = by_hand(study)
    rows, y = parts["train"]
    model = LogisticRegression(C=10 ** study.best_params["x"]).fit(scaler.transform(rows), y)
    rows, y = parts[TEST]
    assert result.test == pytest.approx(1 - model.score(scaler.transform(rows), y))
    assert result.error is None
    assert "would show how exact that is" in result.verdict
    applied = study.apply()
    assert applied is not None
    assert applied.metadata.file.endswith(".txt")
    assert applied.path.read_text() == "720 180"
    with pytest.raises(DataError, match="saved a checkpoint and returned no model"):
        applied.predict({"a": 1.0, "b": 1.0, "c": 1.0})
    assert len(applied.preparation.transform({"a": 1.0, "b": 1.0, "c": 1.0})) == 1


@pytest.mark.slow
def test_a_study_on_folds_is_trained_on_all_rows_but_the_test_part(run: RunStudy) -> None:
    data = {**DATA, "split": {"test": 0.2}}
    study = run(evaluation={"folds": 3, "scoring": ["roc_auc"]}, data=data)
    result, model = study.test(), study.apply()
    assert result is not None
    assert model is not None
    parts, scaler = by_hand(study, folds=True)
    rows, y = parts["train"]
    assert len(y) == 720
    expected = LogisticRegression(C=10 ** study.best_params["x"]).fit(scaler.transform(rows), y)
    rows, y = parts[TEST]
    by_hand_test = roc_auc_score(y == "tulip", expected.predict_proba(scaler.transform(rows))[:, 1])
    assert result.test == pytest.approx(by_hand_test, abs=1e-9)
    assert model.metadata.test == pytest.approx(result.test, abs=1e-12)
    assert result.error is not None
    version = DataStore.open().get("flowers").version
    assert model.metadata.preparation_version == version


@pytest.mark.slow
def test_no_ordinary_trial_finds_the_test_part(run: RunStudy) -> None:
    study = run(entrypoint="on_models:curious", evaluation=None, metric="found")
    assert [trial.value for trial in study.trials] == [0.0, 0.0]
    result = study.test()
    assert result is not None
    assert result.test == 0.0  # not in its own final run, either
    assert study.trials[0].value == 0.0


@pytest.mark.slow
def test_a_failing_final_run_is_no_use_and_runs_again(run: RunStudy, tmp_path: Path) -> None:
    study = run()
    module = tmp_path / "on_models.py"
    text = module.read_text()
    module.write_text(text.replace("return LogisticRegression", "return 1 / 0 and Logistic"))
    with pytest.raises((StudyFailed, TuneError), match="ZeroDivisionError"):
        study.test()
    assert study.test_uses == ()
    module.write_text(text)
    result = study.test()
    assert result is not None
    assert len(study.test_uses) == 1


@pytest.mark.slow
def test_an_isolated_process_scores_and_stores_too(run: RunStudy) -> None:
    study = run(environment={"isolation": "process"}, budget=1)
    result, model = study.test(), study.apply()
    assert result is not None
    assert model is not None
    assert result.error is not None
    assert model.metadata.test is not None
    assert 10 ** study.best_trial.params["x"] == model.model.C


@pytest.mark.slow
def test_the_source_may_be_gone_but_other_code_is_refused(run: RunStudy, tmp_path: Path) -> None:
    study = run(data={**DATA, "steps": [{"apply": {"class": "on_models:Halves"}}]})
    module = tmp_path / "on_models.py"
    text = module.read_text()
    module.write_text(text.replace("size=(900, 3)", "size=(901, 3)"))
    with pytest.raises(DataError, match="the code of its transformers"):
        study.apply()
    assert study.test() is not None  # needs what is stored alone
    module.write_text(text)
    assert study.apply() is not None


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("point", ["heard", "decided", "written", "committed"])
def test_a_kill_around_the_record_leaves_one_use(
    run: RunStudy, tmp_path: Path, database_url: str, point: str
) -> None:
    """Fault 1: a coordinator is killed between the evaluation and its record."""
    study = run(budget=1)
    environment = {
        **os.environ,
        "TUNE_DATABASE_URL": database_url,
        "TUNE_FAILPOINT": f"{point}:kill@3",
    }
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "tunesvc", "best", "flowers", "--test"]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode != 0
    result = study.test()
    assert result is not None
    assert len(result.uses) == 1


@pytest.mark.slow
def test_uses_are_found_by_the_version_of_the_data(run: RunStudy, database_url: str) -> None:
    study = run(budget=1)
    version = DataStore.open().get("flowers").version
    result = study.test()
    assert result is not None
    assert result.version == version
    assert not node_folder(version).joinpath(f"{TEST}.arrow").exists()
    storage = PgStorage(study._database)
    final = tunesvc.load_study("flowers:test", database_url=database_url)
    stored = storage.get_study_system_attrs(final.view.study_id)[FINAL]
    assert (stored["kind"], stored["version"]) == ("test", version)
    (trial,) = storage.get_all_trials(final.view.study_id)
    assert trial.user_attrs[OF_TRIAL] == study.best_trial.number
    worse = replace(result, validation=0.9, test=0.8, error=0.01)
    assert worse.optimism == pytest.approx(0.1)
    assert "0.1 worse than validation promised (95 %: 0.0804 worse to 0.12 worse)" in str(worse)
    better = replace(worse, goal="minimize")
    assert "0.1 better than validation promised" in str(better)
    assert np.allclose(better.interval, (-0.1196, -0.0804))
