"""The entrypoint of a study file: found, and checked against the parameters, without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.study_texts import STUDY, faults_of
from tunesvc.errors import SpecError
from tunesvc.spec.yaml.document import parse


@pytest.mark.parametrize(
    "entrypoint", ["train", "train:", ":main", "a..b:main", "train:1st", "train:a-b"]
)
def test_an_entrypoint_names_a_module_and_a_function(entrypoint: str) -> None:
    assert (
        "entrypoint: write `module:function`"
        in faults_of(STUDY.replace("digits:train", f"'{entrypoint}'"))[0]
    )


@pytest.mark.parametrize(
    "entrypoint",
    [
        "train:main",
        "train:Model.fit",
        "pkg.sub:main",
        "pkg:main",
        "sub/my-train.py:main",
        "json:loads",
    ],
)
def test_an_entrypoint_is_found_from_the_folder_of_the_study_without_importing_it(
    entrypoint: str, tmp_path: Path
) -> None:
    for file in ("train.py", "pkg/__init__.py", "pkg/sub.py", "sub/my-train.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("raise SystemExit('imported')\nmain = Model = None")
    assert (
        parse(STUDY.replace("digits:train", entrypoint), folder=tmp_path).entrypoint == entrypoint
    )


@pytest.mark.parametrize(
    ("entrypoint", "file"),
    [
        ("trian:main", "trian.py"),
        ("train.py.py:main", "train.py.py"),
        ("pkg.nope:main", "pkg/nope.py"),
    ],
)
def test_an_entrypoint_whose_file_is_not_there_is_refused(
    entrypoint: str, file: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=f"entrypoint: there is no `{file}` in {tmp_path}"):
        parse(STUDY.replace("digits:train", entrypoint), folder=tmp_path)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("def train(lr): ...", True),
        ("train = make()", True),
        ("if True:\n    from elsewhere import train", True),
        ("from elsewhere import *", True),
        ("def trian(lr): ...", False),
    ],
)
def test_a_function_that_the_file_has_not_is_found_without_running_it(
    tmp_path: Path, code: str, found: bool
) -> None:
    (tmp_path / "module.py").write_text(f"raise SystemExit\n{code}")
    text = "name: s\nentrypoint: module:train\nmetric: loss\nbudget: 3\nparameters: {x: {min: 0.0, max: 1.0}}\n"
    if found:
        assert parse(text, folder=tmp_path).entrypoint == "module:train"
    else:
        with pytest.raises(
            SpecError,
            match="study.yaml:2:13: entrypoint: `module.py` has no `train`, did you mean `trian`",
        ):
            parse(text, folder=tmp_path)


JUDGED = (
    "name: s\nentrypoint: module:train\nmetric: loss\nbudget: 3\nconstants: {epochs: 3}\nparameters:\n"
    "  rate: {min: 0.0, max: 1.0}\n  kind: {values: [a, b]}\n  depth: {min: 1, max: 3, when: {kind: a}}\n"
)


@pytest.mark.parametrize(
    "code",
    [
        "def train(rate, kind, epochs, depth=1): ...",
        "def train(*, trial, rate, kind, epochs, depth=None, other=3): ...",
        "def train(rate, **rest): ...",
        "def train(config): ...",
        "def train(config, *, trial): ...",
        "def train(settings, data=None): ...",
        "def train(trial): ...",
        "def train(t: optuna.Trial): ...",
        "def train(t: 'tunesvc.Trial', extra=1): ...",
        "@decorated\ndef train(): ...",
        "def train(): ...\ntrain = wrapped(train)",
        "if something:\n    def train(): ...",
        "class train: ...",
        "train = lambda: 0",
        "from elsewhere import train",
        "import json, absent\nfrom elsewhere import train",
        "try:\n    import broken\nexcept SyntaxError:\n    pass\ndef train(**all): ...",
    ],
)
def test_what_a_function_may_take_is_left_to_the_worker(tmp_path: Path, code: str) -> None:
    (tmp_path / "module.py").write_text(code)
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "json.py").write_text("the standard library's is meant (")
    assert parse(JUDGED, folder=tmp_path).name == "s"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "def train(rat, kind, epochs, depth=1): ...",
            [
                "7:3: parameters: `train` in `module.py`, line 1, does not take `rate`, did you mean `rat`?"
            ],
        ),
        (
            "\ndef train(rate, epochs, depth=1): ...",
            [
                "8:3: parameters: `train` in `module.py`, line 2, does not take `kind`: add it to the arguments"
            ],
        ),
        (
            "def train(rate, kind, *, depth=1, trial): ...",
            [
                "5:13: constants: `train` in `module.py`, line 1, does not take `epochs`: add it to the arguments"
            ],
        ),
        (
            "def train(rate, kind, epochs, *, data, depth=1): ...",
            [
                "2:13: entrypoint: `train` in `module.py`, line 1, needs `data`: declare it as a parameter or constant, or give it a default value"
            ],
        ),
        (
            "def train(rate, kind, epochs, depth): ...",
            [
                "9:27: parameters.depth: `train` in `module.py`, line 1, needs a default value for `depth`, which exists only under its `when`"
            ],
        ),
        ("def train(rate:", ["2:13: entrypoint: `module.py`, line 1: SyntaxError: "]),
        (
            "def train(**all):\n  x\n   y",
            ["2:13: entrypoint: `module.py`, line 3: IndentationError: "],
        ),
        ("x = 'a\0b'", ["2:13: entrypoint: `module.py`"]),
        (
            "import middle\ndef train(): ...",
            [
                "2:13: entrypoint: `broken.py`, line 1: SyntaxError: ",
                "`train` in `module.py`, line 2, does not take `rate`",
            ],
        ),
    ],
)
def test_what_a_function_cannot_take_is_found_without_running_it(
    tmp_path: Path, code: str, expected: list[str]
) -> None:
    (tmp_path / "module.py").write_text(code)
    (tmp_path / "middle.py").write_text("from broken import x")
    (tmp_path / "broken.py").write_text("def (")
    with pytest.raises(SpecError) as caught:
        parse(JUDGED, folder=tmp_path)
    for text in expected:
        assert text in str(caught.value)
