"""`tune watch` on real Ray and real data: found drift, a re-tune, a promotion, a rollback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sklearn.datasets import load_wine

from tests.support.command_line import Tune

STUDY = """
    name: wine
    entrypoint: wine:train
    metric: error
    parameters: {C: {min: 0.001, max: 1000.0, log: true}, gamma: {min: 0.00001, max: 10.0, log: true}}
    budget: 8
    parallelism: 2
    seed: 1
    data: {source: wine.csv, target: target, steps: [{apply: standardize}]}
    watch: {budget: 6, on_promote: python hook.py}
"""
OBJECTIVE = """
    from sklearn.svm import SVC

    def train(C, gamma, trial):
        X, y = trial.data.train
        model = SVC(C=C, gamma=gamma).fit(X, y)
        X, y = trial.data.validation
        return 1 - model.score(X, y)
"""


def write_data(tune: Tune, *, seed: int, is_drifted: bool = False) -> None:
    """Write a resample of the data set, or one with two columns that have moved."""
    rows = load_wine(as_frame=True).frame.sample(frac=1.0, random_state=seed)
    if is_drifted:
        rows["alcohol"] = rows.alcohol * 2
        rows["proline"] = rows.proline.mean() - rows.proline / 2
    rows.to_csv(tune.folder / "wine.csv", index=False)


def watch(tune: Tune) -> dict[str, Any]:
    """Look once; return the result."""
    lines = tune("watch", "study.yaml", "--once", "--json").splitlines()
    result: dict[str, Any] = json.loads(lines[-1])
    assert result["event"] == "watched"
    return result


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_watch_finds_drift_tunes_promotes_and_is_rolled_back(local_tune: Tune) -> None:
    local_tune.write("study.yaml", STUDY)
    local_tune.write("wine.py", OBJECTIVE)
    local_tune.write("hook.py", "import sys; open('hooked', 'a').write(sys.stdin.read() + chr(10))")
    write_data(local_tune, seed=0)
    assert watch(local_tune)["outcome"] == "first"
    assert watch(local_tune)["outcome"] == "unchanged"
    write_data(local_tune, seed=1)
    assert watch(local_tune)["outcome"] == "steady"
    write_data(local_tune, seed=2, is_drifted=True)
    result = watch(local_tune)
    assert result["outcome"] in ("promoted", "kept")
    drifted = {one["column"] for one in result["drift"]["columns"] if one["has_drifted"]}
    assert drifted == {"alcohol", "proline"}
    study = f"wine@{result['data_version'][:8]}"
    trials = json.loads(local_tune.here("trials", study, "--json"))
    assert len(trials) == 6
    local_tune.here("champion", "promote", study, str(trials[-1]["number"]))
    local_tune.here("champion", "rollback", "wine")
    assert watch(local_tune)["outcome"] in ("declined", "unchanged")
    hooked = (local_tune.folder / "hooked").read_text().splitlines()
    assert [json.loads(line)["attempt"] for line in hooked] == [1] * len(hooked)
    local_tune("watch", "study.yaml", "--every", "1h", "--once", code=2)


def test_a_study_without_data_is_watched_nowhere(tune: Tune) -> None:
    text = tune("watch", "bowl.yaml", code=2)
    assert "needs `data`: a champion is compared on versions of it" in text
    assert "do not watch a family 'bowl'" in tune.here("champion", "unwatch", "bowl", code=3)
