"""README's commands, as they stand, after its first study has run: real training, a real
Postgres, a real Ray."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.support.command_line import Tune
from tests.support.ray_fixtures import address_of_local_ray

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = "budget: {trials: 9}\nparallelism: 1"
"""Enough for the README's questions about trial 7, with one worker that imports scikit-learn."""


@pytest.mark.parametrize(
    "study",
    [pytest.param(SHORT, id="short"), pytest.param("as it stands", marks=pytest.mark.slow)],
)
@pytest.mark.usefixtures("local_ray")
def test_the_first_study_runs_and_answers(
    tmp_path: Path, database_url: str, tune_home: Path, study: str
) -> None:
    pytest.importorskip("sklearn")
    tune = Tune(tmp_path, tune_home, TUNE_DATABASE_URL=database_url)
    tune.env["RAY_ADDRESS"] = address_of_local_ray()
    (tmp_path / "studies").mkdir()
    for name in ("digits.yaml", "digits.py"):
        text = (ROOT / "studies" / name).read_text(encoding="utf-8")
        text = re.sub("^budget: .*", SHORT, text, flags=re.MULTILINE) if study == SHORT else text
        (tmp_path / "studies" / name).write_text(text, encoding="utf-8")
    (first,) = re.findall(r"tunesvc (run studies/digits\.yaml)", README)
    ended = tune(*shlex.split(first))
    (block,) = re.findall(r"When it has ended:\n\n```bash\n(.*?)```", README, re.DOTALL)
    ask = tune.here if study == SHORT else tune
    best, *others = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    assert ask(*best).startswith("lr: ")
    for words in others:
        ask(*words)
    assert (tmp_path / "digits.html").exists()
    headline = re.compile(r"^(?:Best|Recommended) .* trial (\d+)", re.MULTILINE)
    named = [headline.search(text) for text in (ended, ask("best", "digits"))]
    assert all(named)
    assert len({match[1] for match in named if match}) == 1, (
        "the end of the run and `best` name one trial"
    )
