"""Outputs of the model: the JSON Schema, the reference and the starter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tunesvc.errors import SpecError
from tunesvc.preview import preview
from tunesvc.search.registry.component_check import check
from tunesvc.spec import json_schema, write_starter
from tunesvc.spec.schema.key_reference import reference
from tunesvc.spec.yaml.document import load

ROOT = Path(__file__).parents[2]
VALIDATOR = Draft202012Validator(json_schema())
BASE = {"name": "x", "entrypoint": "a:b", "metric": "loss", "budget": 3}


def mistakes(study: dict[str, Any]) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(study)]


def test_the_schema_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize(
    "file", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda file: file.name
)
def test_the_examples_of_the_repository_fit_the_schema(file: Path) -> None:
    assert mistakes(yaml.safe_load(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "change",
    [
        {"metric": {"name": "loss", "goal": "maximize", "target": 1}},
        {"parameters": {"a": {"min": 1, "max": 3}, "b": {"values": [1, None, "x", True]}}},
        {
            "parameters": {
                "a": {"values": [1, 2]},
                "b": {"type": "int", "min": 1, "max": 3, "when": {"a": [1, 2]}},
            }
        },
        {
            "parameters": {
                "a": {"values": [[1, 2], [3]]},
                "b": {"min": 1, "max": 3, "when": {"a": [[1, 2]]}},
            }
        },
        {"sampler": {"name": "tpe", "n_startup_trials": 3}, "pruner": "asha"},
        {"loggers": ["mlflow", {"wandb": {"project": "p"}}, {"name": "tensorboard"}]},
        {"loggers": [{"class": "mine:Logger", "file": "f"}]},
        {"budget": {"trials": 3, "wall": "12h", "gpu_hours": 0.5}, "limits": {"wall": 30}},
        {
            "resources": {"memory": "4GB", "gpu": 0.5, "custom": {"tpu": 1}},
            "environment": {"env": {"DEBUG": 1}},
        },
    ],
)
def test_short_and_long_forms_fit_the_schema(change: dict[str, Any]) -> None:
    assert mistakes(BASE | change) == []


@pytest.mark.parametrize(
    "change",
    [
        {"paralelism": 8},
        {"metrics": ["a"]},
        {"command": "run"},
        {"budget": 0},
        {"budget": {"trails": 3}},
        {"parameters": {"a": 27}},
        {"parameters": {"a": {"min": 1}}},
        {"parameters": {"a": {"type": "integer", "min": 1, "max": 3}}},
        {"parallelism": "eight"},
    ],
)
def test_what_is_refused_by_its_shape_does_not_fit_the_schema(change: dict[str, Any]) -> None:
    assert mistakes(BASE | change)


def test_the_reference_in_the_docs_is_current() -> None:
    page = (ROOT / "docs" / "study-yaml.md").read_text(encoding="utf-8")
    assert page == reference(), "python -m tunesvc.spec.schema.key_reference > docs/study-yaml.md"


def test_the_study_in_the_reference_is_one(tmp_path: Path) -> None:
    block = reference().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "digits.py").write_text("def train(**parameters): ...\n")
    (tmp_path / "study.yaml").write_text(block, encoding="utf-8")
    check(load(tmp_path / "study.yaml").spec)


def test_the_starter_is_a_study_that_trains(tmp_path: Path) -> None:
    written = write_starter(tmp_path / "new" / "folder")
    assert [path.name for path in written] == ["study.yaml", "train.py"]
    spec = load(written[0]).spec
    check(spec)
    assert mistakes(yaml.safe_load(written[0].read_text(encoding="utf-8"))) == []
    params = {**preview(spec).samples[0], **spec.constants, "epochs": 2}
    code = f"from tunesvc import Trial; from train import train; print(train(**{params!r}, trial=Trial()))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=written[0].parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.0 < float(ran.stdout) < 1.0


def test_the_starter_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("mine")
    with pytest.raises(SpecError, match=r"train\.py would be overwritten: name another folder"):
        write_starter(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]
    with pytest.raises(SpecError, match="cannot write to"):
        write_starter(tmp_path / "train.py" / "below")
