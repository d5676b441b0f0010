"""Programs of Hydra on real workers: `python train.py -m`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.support.command_line import Tune
from tests.support.hydra_plugins import install_plugin

pytest.importorskip("hydra")

pytestmark = pytest.mark.slow

CONFIG = """
defaults:
  - model: small
  - override hydra/sweeper: tunesvc
  - _self_
lr: 0.1
layers: 2
fails: none
sleep: 0
hydra:
  sweep: {dir: multirun}
  sweeper:
    study_name: demo
    n_trials: 6
    n_jobs: 2
    params:
      lr: tag(log, interval(1e-5, 1e-1))
      layers: range(1, 4)
      model: choice(small, large)
"""
PROGRAM = """
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import tunesvc

OmegaConf.register_new_resolver("double", lambda x: 2 * x)


@dataclass
class Outcome:
    loss: float


@hydra.main(version_base=None, config_path="conf", config_name="config")
def train(cfg: DictConfig):
    logging.getLogger(__name__).info("width %s", OmegaConf.create({"x": "${double:3}"}).x)
    if cfg.fails == cfg.model.name or cfg.fails == "all":
        raise ValueError(f"cannot train {cfg.model.name}")
    outcome = Outcome((cfg.lr - 0.01) ** 2 + cfg.layers / cfg.model.width)
    for epoch in range(1, 6):
        time.sleep(cfg.sleep)
        tunesvc.current_trial().report(epoch, outcome.loss + 1 / epoch)
    Path(HydraConfig.get().runtime.output_dir, "model.txt").write_text("trained")
    return outcome.loss


if __name__ == "__main__":
    train()
"""


@pytest.fixture
def program(local_tune: Tune, tmp_path_factory: pytest.TempPathFactory) -> Tune:
    """A folder with a program and its configuration."""
    (local_tune.folder / "conf" / "model").mkdir(parents=True)
    local_tune.write("conf/config.yaml", CONFIG)
    local_tune.write("conf/model/small.yaml", "{name: small, width: 16}")
    local_tune.write("conf/model/large.yaml", "{name: large, width: 64}")
    local_tune.write("train.py", PROGRAM)
    site = install_plugin(tmp_path_factory.mktemp("site"))
    local_tune.env["PYTHONPATH"] = os.pathsep.join([str(site), *filter(None, sys.path)])
    return local_tune


def start(program: Tune, *arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, "train.py", "-m", *arguments]
    return subprocess.Popen(
        line,
        cwd=program.folder,
        env=program.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(program: Tune, *arguments: str, code: int = 0) -> str:
    running = start(program, *arguments)
    out, err = running.communicate(timeout=200)
    assert running.returncode == code, out + err
    return out + err


def results(program: Tune) -> dict[str, object]:
    text = (program.folder / "multirun" / "optimization_results.yaml").read_text()
    found: dict[str, object] = yaml.safe_load(text)
    return found


def jobs(program: Tune) -> list[Path]:
    found = [path for path in (program.folder / "multirun").iterdir() if path.name.isdigit()]
    return sorted(found, key=lambda path: int(path.name))


def test_a_multirun_is_a_study_whose_trials_are_jobs(program: Tune) -> None:
    said = run(program, "hydra.sweeper.direction=minimize")
    assert "6 complete" in said or "pruned" in said
    assert [path.name for path in jobs(program)] == ["0", "1", "2", "3", "4", "5"]
    for folder in jobs(program):
        overrides = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
        assert sorted(one.partition("=")[0] for one in overrides if "hydra" not in one) == [
            *("layers", "lr", "model"),
        ]
        assert "width 6" in (folder / "train.log").read_text()
    assert (program.folder / "multirun" / "multirun.yaml").exists()
    best = results(program)
    assert best["name"] == "tunesvc"
    assert set(best) == {"name", "best_params", "best_value"}
    rows = json.loads(program.here("trials", "demo", "--json"))
    assert best["best_params"] in [row["params"] for row in rows]


def test_failed_jobs_leave_the_study_running_and_all_failed_end_it(program: Tune) -> None:
    run(program, "fails=small", "model=small,large", "hydra.sweeper.n_trials=8")
    states = {row["state"] for row in json.loads(program.here("trials", "demo", "--json"))}
    assert {"complete", "failed"} <= states
    said = run(program, "fails=all", "hydra.sweeper.study_name=broken", code=1)
    assert "ValueError: cannot train" in said


def test_several_objectives_write_the_front(program: Tune) -> None:
    program.write(
        "train.py", PROGRAM.replace("return outcome.loss", "return outcome.loss, cfg.layers")
    )
    run(program, "hydra.sweeper.direction=[minimize,minimize]")
    solutions = results(program)["solutions"]
    assert isinstance(solutions, list)
    assert all(len(one["values"]) == 2 and "lr" in one["params"] for one in solutions)


def wait_for_jobs(program: Tune, running: subprocess.Popen[str], number: int) -> None:
    until_s = time.monotonic() + 60
    folder = program.folder / "multirun"
    while len(list(folder.glob("*/model.txt"))) < number:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until_s
        time.sleep(0.1)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_same_command_continues_after_ctrl_c_and_after_a_kill(
    how: signal.Signals, program: Tune
) -> None:
    running = start(program, "sleep=0.1", "hydra.sweeper.n_trials=9")
    wait_for_jobs(program, running, 3)
    running.send_signal(how)
    out, err = running.communicate(timeout=100)
    assert running.returncode == (130 if how == signal.SIGINT else -9)
    if how == signal.SIGINT:
        assert (program.folder / "multirun" / "optimization_results.yaml").exists(), out + err
        assert "Traceback" not in err, err
    time.sleep(1)
    run(program, "sleep=0.1", "hydra.sweeper.n_trials=9")
    rows = json.loads(program.here("trials", "demo", "--json"))
    assert sorted(row["number"] for row in rows) == list(range(9))
    assert {row["state"] for row in rows} <= {"complete", "pruned"}


def test_jobs_are_pruned(program: Tune) -> None:
    options = "+hydra.sweeper.options.pruner={name: median, n_startup_trials: 3, n_warmup_steps: 0}"
    run(program, "sleep=0.1", "hydra.sweeper.n_trials=12", "hydra.sweeper.n_jobs=1", options)
    rows = json.loads(program.here("trials", "demo", "--json"))
    assert "pruned" in {row["state"] for row in rows}


STRUCTURED = """
import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore


class Color(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Db:
    driver: str = "mysql"


@dataclass
class Config:
    lr: float = 0.1
    color: Color = Color.RED
    name: str | None = None
    layers: list[int] = field(default_factory=lambda: [1])
    db: Db = field(default_factory=Db)


ConfigStore.instance().store(name="config", node=Config)


@hydra.main(version_base="1.3", config_name="config")
def train(cfg: Config):
    assert isinstance(cfg.color, Color)
    assert hydra.utils.get_original_cwd() != os.getcwd()
    Path("seen.txt").write_text(f"{cfg.color} {cfg.name} {cfg.layers} {cfg.db.driver}")
    return {"value": cfg.lr + sum(cfg.layers), "note": "text"}


if __name__ == "__main__":
    train()
"""


def test_structured_configurations_of_a_script_and_its_own_folder_reach_the_worker(
    program: Tune,
) -> None:
    program.write("train.py", STRUCTURED)
    swept = ["lr=tag(log,interval(1e-4,1))", "color=RED,BLUE", "layers=choice([1,2],[3])"]
    named = ["name=null,'a b'", "db.driver=mysql,postgres", "hydra.sweep.dir=multirun"]
    settings = ["hydra/sweeper=tunesvc", "hydra.sweeper.n_trials=4", "hydra.job.chdir=true"]
    run(program, *settings, *swept, *named)
    seen = [(folder / "seen.txt").read_text() for folder in jobs(program)]
    assert len(seen) == 4
    assert all(re.fullmatch(r"Color\.\w+ (None|a b) \[.*\] (mysql|postgres)", one) for one in seen)
