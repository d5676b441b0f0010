"""Hydra's sweeper `tunesvc`, without workers: what a multirun becomes, and what a job is."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from tests.support.hydra_plugins import install_plugin
from tunesvc import Pruned, Trial, current_trial
from tunesvc.trial import RUNNING

pytest.importorskip("hydra")

from hydra import main
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf

from tests.support.recording_channel import RecordingChannel
from tunesvc.errors import SpecError
from tunesvc.integrations.hydra import hydra_sweep
from tunesvc.integrations.hydra.hydra_job import HydraJob, as_override
from tunesvc.spec import StudySpec

PAGE = (Path(__file__).parents[2] / "docs" / "hydra.md").read_text(encoding="utf-8")
CONFIG = """
defaults:
  - model: small
  - override hydra/sweeper: tunesvc
  - _self_
lr: 0.1
layers: 2
tags: []
hydra:
  sweeper:
    study_name: demo
    direction: maximize
    n_trials: 30
    params:
      lr: tag(log, interval(1e-5, 1e-1))
      layers: range(1, 4)
      model: choice(small, large)
"""


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let Hydra find the plugin as in a wheel, and forget it afterwards."""
    folder = str(install_plugin(tmp_path_factory.mktemp("site")))
    state, root = Singleton.get_state(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
    for name in [name for name in sys.modules if name.startswith("hydra_plugins")]:
        del sys.modules[name]
    root.handlers[:], root.level = handlers, level
    Singleton.set_state(state)
    GlobalHydra.instance().clear()


class Multirun:
    """A program with a configuration, of which a multirun is read but not run."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._patch = monkeypatch
        self.write("config.yaml", CONFIG)
        self.write("model/small.yaml", "width: 16")
        self.write("model/large.yaml", "width: 64")

    def write(self, name: str, text: str) -> None:
        path = self.folder / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def __call__(self, *arguments: str, function: Any = None) -> tuple[StudySpec, HydraJob]:
        """Return the study of `python train.py -m ARGUMENTS`, and its objective."""
        found: list[tuple[StudySpec, HydraJob]] = []

        def keep(spec: StudySpec, job: HydraJob, *_: Any) -> None:
            found.append((spec, job))

        def body(config: DictConfig) -> Any:
            return (function or (lambda config: config.lr))(config)

        GlobalHydra.instance().clear()
        self._patch.setattr(hydra_sweep, "_run", keep)
        self._patch.setattr(sys, "argv", ["train.py", "-m", *arguments])
        self._patch.setenv("HYDRA_FULL_ERROR", "1")
        conf = str(self.folder / "conf")
        program = main(version_base=None, config_path=conf, config_name="config")(body)
        with chdir(self.folder):
            program()
        return found[0]


@pytest.fixture
def multirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Multirun:
    return Multirun(tmp_path, monkeypatch)


def test_the_keys_of_hydras_optuna_sweeper_make_a_study(multirun: Multirun) -> None:
    spec, job = multirun()
    assert spec.name == "demo"
    assert (spec.budget.trials, spec.parallelism) == (30, 2)
    assert [(one.name, one.goal) for one in spec.metrics] == [("value", "maximize")]
    plain = {name: one.model_dump(exclude_defaults=True) for name, one in spec.parameters.items()}
    assert plain == {
        "lr": {"type": "float", "min": 1e-5, "max": 0.1, "log": True},
        "layers": {"type": "int", "min": 1, "max": 4},
        "model": {"values": ("small", "large")},
    }
    assert spec.sampler.name == "auto"
    assert job.overrides == []


def test_overrides_of_the_command_line_replace_those_of_the_file(multirun: Multirun) -> None:
    spec, job = multirun(
        "lr=interval(0.5,1)",
        "layers=3",
        "+seed=1,2",
        "tags=[a,'b, c']",
        "hydra.sweeper.n_trials=5",
        "hydra.sweeper.direction=[minimize,maximize]",
        "hydra/sweeper/sampler=tpe",
        "hydra.sweeper.sampler.seed=7",
        "+hydra.sweeper.options.pruner=none",
    )
    assert list(spec.parameters) == ["lr", "model", "seed"]
    assert spec.parameters["lr"].model_dump(exclude_defaults=True)["min"] == 0.5
    assert job.keys["seed"] == "+seed"
    assert job.overrides == ["layers=3", "tags=[a,'b, c']"]
    assert spec.budget.trials == 5
    assert [one.name for one in spec.metrics] == ["value0", "value1"]
    assert (spec.sampler.name, spec.seed, spec.pruner.name) == ("tpe", 7, "none")


SPHERE = """
defaults:
  - override hydra/sweeper: tunesvc
  - override hydra/sweeper/sampler: tpe
hydra:
  sweeper:
    sampler: {seed: 123}
    direction: minimize
    study_name: sphere
    storage: null
    n_trials: 20
    n_jobs: 1
    params: {x: "range(-5.5, 5.5, step=0.5)", y: "choice(-5, 0, 5)"}
x: 1
y: 1
lr: 1
"""
NETWORK = """
defaults: [override hydra/sweeper: tunesvc]
hydra:
  sweeper:
    sampler: {_target_: optuna.samplers.CmaEsSampler, seed: 7, restart_strategy: ipop}
    direction: maximize
    study_name: network
    n_trials: 50
    n_jobs: 4
    params: {model.width: "interval(16, 512)", model.depth: "range(1, 8)", epochs: 10}
lr: 1
epochs: 1
model: {width: 1, depth: 1}
"""
SEVERAL = """
defaults: [{override hydra/sweeper: tunesvc}, {override hydra/sweeper/sampler: nsgaii}]
hydra:
  sweeper:
    direction: [minimize, maximize]
    study_name: several
    n_trials: 30
    search_space: {x: {type: float, low: -5.5, high: 5.5, step: 0.5}, y: {type: categorical, choices: [-5, 0]}}
lr: 1
x: 0
y: 0
"""


@pytest.mark.parametrize(
    ("text", "sampler", "seed", "parameters"),
    [
        (SPHERE, "tpe", 123, ["x", "y"]),
        (NETWORK, "cmaes", 7, ["model.width", "model.depth"]),
        (SEVERAL, "nsga2", None, ["x", "y"]),
    ],
)
def test_a_public_style_configuration_switches_by_one_word(
    text: str, sampler: str, seed: int | None, parameters: list[str], multirun: Multirun
) -> None:
    multirun.write("config.yaml", text)
    spec, job = multirun()
    assert (spec.sampler.name, spec.seed, list(spec.parameters)) == (sampler, seed, parameters)
    assert job.overrides == (["epochs=10"] if "network" in text else [])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["hydra.sweeper.n_trails=5"], "n_trails"),
        (["lr=interval(1)"], "missing a required argument"),
        (["lr=interval(1, 0.5)"], "parameters.lr: `min` .* is greater than `max`"),
        (["lr=glob(*)"], r"`params\.lr` is `glob\(\*\)`: write choice"),
        (["tags=choice({a: 1}, {b: 2})"], "between mappings: make each a config of a group"),
        (["hydra/sweeper/sampler=grid"], "grid"),
        (["hydra.sweeper.sampler=tpee"], "there is no 'tpee', did you mean 'tpe'"),
        (["hydra.sweeper.direction=minimise"], "minimise"),
        (["hydra.sweeper.custom_search_space=a.b"], "options.parameters`, with `when`"),
        (["hydra.launcher._target_=hydra_plugins.x.SlurmLauncher"], "is SlurmLauncher.*cluster"),
        (["+hydra.sweeper.options.prunner=none"], "did you mean `pruner`"),
        (["hydra.sweeper.n_trials=0"], "budget.trials"),
        (["lrr=interval(0, 1)"], r"Could not override 'lrr'[^$]*\+lrr"),
        (["model=choice(smal, large)"], "Could not find 'model/smal'"),
    ],
)
def test_what_cannot_be_used_is_an_error_that_names_it(
    arguments: list[str], expected: str, multirun: Multirun
) -> None:
    with pytest.raises(CompactHydraException, match=expected):
        multirun(*arguments)


def test_a_study_without_a_name_gets_one_that_is_shown(
    multirun: Multirun, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, job = multirun("hydra.sweeper.study_name=null")
    assert spec.name.startswith(f"{job.config.hydra.job.name}-")
    assert f"`hydra.sweeper.study_name={spec.name}` continues it" in capsys.readouterr().out


def test_what_is_left_out_is_said(multirun: Multirun, capsys: pytest.CaptureFixture[str]) -> None:
    multirun(
        "hydra.sweeper.storage='sqlite:///x.db'",
        "hydra.sweeper.max_failure_rate=0.5",
        "+hydra.sweeper.sampler._target_=optuna.samplers.TPESampler",
        "+hydra.sweeper.sampler.n_startup_trials=5",
        "hydra.launcher._target_=hydra_plugins.x.JoblibLauncher",
    )
    said = capsys.readouterr().out
    for part in (
        "hydra.sweeper.storage is no Postgres",
        "`max_failure_rate`: has no counterpart here",
        "`sampler.n_startup_trials`: samplers here have options of their own",
        "hydra.launcher is not used: `hydra.sweeper.n_jobs` jobs run at a time",
    ):
        assert part in said


def composed(job: HydraJob, trial: Trial) -> Any:
    """Run a job as a worker does."""
    token = RUNNING.set(trial)
    try:
        return job({}, trial=trial)
    finally:
        RUNNING.reset(token)


def test_a_trial_is_a_job_of_hydra_with_its_own_folder(multirun: Multirun, tmp_path: Path) -> None:
    seen: list[Any] = []

    def body(config: DictConfig) -> float:
        seen.append((OmegaConf.to_container(config), HydraConfig.get().job.num))
        folder = Path(HydraConfig.get().runtime.output_dir)
        (folder / "out.txt").write_text("x")
        current_trial().report(1, 0.5)
        return 0.25

    _, job = multirun("layers=3", "hydra.sweep.dir=runs", "hydra.sweep.subdir=${hydra.job.num}")
    job = HydraJob(job.context, body, job.config, job.keys, job.overrides, job.singletons)
    channel = RecordingChannel(tmp_path / "channel")
    trial = Trial(channel, number=4, params={"lr": 1e-05, "model": "large"}, metrics=("value",))
    assert composed(job, trial) == 0.25
    assert seen == [({"lr": 1e-05, "layers": 3, "tags": [], "model": {"width": 64}}, 4)]
    assert channel.steps == [1]
    folder = tmp_path / "runs" / "4"
    assert {path.name for path in folder.iterdir()} == {
        ".hydra",
        "out.txt",
        f"{job.config.hydra.job.name}.log",
    }
    assert OmegaConf.load(folder / ".hydra" / "overrides.yaml") == [
        "layers=3",
        "lr=1e-05",
        "model=large",
    ]


def test_a_failed_job_raises_its_error_and_a_pruned_one_is_pruned(
    multirun: Multirun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(config: DictConfig) -> float:
        raise ZeroDivisionError("broken")

    def reporting(config: DictConfig) -> float:
        current_trial().report(1, 0.5)
        raise AssertionError("it was asked to stop")

    _, job = multirun("hydra.sweep.dir=runs")
    channel = RecordingChannel(tmp_path / "channel", stop_after=1)
    for function, error in ((broken, ZeroDivisionError), (reporting, Pruned)):
        one = HydraJob(job.context, function, job.config, job.keys, job.overrides, job.singletons)
        capfd.readouterr()
        with pytest.raises(error):
            composed(one, Trial(channel, number=0, params={"lr": 0.1}, metrics=("value",)))
        assert ("Error executing job" in capfd.readouterr().err) is (function is broken)


VALUES: Sequence[Any] = [
    *(None, True, 3, 1e-07, "adam", "two words", "a,b", "it's", "null", "3", "", "x=1", "${y}"),
    *([1, "b c"], "model/small", "1e-3", "-x", "a\\", "interval(1, 2)"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_hydra_reads_the_override_of_a_value_as_that_value(value: Any) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([f"x={as_override(value)}"])
    assert not override.is_sweep_override()
    read = override.value()
    plain = read.text if hasattr(read, "text") else read
    if isinstance(plain, list):
        plain = [one.text if hasattr(one, "text") else one for one in plain]
    assert plain == value


def test_the_page_shows_configurations_that_run(multirun: Multirun, tmp_path: Path) -> None:
    first, options = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    multirun.write("config.yaml", first)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(program, "train.py", "exec"), names)  # noqa: S102
    spec, job = multirun(function=names["train"].__wrapped__)
    assert (spec.name, list(spec.parameters)) == ("digits", ["lr", "layers"])
    trial = Trial(RecordingChannel(tmp_path / "channel"), params={"lr": 0.01, "layers": 2})
    assert composed(job, trial) == pytest.approx(0.5)
    both = OmegaConf.merge(OmegaConf.create(first), OmegaConf.create(options))
    optimizer = {"name": "sgd", "momentum": 0.9}
    multirun.write("config.yaml", OmegaConf.to_yaml({**both, "optimizer": optimizer}))
    spec, _ = multirun()
    assert spec.parameters["optimizer.momentum"].when == {"optimizer.name": "sgd"}
    assert (spec.pruner.name, spec.resources.gpu, spec.retries.error) == ("asha", 1, 1)


def test_current_trial_is_detached_outside_of_a_study() -> None:
    current_trial().report(1, 0.5)


def test_a_program_of_hydra_that_only_finds_the_plugin_loads_none_of_tunesvc(
    tmp_path: Path,
) -> None:
    code = (
        "import sys; from hydra.core.plugins import Plugins; Plugins.instance();"
        "print('hydra_plugins.tunesvc_sweeper' in sys.modules, 'tunesvc' in sys.modules)"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(install_plugin(tmp_path))!r}); {code}",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "True False\n"


def test_a_custom_search_space_is_refused_with_what_to_write() -> None:
    with pytest.raises(SpecError, match="with `when`"):
        hydra_sweep.study_of({"custom_search_space": "a.b"}, lambda config, *, trial: 0)
