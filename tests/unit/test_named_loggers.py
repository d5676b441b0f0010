"""`loggers` in a study: how they are written, and what is wrong with them before anything starts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import tunesvc
from tests.support.specs import make_spec
from tunesvc.cli.commands.send import _chosen
from tunesvc.errors import SpecError
from tunesvc.queries.rows import StudyView
from tunesvc.runtime.imported_searchers import machine_check
from tunesvc.runtime.named_loggers import KNOWN, require_loggers
from tunesvc.runtime.new_submission import NewSubmission
from tunesvc.runtime.submission import submit_study
from tunesvc.spec.yaml.document import parse, spec_from_dict, written

STUDY = """\
name: digits
entrypoint: module:function
metric: loss
parameters: {x: {min: 0, max: 1}}
budget: 3
loggers:
"""


def issues(text: str, folder: Path) -> str:
    """The issues of a study with these loggers, with their lines."""
    with pytest.raises(SpecError) as error:
        parse(STUDY + text, extra_check=machine_check(folder))
    return str(error.value)


def named(loggers: Any) -> list[dict[str, Any]]:
    spec = spec_from_dict(
        {
            "name": "digits",
            "entrypoint": "module:function",
            "metric": "loss",
            "parameters": {"x": {"min": 0, "max": 1}},
            "budget": 3,
            "loggers": loggers,
        }
    )
    return [{"name": logger.name, **logger.options} for logger in spec.loggers]


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("mlflow", [{"name": "mlflow"}]),
        (["mlflow", "wandb"], [{"name": "mlflow"}, {"name": "wandb"}]),
        ([{"mlflow": {"experiment": "e"}}], [{"name": "mlflow", "experiment": "e"}]),
        ([{"mlflow": None}], [{"name": "mlflow"}]),
        ([{"class": "mine:Logger", "file": "f"}], [{"name": "mine:Logger", "file": "f"}]),
        ([{"name": "wandb", "project": "p"}], [{"name": "wandb", "project": "p"}]),
    ],
)
def test_a_logger_is_a_name_a_mapping_or_a_class(short: Any, long: list[dict[str, Any]]) -> None:
    assert named(short) == long


def test_a_study_that_is_written_and_read_has_the_same_loggers() -> None:
    spec = make_spec(loggers=[{"name": "wandb", "project": "p"}, {"name": "mlflow"}])
    assert parse(written(spec)).loggers == spec.loggers


def test_a_misspelled_name_or_option_is_named_at_its_line(tmp_path: Path) -> None:
    text = issues("  - mlfow\n  - mlflow: {experimant: e}\n", tmp_path)
    assert "study.yaml:7:5" in text
    assert "there is no 'mlfow', did you mean 'mlflow'? Known: mlflow, wandb, tensorboard" in text
    assert "study.yaml:8:14" in text
    assert "'mlflow' has no option 'experimant', did you mean 'experiment'?" in text


def test_what_is_not_installed_is_said_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "mlflow" else found(name)
    )
    text = issues("  - mlflow\n", tmp_path)
    assert "'mlflow' needs mlflow: pip install 'tunesvc[mlflow]'" in text


@pytest.mark.parametrize(
    "options",
    ["api_key: abc", "tracking_uri: 'http://me:secret@host'", "wandb_token: abc", "password: x"],
)
def test_a_secret_is_refused(options: str) -> None:
    name = options.partition(":")[0]
    with pytest.raises(SpecError, match=f"'{name}' is a secret, which is not stored with a study"):
        parse(f"{STUDY}  - mlflow: {{{options}}}\n")


def test_a_logger_that_is_there_twice_is_refused() -> None:
    with pytest.raises(SpecError, match=r"loggers\[1\]: 'mlflow' is there twice with the same opt"):
        parse(f"{STUDY}  - mlflow\n  - mlflow\n")
    assert len(parse(f"{STUDY}  - mlflow: {{experiment: a}}\n  - mlflow\n").loggers) == 2


def test_each_logger_of_a_name_is_sent_to() -> None:
    """Sent by `tune send`, with and without `--to`."""
    two = [{"name": "mlflow", "tracking_uri": f"http://{host}:5000"} for host in "ab"]
    study = cast(StudyView, SimpleNamespace(spec=make_spec(loggers=[*two, {"name": "wandb"}])))
    assert [one.name for one in _chosen(study, (), {})] == ["mlflow", "mlflow", "wandb"]
    chosen = _chosen(study, ("mlflow", "tensorboard", "mlflow"), {"x": "1"})
    assert [one.name for one in chosen] == ["mlflow", "mlflow", "tensorboard"]
    uris = [one.options.get("tracking_uri") for one in chosen]
    assert uris == ["http://a:5000", "http://b:5000", None]
    assert all(one.options["x"] == "1" for one in chosen)


def test_an_address_without_a_password_is_none() -> None:
    assert parse(f"{STUDY}  - mlflow: {{tracking_uri: 'http://host:5000'}}\n").loggers


def test_a_class_is_imported_from_the_studys_folder(tmp_path: Path) -> None:
    (tmp_path / "my_loggers.py").write_text(
        "class Good:\n    def send(self, run, trial, points): ...\nclass Bad: ...\n"
    )
    text = "  - class: my_loggers:Good\n  - class: my_loggers:Bad\n  - class: my_loggers:None_\n"
    found = issues(text, tmp_path)
    assert "'my_loggers:Bad' makes a Bad, which has no method `send`" in found
    assert "None_" in found
    assert "Good'" not in found


def test_a_mode_of_wandb_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert "`mode` is `offline` or `online`" in issues("  - wandb: {mode: off}\n", tmp_path)


def test_loggers_are_made_without_their_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator's process checks them, and must not import what takes seconds."""
    import sys

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    for known in KNOWN.values():
        monkeypatch.delitem(sys.modules, known.library, raising=False)
        monkeypatch.setitem(sys.modules, known.library, None)  # an import raises
    require_loggers(make_spec(loggers=[{"name": name} for name in KNOWN]).loggers, None)


def test_the_decorator_takes_loggers() -> None:
    @tunesvc.tunable(loggers=["mlflow", {"tensorboard": {"logdir": "here"}}], trials=1)
    def train(x: float = 0.0) -> float:
        return x

    spec = train.spec(parameters={"x": {"min": 0.0, "max": 1.0}})
    assert [logger.name for logger in spec.loggers] == ["mlflow", "tensorboard"]
    assert spec.loggers[1].options == {"logdir": "here"}


def test_a_submission_with_loggers_is_refused_with_what_to_do() -> None:
    new = NewSubmission(make_spec(name="digits", loggers=[{"name": "mlflow"}]))
    with pytest.raises(SpecError, match=r"`tune send digits --to mlflow --follow`"):
        submit_study(None, new, submitted_by="me")  # type: ignore[arg-type]
