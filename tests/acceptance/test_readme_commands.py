"""README's commands, as they stand, after its first study has run: real training, a real
Postgres, a real Ray."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ray_fixtures import address_of_local_ray

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tunesvc(line: str, folder: Path, env: dict[str, str]) -> str:
    words = shlex.split(line, comments=True)
    program = [sys.executable, "-m", "tunesvc", *words[1:]]
    done = subprocess.run(
        program, cwd=folder, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.usefixtures("local_ray")
def test_the_first_study_runs_and_answers(
    tmp_path: Path, database_url: str, tune_home: Path
) -> None:
    pytest.importorskip("sklearn")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TUNE_", "RAY_"))
    }
    env = {**kept, "TUNE_DATABASE_URL": database_url, "TUNE_HOME": str(tune_home), "NO_COLOR": "1"}
    env["RAY_ADDRESS"] = address_of_local_ray()
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    (first,) = re.findall(r"tunesvc run studies/digits\.yaml", README)
    ended = tunesvc(first, tmp_path, env)
    (block,) = re.findall(r"When it has ended:\n\n```bash\n(.*?)```", README, re.DOTALL)
    best, *others = block.splitlines()
    params = tunesvc(best, tmp_path, env)
    assert params.startswith("lr: ")
    for line in others:
        tunesvc(line, tmp_path, env)
    assert (tmp_path / "digits.html").exists()
    shown = tunesvc("tunesvc best digits", tmp_path, env)
    headline = re.compile(r"^(?:Best|Recommended) .* trial (\d+)", re.MULTILINE)
    named = [headline.search(text) for text in (ended, shown)]
    assert all(named)
    assert len({match[1] for match in named if match}) == 1, (
        "the end of the run and `best` name one trial"
    )
