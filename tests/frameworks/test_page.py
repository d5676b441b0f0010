"""The snippets of docs/integrations.md for heavy frameworks, and those of all as studies."""

from __future__ import annotations

from pathlib import Path

import pytest

import tunesvc
from tests.support.integrations_page import run_snippet
from tests.support.ray_fixtures import address_of_local_ray

HEAVY = {
    "CatBoost": "catboost",
    "PyTorch": "torch",
    "Lightning": "lightning",
    "Hugging Face Trainer": "transformers",
    "Keras": "keras",
}
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)


@pytest.mark.parametrize("heading", HEAVY)
def test_a_snippet_trains_without_a_study(
    heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(HEAVY[heading])
    monkeypatch.chdir(tmp_path)
    train = run_snippet(heading, tmp_path / "snippet.py")["train"]
    assert 0 < train(lr=0.01) < 10_000


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("heading", ["LightGBM", "Lightning"])
def test_a_snippet_is_a_study(
    heading: str,
    tmp_path: Path,
    database_url: str,
    tune_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Snippets of one light and one heavy framework; `test_studies.py` runs studies of all."""
    pytest.importorskip(heading.lower())
    monkeypatch.setenv("TUNE_HOME", str(tune_home))
    monkeypatch.setenv("RAY_ADDRESS", address_of_local_ray())
    monkeypatch.chdir(tmp_path)
    train = run_snippet(heading, tmp_path / "snippet.py")["train"]
    study = train.tune(trials=3, database_url=database_url, progress=False)
    assert study.state == "finished"
    assert {trial.state for trial in study.trials} <= {"complete", "pruned"}
    assert study.best_value > 0


def test_hugging_faces_search_uses_our_storage_sampler_and_pruner(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("TUNE_DATABASE_URL", database_url)
    monkeypatch.chdir(tmp_path)
    best = run_snippet("Hugging Face Trainer", tmp_path / "snippet.py", 1)["best"]
    study = tunesvc.load_study("bert", database_url=database_url)
    assert len(study.trials) == 3
    assert str(study.best_trial.number) == best.run_id
    assert study.best_trial.value == best.objective
