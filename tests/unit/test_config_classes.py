"""Functions of a dataclass or pydantic model: its fields are the search space."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import cloudpickle
import pytest
from pydantic import BaseModel, Field

from tests.support.jobs_and_events import make_job, make_launch
from tunesvc import Choice, Float, Int, Trial, tunable
from tunesvc.config_classes.config_function import with_config
from tunesvc.errors import SpecError
from tunesvc.execution.attempt.attempt import Attempt, WorkerInfo
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.execution.objectives.adapters import prepare
from tunesvc.execution.objectives.pickled_function import pickle_function, unpickle_function
from tunesvc.execution.worker.batching import BatchSignal
from tunesvc.execution.worker.outbox import Outbox
from tunesvc.spec.yaml.document import load

ROOT = Path(__file__).parents[2]


class Activation(Enum):
    RELU = "relu"
    TANH = "tanh"


class Schedule(Enum):
    FLAT = object()
    COSINE = object()


@dataclass(frozen=True)
class Optimizer:
    name: Literal["sgd", "adam"]
    lr: Annotated[float, Float(1e-5, 1e-1, log=True)] = 1e-3
    momentum: Annotated[float | None, Float(0.0, 0.99, when={"name": "sgd"})] = None


@dataclass
class Training:
    optimizer: Optimizer
    activation: Activation
    schedule: Schedule
    hidden: Annotated[tuple[int, ...], Choice((32,), (64, 64))]
    epochs: int = 3
    amp: bool = False
    warm: bool | None = None
    tags: list[str] = field(default_factory=list)


class Layer(BaseModel):
    width: int = Field(64, ge=8, lt=129, multiple_of=8)
    dropout: float | None = Field(None, ge=0.0, le=0.5)


class Network(BaseModel, extra="forbid"):
    layer: Layer = Layer(width=32)
    activation: Activation = Activation.RELU
    bias: bool
    init: Literal["zeros", 3, None] = "zeros"
    lr: Annotated[float, Field(ge=1e-4, le=1.0)] = Field(0.1, alias="learning-rate")
    epochs: int = Field(10, ge=1)


class Base(BaseModel):
    lr: Annotated[float, Float(1e-4, 1.0, log=True)]


class Child(Base):
    depth: Annotated[int, Int(1, 4)] = 2


def of_dataclass(config: Training, trial: Trial) -> float:
    trial.report(1, loss=config.optimizer.lr)
    assert isinstance(config.activation, Activation)
    assert isinstance(config.schedule, Schedule)
    assert isinstance(config.hidden, tuple)
    return config.optimizer.lr + len(config.hidden)


def of_pydantic(network: Network, *, scale: float = 2.0) -> float:
    return network.layer.width * scale


def of_child(cfg: Child) -> float:
    return cfg.lr * cfg.depth


def ranges(function: Any, **options: Any) -> dict[str, Any]:
    spec = tunable(function).spec(trials=1, **options)
    return {
        name: one.model_dump(exclude_defaults=True, exclude={"type"})
        for name, one in spec.parameters.items()
    }


def test_fields_of_a_dataclass_are_parameters_by_dotted_names() -> None:
    assert ranges(of_dataclass) == {
        "optimizer.name": {"values": ("sgd", "adam")},
        "optimizer.lr": {"min": 1e-5, "max": 0.1, "log": True},
        "optimizer.momentum": {"min": 0.0, "max": 0.99, "when": {"optimizer.name": "sgd"}},
        "activation": {"values": ("relu", "tanh")},
        "schedule": {"values": ("FLAT", "COSINE")},
        "hidden": {"values": ((32,), (64, 64))},
    }
    assert tunable(of_dataclass).spec(trials=1).constants == {"epochs": 3, "amp": False}


def test_bounds_and_types_of_a_pydantic_model_are_ranges() -> None:
    assert ranges(of_pydantic) == {
        "layer.width": {"min": 8, "max": 128, "step": 8},
        "layer.dropout": {"min": 0.0, "max": 0.5},
        "activation": {"values": ("relu", "tanh")},
        "bias": {"values": (False, True)},
        "init": {"values": ("zeros", 3, None)},
        "lr": {"min": 1e-4, "max": 1.0},
    }
    assert tunable(of_pydantic).spec(trials=1).constants == {"epochs": 10, "scale": 2.0}
    assert list(ranges(of_child)) == ["lr", "depth"]


@dataclass
class Inner:
    width: int = 1
    run: str = field(default_factory=lambda: f"run-{next(NUMBERS)}")


@dataclass
class Outer:
    lr: Annotated[float, Float(0, 1)]
    inner: Inner = field(default_factory=lambda: Inner(width=5))
    other: Inner = None  # type: ignore[assignment]
    run: str = field(default_factory=lambda: f"run-{next(NUMBERS)}")


NUMBERS = itertools.count()


def of_outer(config: Outer) -> float:
    return config.inner.width


def test_a_default_of_a_nested_config_counts_and_what_a_factory_makes_is_not_stored(
    tmp_path: Path,
) -> None:
    constants = tunable(of_outer).spec(trials=1).constants
    assert constants == {"inner.width": 5}
    assert prepare(of_outer)(attempt_of(tmp_path, {"lr": 0.5, **constants})) == {"loss": 5.0}


def test_options_of_the_decorator_replace_and_fix_fields() -> None:
    options = {"parameters": {"lr": Float(0.1, 0.2)}, "constants": {"init": "zeros", "bias": True}}
    found = ranges(of_pydantic, **options)
    assert found["lr"] == {"min": 0.1, "max": 0.2}
    assert "init" not in found
    assert "bias" not in found


PARAMS = {
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.5,
    "activation": "tanh",
    "schedule": "COSINE",
    "hidden": [64, 64],
}


def attempt_of(folder: Path, params: dict[str, Any]) -> Attempt:
    bell = BatchSignal()
    launch = make_launch(7, **params)
    return Attempt(make_job(folder), launch, WorkerInfo("here", 1), Outbox(bell), bell.lock)


def test_the_function_receives_an_instance(tmp_path: Path) -> None:
    attempt = attempt_of(tmp_path, PARAMS)
    assert prepare(of_dataclass)(attempt) == {"loss": 1e-3 + 2}
    attempt = attempt_of(tmp_path, {"layer.dropout": 0.25, "bias": True, "scale": 3})
    assert prepare(of_pydantic)(attempt) == {"loss": 96.0}, "the rest is as the default has it"


def test_a_value_that_the_model_refuses_fails_the_trial_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="less than or equal to 0.5"):
        prepare(of_pydantic)(attempt_of(tmp_path, {"layer.dropout": 2.0, "bias": True}))


def test_it_is_called_with_an_instance_or_with_the_best_parameters() -> None:
    train = tunable(of_pydantic)
    assert train(Network(bias=True)) == 64.0
    best: dict[str, Any] = {"layer.width": 16, "bias": False, "scale": 1.0}
    assert train(**best) == 16.0
    assert tunable(of_dataclass)(**PARAMS) == pytest.approx(2.001)  # the trial is filled in


def test_a_misspelt_field_is_an_error_in_a_call_and_in_a_trial(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="`Child` has no field `dept`, did you mean `depth`"):
        tunable(of_child)(lr=0.1, dept=3)
    with pytest.raises(EntrypointError, match="no field `dept`.*`Child` needs `lr`"):
        prepare(of_child)(attempt_of(tmp_path, {"dept": 3}))


def without_bounds() -> Callable[..., Any]:
    class Config(BaseModel):
        data: str
        lr: float = Field(gt=0, lt=1)
        decay: float

    def train(config: Config) -> float:
        return 0

    return _resolved(train, config=Config)


def conditional() -> Callable[..., Any]:
    @dataclass
    class Config:
        momentum: Annotated[float, Float(0, 1, when={"name": "sgd"})]
        name: Literal["sgd", "adam"] = "sgd"

    def train(config: Config) -> float:
        return 0

    return _resolved(train, config=Config)


def nested() -> Callable[..., Any]:
    @dataclass
    class Layer:
        width: int

    @dataclass
    class Config:
        layer: Layer

    def train(config: Config) -> float:
        return 0

    _resolved(Config, layer=Layer)
    return _resolved(train, config=Config)


def unresolved() -> Callable[..., Any]:
    @dataclass
    class Config:
        lr: Nowhere  # type: ignore[name-defined]  # noqa: F821

    def train(config: Config) -> float:
        return 0

    return _resolved(train, config=Config)


def _resolved(function: Callable[..., Any], **annotations: Any) -> Callable[..., Any]:
    function.__annotations__.update(annotations)
    return function


@pytest.mark.parametrize(
    ("function", "options", "expected"),
    [
        (without_bounds, {}, "`data` has neither a range nor a default: .*`constants`"),
        (
            without_bounds,
            {},
            r"`lr` is open at an end \(gt=0, lt=1\): write ge and le, or annotate",
        ),
        (conditional, {}, "`momentum` needs a default for when it does not exist"),
        (nested, {}, r"`layer.width` has neither .* `width: Annotated\[int, Int\(1, 10\)\]`"),
        (unresolved, {}, "Config: its annotations cannot be read .*Nowhere"),
        (lambda: of_child, {"parameters": {"dept": Int(1, 2)}}, "no field `dept`, did you mean"),
        (
            lambda: of_child,
            {"parameters": {"lr": Float(0, 1, when={"depth": 1})}},
            "`Child` needs a default value for `lr`, which exists only under its `when`",
        ),
        (lambda: of_child, {"constants": {"x": 1}}, "`Child` has no field `x`: it has lr, depth"),
    ],
)
def test_what_cannot_be_tuned_is_named(
    function: Callable[[], Callable[..., Any]], options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(SpecError, match=expected):
        tunable(function()).spec(trials=1, **options)


def test_a_function_of_a_script_travels_with_its_class(tmp_path: Path) -> None:
    """`__main__` of a worker has neither the class nor the names of its annotations."""
    script = tmp_path / "script.py"
    page = re.findall(r"```python\n(.*?)```", section("Tune a config"), re.DOTALL)[0]
    head = page.partition("if __name__")[0]
    dump = "from tunesvc.execution.objectives.pickled_function import pickle_function\n"
    dump += "open('f.pickle', 'wb').write(pickle_function(train_config.__wrapped__))\n"
    script.write_text("from __future__ import annotations\n" + head + dump)
    load_it = (
        "from tunesvc.execution.objectives.pickled_function import unpickle_function as load\n"
        "f = load(open('f.pickle', 'rb').read())\n"
        "print(f(**{'lr': 0.01, 'network.hidden': 16}, trial=__import__('tunesvc').Trial()))\n"
    )
    for line in (["script.py"], ["-c", load_it]):
        done = subprocess.run(
            [sys.executable, *line],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 1


def section(heading: str) -> str:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_a_function_of_a_module_is_pickled_too() -> None:
    function = unpickle_function(pickle_function(of_child))
    assert function(lr=0.5) == 1.0
    assert with_config(cloudpickle.loads(cloudpickle.dumps(function))) is not None


ENTRYPOINT = """
from dataclasses import dataclass
import settings

@dataclass
class Config:
    lr: float
    depth: int = 2

def by_config(config: Config, trial):
    return config.lr * config.depth

def elsewhere(config: settings.Config):
    return config.lr
"""


@pytest.mark.parametrize("name", ["by_config", "elsewhere"])
def test_a_study_file_may_name_a_function_of_a_config(name: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(ENTRYPOINT)
    (tmp_path / "study.yaml").write_text(
        f"name: s\nentrypoint: train.py:{name}\nmetric: loss\nbudget: 1\n"
        "parameters: {lr: {min: 0.1, max: 1.0}, depth: {min: 1, max: 4}}\n"
    )
    assert load(tmp_path / "study.yaml").spec.entrypoint == f"train.py:{name}"


def test_a_dataclass_with_a_default_stays_what_it_was() -> None:
    """Only an argument without a default is the config."""

    options = Optimizer("sgd")

    def train(lr: Annotated[float, Float(0, 1)], optimizer: Optimizer = options) -> float:
        return lr

    assert list(ranges(train)) == ["lr"]
