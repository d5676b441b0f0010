"""Tuning from Python as people do it: a script, the REPL, an asyncio program, a notebook; real
Postgres, real Ray."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command_line import Tune
from tests.support.ray_fixtures import address_of_local_ray

OBJECTIVE = """
import time
from typing import Annotated

import tunesvc
from tunesvc import Choice, Float, Trial, tunable


@tunable(metric="loss", sampler="random", seed=1, parallelism=1, resources={"cpu": 0.5})
def train(
    lr: Annotated[float, Float(0.0, 1.0)],
    solver: Annotated[str, Choice("sgd", "adam")] = "sgd",
    epochs: int = 3,
    *,
    trial: Trial,
) -> float:
    for epoch in range(epochs):
        trial.report(epoch, loss=lr + 1 / (1 + epoch), auc=1 - lr)
    return lr


@tunable(metric="loss", sampler="random", parallelism=1, resources={"cpu": 0.5})
def broken(lr: Annotated[float, Float(0.0, 1.0)]):
    return lr * undefined_name
"""

SCRIPT = f"""{OBJECTIVE}
import optuna

if __name__ == "__main__":
    seen = []
    study = train.tune(
        trials=6,
        sampler=optuna.samplers.RandomSampler(seed=3),
        pruner=optuna.pruners.NopPruner(),
        callbacks=[lambda study, trial: seen.append([study.study_name, trial.number, trial.value])],
    )
    assert train(**study.best_params) == study.best_value
    assert sorted(number for _, number, _ in seen) == list(range(6)), seen
    assert min(value for *_, value in seen) == min(trial.value for trial in study.trials)
    assert study.curves("auc").shape == (3, 6)
    assert [one.name for one in tunesvc.studies()] == ["train"]

    def stop(study, trial):
        study.stop()

    stopped = train.tune(trials=500, name="stopped", callbacks=[stop], progress=False)
    assert stopped.state == "stopped", stopped
    assert len(stopped.trials) < 500

    limited = train.tune(trials=100_000, name="limited", timeout=1.0, progress=False)
    assert limited.interrupted
    limited = train.tune(name="limited", resume=True, timeout=1.0, progress=False)
    assert limited.interrupted, "the stored budget holds"

    try:
        broken.tune(trials=2, progress=False)
    except tunesvc.StudyFailed as error:
        print(error.__cause__)
"""

REPL = f"""{OBJECTIVE}
study = train.tune(trials=2, progress=False)
study
print(train(**study.best_params) == study.best_value)
"""

ASYNC = f"""{OBJECTIVE}
import asyncio


async def main():
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.05)

    ticking = asyncio.create_task(tick())
    study = await asyncio.to_thread(train.tune, trials=2)
    ticking.cancel()
    print(study.best_value, ticks)


if __name__ == "__main__":
    asyncio.run(main())
"""

SLOW = f"""{OBJECTIVE}
@tunable(metric="loss", sampler="random", resources={{"cpu": 0.5}})
def slow(lr: Annotated[float, Float(0.0, 1.0)], *, trial: Trial):
    for step in range(1_000):
        trial.report(step, loss=lr)
        time.sleep(0.1)


if __name__ == "__main__":
    slow.tune(trials=2)
"""


GUIDE = Path(__file__).parents[2] / "docs" / "python.md"
SERVER = "https://tune.example.org"


@pytest.fixture
def env(database_url: str, tune_home: Path) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("TUNE_", "RAY_"))
    }
    return {**kept, "TUNE_DATABASE_URL": database_url, "TUNE_HOME": str(tune_home)}


@pytest.fixture
def joins(env: dict[str, str], local_ray: None) -> None:
    """Has programs join the session's Ray as they would a cluster, which takes less time than a
    start per study."""
    env["RAY_ADDRESS"] = address_of_local_ray()


def run(text: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(text)
    line = [sys.executable, "script.py"]
    return subprocess.run(
        line, cwd=folder, env=env, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.slow
@pytest.mark.usefixtures("joins")
def test_a_script_sees_progress_and_uses_the_best_parameters(
    tmp_path: Path, env: dict[str, str]
) -> None:
    done = run(SCRIPT, tmp_path, env)
    assert done.returncode == 0, done.stderr
    assert "best     trial " in done.stderr
    assert re.search(
        r"over     finished after .*: all 6 trials are done; 6 complete, .*; best loss = ",
        done.stderr,
    )
    assert "NameError: name 'undefined_name' is not defined" in done.stdout
    assert "best     trial" not in done.stdout, "progress does not mix with the program's output"


@pytest.mark.slow
def test_a_function_of_the_repl_is_tuned(tmp_path: Path, env: dict[str, str]) -> None:
    line = [sys.executable, "-i", "-q"]
    done = subprocess.run(
        line,
        cwd=tmp_path,
        env=env,
        input=REPL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert "<Study 'train': finished, 2 complete, 0 pruned>" in done.stdout, done.stderr
    assert "True" in done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("joins")
def test_an_asyncio_program_stays_responsive(tmp_path: Path, env: dict[str, str]) -> None:
    done = run(ASYNC, tmp_path, env)
    assert done.returncode == 0, done.stderr
    value, ticks = done.stdout.split()
    assert 0.0 <= float(value) <= 1.0
    assert int(ticks) > 10


@pytest.mark.slow
@pytest.mark.usefixtures("joins")
def test_a_program_lives_until_its_run_in_the_background_has_ended(
    tmp_path: Path, env: dict[str, str]
) -> None:
    start = "run = train.start(trials=6, parallelism=2)"
    done = run(f'{OBJECTIVE}\nif __name__ == "__main__":\n    {start}\n', tmp_path, env)
    assert done.returncode == 0, done.stderr
    seen = run(f"{OBJECTIVE}\nprint(tunesvc.load_study('train'))\n", tmp_path, env)
    assert "<Study 'train': finished" in seen.stdout, seen.stderr


def test_ctrl_c_ends_a_script_in_order_and_says_how_to_continue(
    tmp_path: Path, env: dict[str, str]
) -> None:
    (tmp_path / "script.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = []
        until = time.monotonic() + 120
        for line in process.stderr:
            lines.append(line)
            if line.startswith("phase    waiting for Ray"):
                break
            assert time.monotonic() < until
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130 or process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt: study 'slow' was interrupted; what is recorded is kept" in rest


@pytest.mark.slow
@pytest.mark.usefixtures("joins")
def test_the_guide_runs_as_it_stands(tmp_path: Path, env: dict[str, str]) -> None:
    blocks = [block for block in guide_blocks() if SERVER not in block]
    done = run("\n".join(blocks), tmp_path, env)
    assert done.returncode == 0, done.stderr
    assert "<Study 'train': finished" in done.stdout
    assert "Trial " in done.stdout.splitlines()[-1], "the verdict of the confirmation"
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_the_guide_to_a_server_runs_as_it_stands(remote_tune: Tune, tmp_path: Path) -> None:
    remote_tune("run", "bowl.yaml", "--quiet")
    (block,) = [block for block in guide_blocks() if SERVER in block]
    block = block.replace(SERVER, remote_tune.env["TUNE_SERVER"]).replace("digits", "bowl")
    token = f"token = {remote_tune.env['TUNE_TOKEN']!r}\n"
    done = run(token + block, tmp_path, remote_tune.env)
    assert done.returncode == 0, done.stderr
    assert "{'x': " in done.stdout, "the parameters of the best trial"
    assert "200" in remote_tune("show", "bowl", "--json")


def guide_blocks() -> list[str]:
    """Return the code blocks of the Python guide."""
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
