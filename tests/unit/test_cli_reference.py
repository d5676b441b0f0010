"""The help of the command line: quick, complete, and the same as in the docs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunesvc import __version__
from tunesvc.cli import app
from tunesvc.cli.cli_reference import reference

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"


def test_the_reference_in_the_docs_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "python -m tunesvc.cli.cli_reference > docs/cli.md"
    )


def test_help_imports_nothing_that_takes_time() -> None:
    heavy = ("ray", "optuna", "sqlalchemy", "pandas", "plotly", "pydantic", "numpy")
    code = (
        "import sys, tunesvc.cli\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(tunesvc.cli.app, ['--help']).exit_code == 0\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("code", "unneeded"),
    [
        (
            "from tunesvc.__main__ import main\nsys.argv = ['tune', 'validate', 'studies/digits.yaml']\n"
            "try: main()\nexcept SystemExit as end: assert not end.code",
            ("ray", "sqlalchemy", "alembic", "pandas", "plotly"),
        ),
        (
            "import tunesvc.cli.commands.show, tunesvc.views.study_text, tunesvc.client.opened_client\n"
            "from tunesvc.client.local.local_client import LocalClient\n"
            "import tunesvc.client.answers, tunesvc.queries.recommendation\n"
            "LocalClient(None, '').insights",
            ("ray", "alembic", "scipy", "pandas", "plotly", "httpx", "fastapi"),
        ),
        (
            "import tunesvc.cli.commands.show, tunesvc.client.paging, tunesvc.client.opened_client\n"
            "from tunesvc.client.local.local_client import LocalClient\n"
            "LocalClient(None, '').studies",
            ("ray", "alembic", "optuna", "numpy", "httpx"),
        ),
    ],
    ids=["validate", "look", "list"],
)
def test_a_command_imports_nothing_that_takes_time_and_that_it_does_not_need(
    code: str, unneeded: tuple[str, ...]
) -> None:
    code = f"import sys\n{code}\nprint([name for name in {unneeded} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_fills_the_line_and_gives_switches_no_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(app, ["run", "--help"]).stdout
    assert "<bool>" not in text
    assert "tune run [OPTIONS] {FILE}..." in text
    assert "something to run. If one fails, the others continue. Ctrl-C stops them" in text


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"tunesvc {__version__}\n"


def test_a_wrong_option_is_wrong_usage() -> None:
    assert CliRunner().invoke(app, ["ls", "--limit", "none"]).exit_code == 2
