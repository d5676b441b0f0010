"""`tune init script.py`: options of argparse, click and typer, read without running the script."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tunesvc.cli import app
from tunesvc.errors import SpecError
from tunesvc.execution.objectives.command import substitute
from tunesvc.foreign.programs.program_option import ProgramOption
from tunesvc.foreign.programs.program_study import study_of_program
from tunesvc.foreign.programs.range_guess import guess
from tunesvc.preview import preview
from tunesvc.search.registry.component_check import option_issues
from tunesvc.spec.yaml.document import load

PROGRAMS = Path(__file__).parents[1] / "foreign" / "programs"
SCRIPTS = sorted(path for path in PROGRAMS.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_becomes_the_study_beside_it(script: Path) -> None:
    made, notes = study_of_program(script, script.with_name("study.yaml"), option_issues)
    assert made == script.with_suffix(".study.yaml").read_text()
    assert all(f"#   {note}" in made for note in notes)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_program_takes_what_the_study_gives_it(script: Path) -> None:
    """The real libraries parse the command of three trials; a required value is filled in."""
    spec = load(script.with_suffix(".study.yaml")).spec
    assert spec.command is not None
    for params in preview(spec, samples=3).samples:
        line = substitute(spec.command, {**spec.constants, **params})
        line = [str(script) if word == script.name else word for word in line]
        line = [str(PROGRAMS) if word.isupper() and word.isalpha() else word for word in line]
        done = subprocess.run(
            [sys.executable, *line[1:]], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        for name, value in params.items():
            assert isinstance(value, bool) or str(value) in done.stdout, (name, done.stdout)


def made_of(folder: Path, text: str) -> tuple[dict[str, Any], str]:
    """Return the study of a script's text, and its notes."""
    (folder / "train.py").write_text(text)
    made, notes = study_of_program(folder / "train.py", folder / "study.yaml", option_issues)
    return yaml.safe_load(made), "\n".join(notes)


ARGPARSE = "import argparse\np = argparse.ArgumentParser()\n"
CLICK = "import click\n@click.command()\n"
TYPER = "import typer\napp = typer.Typer()\n"


@pytest.mark.parametrize(
    ("text", "command", "parameters", "note"),
    [
        (
            f"{ARGPARSE}p.add_argument('--lr', type=float, required=True)",
            ["${--lr}"],
            {"lr": {"min": 1e-5, "max": 0.1, "log": True}},
            "",
        ),
        (
            f"{ARGPARSE}p.add_argument('-n', type=int, default=4)\np.add_argument('-v', action='store_true')",
            ["-n", "${n}"],
            {"n": {"min": 1, "max": 16}},
            "line 4: `-v` keeps",
        ),
        (
            f"{ARGPARSE}p.add_argument('--opt', choices=('a', 'b'))\np.add_argument('--lr', type=float, default=1)\n"
            "p.set_defaults(lr=0.5)",
            ["${--opt}", "${--lr}"],
            {
                "opt": {"values": ["a", "b"]},
                "lr": {"min": 0.05, "max": 5.0, "log": True},
            },
            "",
        ),
        (
            f"{ARGPARSE}s = p.add_subparsers()\nt = s.add_parser('train')\nt.add_argument('--lr', type=float, default=1.)\n"
            "e = s.add_parser('eval')\ne.add_argument('--k', type=int, default=3)\np.add_argument('--wd', type=float, default=1.)",
            ["${--wd}", "train", "${--lr}"],
            {
                "wd": {"min": 0.1, "max": 10.0, "log": True},
                "lr": {"min": 0.1, "max": 10.0, "log": True},
            },
            "line 6: the subcommand `eval` is left out",
        ),
        (
            f"{ARGPARSE}p.add_argument('x', type=float)\np.add_argument('--d', type=bool, default=False)",
            ["${x}"],
            {"x": {"min": 0.0, "max": 1.0}},
            "line 4: `--d` has `type=bool`, for which every text is true",
        ),
        (
            f"{CLICK}@click.option('--n', '-n', default=3)\n@click.option('--fast', is_flag=True)\ndef main(n, fast): ...",
            ["${--n}", "${--fast}"],
            {"n": {"min": 1, "max": 12}, "fast": {"values": [False, True]}},
            "",
        ),
        (
            "import click\n@click.group()\ndef cli(): ...\n@cli.command()\n@click.option('--lr', type=click.FloatRange(min=1e-4, max=1))\n"
            "def fit_it(lr): ...",
            ["fit-it", "${--lr}"],
            {"lr": {"min": 0.0001, "max": 1.0, "log": True}},
            "",
        ),
        (
            f"{TYPER}def main(depth: int = 3, data: str = typer.Argument('x'), w: float | None = None): ...\ntyper.run(main)",
            ["${--depth}", "${--w}"],
            {"depth": {"min": 1, "max": 12}, "w": {"min": 0.0, "max": 1.0}},
            "line 3: `data` keeps its default 'x'",
        ),
        (
            f"{TYPER}@app.command()\ndef main(ctx: typer.Context, *, shuffle: bool = True, n: int = typer.Option(..., min=2)): ...",
            ["${--no-shuffle}", "${--n}"],
            {"no_shuffle": {"values": [False, True]}, "n": {"min": 2, "max": 10}},
            "",
        ),
    ],
)
def test_options_become_parameters_with_reasons(
    text: str, command: list[str], parameters: dict[str, Any], note: str, tmp_path: Path
) -> None:
    study, notes = made_of(tmp_path, text)
    assert study["command"] == ["python", "train.py", *command]
    assert study["parameters"] == parameters
    assert note in notes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1", "declares no options by argparse, click or typer: `tune init DIR`"),
        ("def f(:\n", r"train\.py, line 1 is no Python"),
        (
            f"{ARGPARSE}p.add_argument('--out', default='x')",
            "no options with numbers or choices to tune:\n  line 3: `--out` keeps",
        ),
        ("import hydra\n@hydra.main()\ndef f(c): ...", "a program of Hydra: .*override hydra"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_script_without_options_is_refused_with_what_to_do(
    text: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(text, errors="surrogateescape")
    with pytest.raises(SpecError, match=expected):
        study_of_program(tmp_path / "train.py", tmp_path / "study.yaml")


@given(
    st.sampled_from(["int", "float"]),
    st.none() | st.integers(-(10**6), 10**6) | st.floats(-1e9, 1e9),
    st.sampled_from(["lr", "dropout", "width", "momentum"]),
    st.none() | st.floats(-10, 10),
    st.none() | st.floats(-10, 10),
)
def test_a_guess_is_a_range_that_contains_the_default(
    kind: Any, default: Any, name: str, low: float | None, high: float | None
) -> None:
    found = guess(ProgramOption(name, f"--{name}", 1, kind, default, None, low, high))
    if found is None:
        return
    parameter, _ = found
    assert parameter["min"] < parameter["max"]
    assert not parameter.get("log") or parameter["min"] > 0
    if default is not None and low is None and high is None:
        assert parameter["min"] <= default <= parameter["max"]


def test_an_option_of_the_program_and_of_its_subcommand_is_one_parameter(tmp_path: Path) -> None:
    """And the name of a script is a name of a study, whatever it begins with."""
    option = "add_argument('--lr', type=float, default=0.1)\n"
    text = f"{ARGPARSE}p.{option}s = p.add_subparsers()\nt = s.add_parser('t')\nt.{option}"
    script = tmp_path / "1 train ü.py"
    script.write_text(text)
    made, notes = study_of_program(script, tmp_path / "study.yaml", option_issues)
    assert yaml.safe_load(made)["command"] == ["python", script.name, "${--lr}", "t"]
    assert "line 6: `--lr` is there twice" in notes


def test_the_script_of_the_page_becomes_a_study(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "importing.md").read_text(encoding="utf-8")
    section = page.split("\n## A script with options\n")[1]
    study, notes = made_of(tmp_path, re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0])
    assert list(study["parameters"]) == ["lr", "batch_size", "optimizer", "amp"]
    assert notes == "line 10: `--epochs` keeps its default 10"


def test_the_command_writes_beside_the_script_and_overwrites_nothing(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(f"{ARGPARSE}p.add_argument('--lr', type=float, default=0.1)\n")
    run = CliRunner().invoke
    done = run(app, ["init", str(script)])
    assert done.exit_code == 0, done.output
    assert f"tune preview {tmp_path / 'study.yaml'}" in done.output
    assert load(tmp_path / "study.yaml").spec.parameters.keys() == {"lr"}
    again = run(app, ["init", str(script)])
    assert again.exit_code != 0
    assert "name another file by --out" in again.output
    (tmp_path / "sub").mkdir()
    elsewhere = run(app, ["init", str(script), "--out", str(tmp_path / "sub" / "other.yaml")])
    assert elsewhere.exit_code == 0
    command = load(tmp_path / "sub" / "other.yaml").spec.command
    assert command is not None
    assert command[1] == "../train.py"
    assert run(app, ["init", str(tmp_path), "--out", "x.yaml"]).exit_code != 0
    assert run(app, ["init", str(tmp_path / "none.py")]).exit_code != 0
