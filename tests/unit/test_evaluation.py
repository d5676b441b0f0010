"""`evaluation` in a study file: which folds and repeats a trial has, and wrong input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support.specs import make_spec
from tunesvc.coordinator.attempt_state.launch_blocks import blocks_of
from tunesvc.errors import SpecError
from tunesvc.search.training_seeds import training_seed
from tunesvc.spec import Evaluation, StudySpec
from tunesvc.spec.yaml.document import load, spec_from_dict

STUDY = """
name: s
command: [python, train.py]
metric: loss
parameters: {x: {min: 0.0, max: 1.0}}
budget: 3
"""


def issue(tmp_path: Path, more: str) -> str:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY + more)
    with pytest.raises(SpecError) as raised:
        load(path)
    return str(raised.value)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("evaluation: {folds: 5}", "`data`, which is missing; without it, write `repeats`"),
        ("evaluation: {folds: 1}\ndata: a.csv", "evaluation.folds: must be at least 2"),
        ("evaluation: {folds: 3, repeats: 3}\ndata: a.csv", "either `folds` or `repeats`"),
        ("evaluation: {per_trial: 1}", "needs `folds` or `repeats`"),
        ("evaluation: {repeats: 3, per_trial: 4}", "`per_trial` (4) is above 3"),
        ("evaluation: {repeats: 3}\nseeds: 3", "either `seeds` or `evaluation`, not both"),
        ("seeds: 1", "study.yaml:7:8: seeds"),
        ("evaluation: {fold: 3}", "did you mean `folds`"),
        ("evaluation: {repeats: 3, per_trial: 1}\npruner: paired", "or `per_trial: 2`"),
        (
            "evaluation: {repeats: 3}\nsearch: {method: pbt, interval: 1, steps: 3}",
            "of one training",
        ),
    ],
)
def test_wrong_input_is_named_with_its_remedy(tmp_path: Path, more: str, text: str) -> None:
    assert text in issue(tmp_path, more)


def test_the_best_of_folds_is_no_result(tmp_path: Path) -> None:
    described = STUDY.replace("metric: loss", "metric: {name: loss, take: best}")
    path = tmp_path / "study.yaml"
    path.write_text(described + "evaluation: {repeats: 3}")
    with pytest.raises(SpecError, match="the mean of all folds or repeats is the value"):
        load(path)


def test_seeds_of_earlier_versions_become_repeats_in_turns() -> None:
    expected = Evaluation(repeats=5, per_trial=1)
    described: dict[str, Any] = {"name": "s", "command": "a", "metric": "loss", "budget": 3}
    described["parameters"] = {"x": {"min": 0.0, "max": 1.0}}
    assert spec_from_dict({**described, "seeds": 5}).evaluation == expected
    stored = make_spec(seeds=5)
    assert stored.evaluation == expected
    assert StudySpec.model_validate_json(stored.model_dump_json()) == stored
    assert make_spec(seeds=None).evaluation is None
    with pytest.raises(ValidationError, match="seeds"):
        make_spec(seeds=5, evaluation={"repeats": 3})


@given(st.integers(0, 1_000), st.integers(2, 20))
def test_seeds_in_turns_stay_those_of_earlier_versions(number: int, count: int) -> None:
    (block,) = blocks_of(make_spec(seed=3, seeds=count), number)
    assert block.seed == training_seed(3, number, count)
    assert block.index == number % count


@given(st.integers(2, 12), st.data(), st.integers(0, 100))
def test_trials_have_equal_shares_of_the_blocks(
    count: int, data: st.DataObject, first: int
) -> None:
    per_trial = data.draw(st.integers(1, count))
    evaluation = Evaluation(repeats=count, per_trial=per_trial)
    numbers = range(first, first + evaluation.turns)
    blocks = [evaluation.block_indices(number) for number in numbers]
    assert all(len(set(one)) == per_trial for one in blocks)
    flat = [index for one in blocks for index in one]
    assert {flat.count(index) for index in range(count)} == {len(flat) // count}
    assert len({frozenset(one) for one in blocks}) == evaluation.turns
    assert evaluation.block_indices(first + evaluation.turns) == blocks[0]


def test_all_folds_come_in_the_same_order_in_every_trial() -> None:
    spec = make_spec(seed=1, evaluation={"repeats": 3})
    first, second = blocks_of(spec, 0), blocks_of(spec, 1)
    assert first == second
    assert [(one.step, one.index) for one in first] == [(0, 0), (1, 1), (2, 2)]
    assert len({one.seed for one in first}) == 3
    assert spec.shared_blocks is None


def test_repeats_of_a_confirmation_with_one_seed_have_one_fold() -> None:
    spec = make_spec(evaluation={"folds": 5, "per_trial": 1})
    found = [blocks_of(spec, number, fixed_seed=13) for number in range(4)]
    assert [(one.index, one.seed) for (one,) in found] == [(3, 13)] * 4
