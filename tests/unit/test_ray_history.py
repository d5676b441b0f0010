"""Folders of Ray Tune's results: whatever a run left behind becomes trials, and nothing raises."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from tests.support.ray_results import Results, report
from tunesvc.errors import SpecError, StudyExists
from tunesvc.foreign.histories.imported_history import ImportRequest, import_history
from tunesvc.foreign.histories.ray_trial import POINTS_MAX, RayTrial
from tunesvc.foreign.histories.tried_space import split, widened


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Five trials of three steps: two complete, a pruned, a failed one, and one without a report."""
    made = Results(tmp_path / "digits")
    for place, (lr, act) in enumerate([(0.001, "relu"), (0.1, "gelu"), (0.004, "relu")]):
        config = {"model": {"lr": lr, "act": act}, "layers": [8, 8 * place], "epochs": 3}
        steps = 1 if place == 2 else 3
        made.add(config, [report(n, lr / n, done=n == steps, acc=0.5) for n in range(1, steps + 1)])
    broken = {"model": {"lr": 0.01, "act": "gelu"}, "layers": [8, 0], "epochs": 3}
    place = made.add(broken, [report(1, 0.5)], "ERROR")
    (place / "error.txt").write_text("Traceback ...\n  ...\nValueError: no such layer\n")
    made.add(broken, (), "PENDING")
    made.write_state()
    return made


def states(trials: Sequence[FrozenTrial]) -> list[str]:
    return [trial.state.name for trial in trials]


def test_a_folder_becomes_trials_with_curves_and_a_study_that_starts_from_them(
    results: Results,
) -> None:
    made = results.read(program="train.py:train")
    assert states(made.trials) == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL"]
    first, failed = made.trials[0], made.trials[3]
    assert first.params == {"model/lr": 0.001, "model/act": "relu", "layers": "[8, 0]"}
    assert first.intermediate_values == {1: 0.001, 2: 0.0005, 3: pytest.approx(0.001 / 3)}
    assert first.value == first.intermediate_values[3]
    assert first.user_attrs == {"ray_trial": "ab12c_00000", "acc": 0.5}
    assert failed.user_attrs["error"] == "ValueError: no such layer"
    assert first.duration is not None
    assert first.duration.total_seconds() == 2
    study = yaml.safe_load(made.study_text)
    assert study == {
        "name": "digits-2",
        "entrypoint": "train.py:train",
        "metric": {"name": "loss", "goal": "minimize"},
        "parameters": {
            "model/lr": {"type": "float", "min": 0.001, "max": 0.1, "log": True},
            "model/act": {"values": ["relu", "gelu"]},
            "layers": {"values": [[8, 0], [8, 8], [8, 16]]},
        },
        "constants": {"epochs": 3},
        "warm_start": ["digits"],
        "budget": {"trials": 100},
    }
    assert "trials without a report, left out: 1" in made.notes
    assert all(f"#   {note}" in made.study_text.splitlines() for note in made.notes)


def test_it_is_stored_as_optuna_stores_a_copy_and_never_twice(results: Results) -> None:
    storage = optuna.storages.InMemoryStorage()
    made = results.read(name="old")
    made.store(storage)
    stored = optuna.load_study(study_name="old", storage=storage)
    assert stored.metric_names == ["loss"]
    assert states(stored.trials) == states(made.trials)
    with pytest.raises(StudyExists, match="--name"):
        made.store(storage)
    assert len(stored.trials) == 4


def test_half_a_history_is_not_left_in_the_store(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = optuna.storages.InMemoryStorage()
    made = results.read()

    def interrupted(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "create_new_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.store(storage)
    assert storage.get_all_studies() == []


def test_the_mode_is_asked_for_by_the_name_of_the_metric(results: Results) -> None:
    with pytest.raises(SpecError, match="--minimize loss` or `--maximize loss`"):
        results.read(goals={})
    results.runner = {}
    results.write_state()
    with pytest.raises(SpecError, match="--maximize NAME`, of acc, loss$"):
        results.read(goals={})
    with pytest.raises(SpecError, match="has reported `los`, but acc, loss$"):
        results.read(goals={"los": "minimize"})


def test_several_metrics_are_stored_and_teach_no_warm_start(results: Results) -> None:
    made = results.read(goals={"loss": "minimize", "acc": "maximize"})
    assert made.trials[1].values == [pytest.approx(0.1 / 3), 0.5]
    assert "warm_start" not in yaml.safe_load(made.study_text)


def test_a_script_gives_space_metric_and_program(results: Results, tmp_path: Path) -> None:
    script = tmp_path / "tuner.py"
    script.write_text(
        "from ray import tune\n"
        "def train(config): ...\n"
        "space = {'model': {'lr': tune.loguniform(0.01, 1.0), 'act': tune.choice(['gelu', 'elu'])},"
        " 'layers': tune.choice([[8, 0], [8, 8]]), 'epochs': 3}\n"
        "tuner = tune.Tuner(train, param_space=space,"
        " tune_config=tune.TuneConfig(metric='loss', mode='max', num_samples=7))\n"
    )
    made = results.read(goals={}, space=str(script))
    study = yaml.safe_load(made.study_text)
    assert study["metric"] == {"name": "loss", "goal": "maximize"}
    assert study["parameters"]["model/lr"]["min"] == 0.01
    assert (study["entrypoint"], study["budget"]) == ("tuner.py:train", {"trials": 7})
    # What lies outside of the script's space is stored, too.
    assert made.trials[0].params["model/lr"] == 0.001
    assert made.trials[0].params["model/act"] == "relu"
    bare = results.read(space=f"{script}:space")
    assert yaml.safe_load(bare.study_text)["metric"] == {"name": "loss", "goal": "minimize"}


# --- what a killed run leaves ---


def test_a_line_that_is_cut_off_costs_only_itself(results: Results) -> None:
    place = results.add({"model": {"lr": 0.03, "act": "relu"}, "layers": [8, 0]}, [], "RUNNING")
    whole = json.dumps(report(1, 0.3)) + "\n"
    (place / "result.json").write_text(whole + "\x00\x00{]\n" + json.dumps(report(2, 0.2))[:40])
    results.write_state()
    made = results.read()
    assert made.trials[4].intermediate_values == {1: 0.3}
    assert made.trials[4].state == TrialState.PRUNED
    assert "reports that are cut off or damaged, left out: 2" in made.notes


def test_a_table_stands_in_for_lost_lines(results: Results) -> None:
    place = next(results.folder.glob("train*00000_*"))
    (place / "result.json").unlink()
    (place / "progress.csv").write_text(
        "loss,done,training_iteration\n0.3,False,1\n0.2,,2\n0.1,True,3\n0.0123"
    )
    made = results.read()
    assert made.trials[0].intermediate_values == {1: 0.3, 2: 0.2, 3: 0.1}
    assert made.trials[0].state == TrialState.COMPLETE


def test_without_a_state_the_folders_are_read(results: Results) -> None:
    next(results.folder.glob("experiment_state*")).write_text('{"trial_data": [["{')
    made = results.read()
    assert states(made.trials) == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL"]
    assert any("cut off" in note for note in made.notes)


def test_the_newest_state_that_can_be_read_counts(results: Results) -> None:
    newer = results.folder / "experiment_state-2026-02-02_03-04-05.json"
    newer.write_text("")
    assert len(results.read().trials) == 4
    results.runner = {"_metric": "acc"}
    newer.write_text(json.dumps({"trial_data": results.entries, "runner_data": results.runner}))
    with pytest.raises(SpecError, match="--minimize acc"):
        results.read(goals={})


@pytest.mark.parametrize("form", ["text", "mapping"])
def test_states_of_older_versions_are_read(results: Results, form: str) -> None:
    old = [json.loads(entry[0]) for entry in results.entries]
    for entry in old:
        entry["logdir"] = f"/home/them/ray_results/digits/{entry.pop('relative_logdir')}"
    results.entries = [json.dumps(entry) if form == "text" else entry for entry in old]
    results.write_state("checkpoints")
    assert states(results.read().trials) == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL"]


def test_a_trial_whose_folder_is_gone_keeps_its_last_report(results: Results) -> None:
    kept = json.loads(results.entries[0][0])
    kept |= {"trial_id": "ab12c_00009", "relative_logdir": "../../etc"}
    results.entries.append(
        [json.dumps(kept), json.dumps({"last_result": report(3, 0.25, done=True)})]
    )
    results.write_state()
    last = results.read().trials[4]
    assert (last.state, last.value) == (TrialState.COMPLETE, 0.25)


def test_a_result_that_is_no_number_is_a_failure(results: Results) -> None:
    config = {"model": {"lr": 0.07, "act": "relu"}, "layers": [8, 0]}
    results.add(config, [report(1, math.inf), report(2, 0.2), report(3, math.nan)])
    results.add(config, [report(3, "<Tensor>")])
    results.write_state()
    made = results.read()
    assert states(made.trials)[4:] == ["FAIL", "FAIL"]
    assert made.trials[4].intermediate_values[1] == math.inf


def test_a_criterion_that_was_met_is_no_pruning(results: Results) -> None:
    config = {"model": {"lr": 0.07, "act": "relu"}, "layers": [8, 0]}
    reports = [report(1, 0.1, done=True, acc=0.97)]
    results.add(config, reports, stopping_criterion={"acc": 0.95})
    results.add(config, reports, stopping_criterion={"acc": 0.99})
    results.add(config, [report(1, 0.1)])  # the function ended by itself
    results.write_state()
    assert states(results.read().trials)[4:] == ["COMPLETE", "PRUNED", "COMPLETE"]


def test_objects_of_python_are_named_and_left_out(results: Results) -> None:
    for place, pickled in enumerate(("<function f at 0x7f01>", {"_type": "CLOUDPICKLE_FALLBACK"})):
        config = {"model": {"lr": 0.07, "act": "relu"}, "data": pickled, "n": place}
        results.add(config, [report(3, 0.1)])
    results.write_state()
    made = results.read()
    assert any(note.startswith("`data`: an object of Python") for note in made.notes)
    assert "data" not in yaml.safe_load(made.study_text)["constants"]


def test_several_experiments_are_named(results: Results) -> None:
    other = Results(results.folder.parent / "words")
    other.add({"a": 1}, [report(1, 0.1)])
    with pytest.raises(SpecError, match="several experiments of Ray Tune: .* digits, words"):
        import_history(ImportRequest(results.folder.parent, {"loss": "minimize"}))
    with pytest.raises(SpecError, match="one value of each parameter"):
        other.read()
    (results.folder.parent / "empty").mkdir()
    with pytest.raises(SpecError, match="no folder of Ray Tune's results"):
        import_history(ImportRequest(results.folder.parent / "empty", {}))


def test_a_long_curve_is_thinned_while_it_is_read(tmp_path: Path) -> None:
    lines = (f'{{"loss": {n}, "training_iteration": {n}}}\n' for n in range(1, 20_001))
    (tmp_path / "result.json").write_text("".join(lines))
    trial = RayTrial("", {}, tmp_path)
    trial.read("loss")
    assert POINTS_MAX / 2 <= len(trial.curve) <= POINTS_MAX
    assert trial.step == 20_000
    assert all(step == value and step % 8 == 0 for step, value in trial.curve.items())


def test_other_steps_than_iterations(results: Results) -> None:
    for place in results.folder.glob("train*"):
        lines = [json.loads(line) for line in (place / "result.json").read_text().splitlines()]
        text = "".join(
            json.dumps(one | {"epoch": one["training_iteration"] * 10}) + "\n" for one in lines
        )
        (place / "result.json").write_text(text)
    assert list(results.read(step="epoch").trials[0].intermediate_values) == [10, 20, 30]


# --- spaces ---


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        ([1e-4, 1e-3, 1e-2, 0.1], {"type": "float", "min": 1e-4, "max": 0.1, "log": True}),
        ([0.011, 0.52, 0.987], {"type": "float", "min": 0.011, "max": 0.99}),
        ([-1.234, 0.0, 2.345], {"type": "float", "min": -1.3, "max": 2.4}),
        ([32, 64, 128, 32, 64, 128], {"values": [32, 64, 128]}),
        ([1, 2, 4, 2, 1, 4, 3], {"type": "int", "min": 1, "max": 4}),
        ([10, 75, 40], {"type": "int", "min": 10, "max": 75}),
        ([True, False], {"values": [True, False]}),
        ([None, 0.5], {"values": [None, 0.5]}),
        ([[1], [2, 3]], {"values": [[1], [2, 3]]}),
    ],
)
def test_a_space_is_derived_from_what_was_tried(tried: list[Any], expected: object) -> None:
    parameters, constants, _ = split([{"p": value, "c": "same"} for value in tried])
    assert parameters == {"p": expected}
    assert constants == {"c": "same"}


VALUES = st.one_of(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2),
    st.lists(st.integers(-(2**53), 2**53), min_size=2),
    st.lists(st.one_of(st.booleans(), st.none(), st.text(max_size=3), st.floats(0, 1)), min_size=2),
)


@settings(max_examples=40)
@given(VALUES)
def test_a_derived_parameter_holds_all_that_was_tried(tried: list[Any]) -> None:
    parameters, _, _ = split([{"p": value} for value in tried])
    for dimension in parameters.values():
        if "values" in dimension:
            assert all(value in dimension["values"] for value in tried)
        else:
            assert dimension["min"] <= min(tried)
            assert max(tried) <= dimension["max"]
        assert widened(dimension, tried) == dimension
