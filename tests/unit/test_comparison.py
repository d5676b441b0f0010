"""The scores of benchmarks that compare samplers, and the tasks of real training."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import comparison, training
from benchmarks.learning_tasks import TASKS
from benchmarks.searchers import draws


def test_ranks_are_expected_among_one_study_of_each_sampler() -> None:
    found = [[np.array([0.1, 0.3])], [np.array([0.2])], [np.array([0.2, 0.2, 0.2])]]
    assert comparison.expected_ranks(found)[:, 0].tolist() == [2.0, 2.0, 2.0]
    found = [[np.array([0.1, 0.15])], [np.array([0.2])], [np.array([0.3])]]
    assert comparison.expected_ranks(found)[:, 0].tolist() == [1.0, 2.0, 3.0]


def test_results_of_another_run_stand_beside_those_of_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "earlier.json"
    known = {"auto": {"a": [[0.9]]}, "random": {"a": [[0.5], [0.6]], "b": [[0.7]]}, "tpe": {}}
    file.write_text(json.dumps(known))
    given = argparse.Namespace(samplers="auto", seeds=2, jobs=1, json=None, earlier=[file])
    found = comparison.results(given, ["a"], _play)
    assert found == {"auto": {"a": [[0.0], [1.0]]}, "random": {"a": [[0.5], [0.6]]}}
    assert "random: 2 seeds of an earlier run" in capsys.readouterr().out


def _play(problem: str, sampler: str, seed: int) -> list[float]:
    return [float(seed)]


def test_regret_is_relative_to_the_best_known_and_the_median_of_random_trials() -> None:
    known = {"t": {"best": 0.1, "median": 0.3, "worst": 0.9}}
    found = training.regrets({"auto": {"t": [[0.3, 0.2, math.nan], [0.05, 0.1, 0.1]]}}, known)
    assert np.allclose(found["auto"]["t"], [[1.0, 0.5, 4.0], [-0.25, 0.0, 0.0]])


def test_differences_beyond_chance_are_told_from_others() -> None:
    low, high = [[i / 100] for i in range(8)], [[1 + i / 100] for i in range(8)]
    found = {
        "auto": {"better": low, "worse": high, "even": low},
        "peer": {"better": high, "worse": low, "even": low},
    }
    assert training.beyond_chance(found, "auto", "peer", 0) == (["better"], ["worse"])


@pytest.mark.parametrize("name", TASKS)
def test_a_training_of_a_task_repeats(name: str) -> None:
    task = TASKS[name]
    params = list(draws(task.parameters, 3))[2]
    first = task.train(params, 1, 2)
    assert task.train(params, 1, 2) == first


def test_tasks_are_twenty_and_about_half_are_held_out() -> None:
    held_out = sum(task.held_out for task in TASKS.values())
    assert len(TASKS) == 20
    assert 8 <= held_out <= 12


def test_stored_references_are_of_tasks_and_in_order() -> None:
    known = json.loads(training.REFERENCE_FILE.read_text())
    assert set(known) <= set(TASKS)
    assert all(task["best"] < task["median"] <= task["worst"] for task in known.values())
