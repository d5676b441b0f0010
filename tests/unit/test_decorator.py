"""`@tunable`: still a plain function, and a study."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cloudpickle
import optuna
import pytest
from ray import tune as ray_tune

from tests.support.specs import make_spec
from tunesvc import Choice, Float, Int, Trial, TuneError, run, tunable
from tunesvc.decorator import Tunable
from tunesvc.errors import SpecError
from tunesvc.run_options import StudyOptions
from tunesvc.spec import CategoricalParameter, FloatParameter, IntParameter, StudySpec


@tunable(metric="val_error", goal="minimize", resources={"cpu": 1}, sampler="random", seed=1)
def train(
    lr: Annotated[float, Float(1e-4, 1.0, log=True)],
    layers: Annotated[int, Int(1, 4)] = 2,
    optimizer: Annotated[str, Choice("sgd", "adam")] = "sgd",
    momentum: Annotated[float, Float(0.0, 0.99, when={"optimizer": "sgd"})] = 0.9,
    epochs: int = 3,
    callbacks: tuple[str, ...] = (),
    *,
    trial: Trial,
) -> float:
    """Train."""
    for epoch in range(epochs):
        trial.report(epoch, val_error=lr)
    return lr * layers


@tunable
def bare(x: Annotated[float, Float(0.0, 1.0)]) -> float:
    return x


def by_config(config: dict[str, Any]) -> float:
    return float(config["model"]["lr"])


def test_a_tunable_function_is_called_like_the_plain_function() -> None:
    assert train(lr=0.1) == 0.2  # type: ignore[call-arg]  # the trial is filled in
    assert train(0.1, 3, trial=Trial()) == pytest.approx(0.3)
    assert bare(0.5) == 0.5


def test_it_looks_like_the_plain_function() -> None:
    assert (train.__name__, train.__doc__) == ("train", "Train.")
    assert inspect.signature(train) == inspect.signature(train.__wrapped__)


def test_its_annotations_are_the_search_space_and_its_plain_defaults_are_constants() -> None:
    spec = train.spec(trials=50)
    assert spec.name == "train"
    assert spec.parameters == {
        "lr": FloatParameter(type="float", min=1e-4, max=1.0, log=True),
        "layers": IntParameter(type="int", min=1, max=4),
        "optimizer": CategoricalParameter(values=("sgd", "adam")),
        "momentum": FloatParameter(type="float", min=0.0, max=0.99, when={"optimizer": "sgd"}),
    }
    assert spec.constants == {"epochs": 3}
    assert (spec.metrics[0].name, spec.budget.trials, spec.resources.cpu) == ("val_error", 50, 1)
    assert (spec.entrypoint, spec.command) == (None, None)


def test_what_the_decorator_says_can_be_changed_for_one_study() -> None:
    spec = train.spec(
        name="other",
        wall="1h",
        goal="maximize",
        parameters={"layers": Int(1, 2)},
        constants={"epochs": 9},
    )
    assert (spec.name, spec.budget.wall, spec.metrics[0].goal) == ("other", 3600.0, "maximize")
    assert spec.parameters["layers"] == IntParameter(type="int", min=1, max=2)
    assert spec.constants == {"epochs": 9}


def test_without_arguments_the_metric_is_called_loss() -> None:
    assert bare.spec(trials=1).metrics[0].name == "loss"


def test_every_key_of_a_study_file_is_a_keyword_that_editors_know() -> None:
    short = {"metric", "goal", "trials", "wall", "gpu_hours"}
    in_files_only = {"entrypoint", "command", "agents"}
    assert StudyOptions.__annotations__.keys() == {*StudySpec.model_fields} - in_files_only | short


def test_an_unknown_keyword_of_a_run_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(
        TypeError,
        match=r"run\(\) got an unexpected keyword argument 'timout'. Did you mean 'timeout'\?",
    ):
        run(tmp_path / "study.yaml", timout=1)  # type: ignore[call-arg]


def test_a_function_for_agents_only_is_refused_with_the_way_to_submit_it() -> None:
    spec = train.spec(trials=1, agents="only")  # type: ignore[call-arg]
    with pytest.raises(SpecError, match=r"agents run what is in files.*`\.submit\(\)`"):
        run(spec, function=train.__wrapped__)
    with pytest.raises(SpecError, match=r"`\.submit\(\)`"):
        train.tune(trials=1, agents="only")  # type: ignore[call-arg]


def test_a_budget_is_asked_for_in_the_words_of_python() -> None:
    with pytest.raises(SpecError, match=r"train\.tune\(trials=100\)"):
        train.spec()


def test_an_unknown_key_is_reported_with_a_suggestion() -> None:
    with pytest.raises(TuneError, match="unknown key `paralelism`, did you mean `parallelism`"):
        train.spec(trials=1, paralelism=2)
    with pytest.raises(TuneError, match="unknown key `goal`"):
        train.spec(trials=1, metrics=["a", "b"])


def test_an_argument_without_range_or_default_is_reported() -> None:
    @tunable
    def lacking(x: Annotated[float, Float(0.0, 1.0)], y: int) -> float:
        return x + y

    expected = (
        r"lacking: `y` has neither a range nor a default.*`y: Annotated\[int, Int\(1, 10\)\]`"
    )
    with pytest.raises(SpecError, match=expected):
        lacking.spec(trials=1)
    assert lacking.spec(trials=1, constants={"y": 1}).constants == {"y": 1}


def test_a_misspelled_trial_is_reported_before_anything_starts() -> None:
    @tunable(trials=1)
    def by_name(x: Annotated[float, Float(0.0, 1.0)], *, trail: Trial) -> None: ...

    @tunable(trials=1)
    def in_order(x: Annotated[float, Float(0.0, 1.0)], trail: Trial) -> None: ...

    @tunable(trials=1, parameters={"x": Float(0.0, 1.0)})
    def of_a_config(config: dict[str, float], *, trail: Trial) -> None: ...

    for misspelled in (by_name, in_order, of_a_config):
        with pytest.raises(
            SpecError,
            match="needs `trail`, did you mean `trial`. The trial is handed over by that name",
        ):
            misspelled.tune()


def test_a_function_that_is_handed_over_is_held_against_the_parameters() -> None:
    spec = make_spec(entrypoint=None, parameters={"x": {"type": "float", "min": 0.0, "max": 1.0}})

    def other(y: float, z: float, *, data: object) -> float:
        return y

    with pytest.raises(SpecError) as caught:
        run(spec, function=other)
    message = str(caught.value)
    assert "`other` does not take `x`" in message
    assert "`other` needs `data`: declare it" in message


def test_a_conditional_argument_needs_a_default() -> None:
    @tunable
    def conditional(
        kind: Annotated[str, Choice("a", "b")],
        x: Annotated[float, Float(0.0, 1.0, when={"kind": "a"})],
    ) -> float:
        return x

    with pytest.raises(SpecError, match="`x` needs a default"):
        conditional.spec(trials=1)


def test_a_positional_only_argument_is_refused() -> None:
    @tunable
    def positional(x: Annotated[float, Float(0.0, 1.0)], /) -> float:
        return x

    with pytest.raises(SpecError, match="`x` is handed over by name"):
        positional.spec(trials=1)


def test_a_bad_range_is_reported_by_its_path() -> None:
    @tunable
    def bad(x: Annotated[float, Float(1.0, 0.0)]) -> float:
        return x

    with pytest.raises(SpecError, match=r"parameters\.x: `min` \(1\) is greater than `max` \(0\)"):
        bad.spec(trials=1)


def test_a_function_of_a_trial_asks_for_its_parameters_itself() -> None:
    def objective(trial: Any) -> float:
        return float(trial.suggest_float("x", 0.0, 1.0))

    assert tunable(objective).spec(trials=1).define_by_run


def test_a_function_of_a_config_takes_a_ray_search_space() -> None:
    space = {
        "model": {"lr": ray_tune.loguniform(1e-4, 1.0), "depth": 3},
        "batch": ray_tune.choice([16, 32]),
    }
    spec = tunable(metric="loss", parameters=space)(by_config).spec(trials=1)
    assert list(spec.parameters) == ["model/lr", "batch"]
    assert spec.constants == {"model/depth": 3}


def test_resources_that_ray_was_asked_for_are_honoured() -> None:
    def function(config: dict[str, Any]) -> float:
        return 0.0

    wrapped = ray_tune.with_resources(function, {"cpu": 2, "gpu": 0.5, "license": 1})
    spec = tunable(parameters={"x": Float(0.0, 1.0)})(wrapped).spec(trials=1)
    assert (spec.resources.cpu, spec.resources.gpu, spec.resources.custom) == (
        2.0,
        0.5,
        {"license": 1.0},
    )
    gang = ray_tune.with_resources(function, ray_tune.PlacementGroupFactory([{"CPU": 1}] * 2))
    assert tunable(parameters={"x": Float(0.0, 1.0)})(gang).spec(trials=1).resources.workers == 2


def test_it_travels_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(train)) is train  # noqa: S301  # our own bytes

    @tunable(metric="loss")
    def local(x: Annotated[float, Float(0.0, 1.0)]) -> float:
        return x

    copy = cloudpickle.loads(cloudpickle.dumps(local))
    assert isinstance(copy, Tunable)
    assert copy(x=0.5) == 0.5
    assert copy.options == {"metric": "loss"}


def test_decorating_loads_no_heavy_library() -> None:
    program = """
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated
import tunesvc

@tunesvc.tunable(metric="loss")
def train(x: Annotated[float, tunesvc.Float(0.0, 1.0)], *, trial: tunesvc.Trial) -> float:
    trial.report(0, loss=x)
    return x

train(x=0.5)
heavy = {"ray", "optuna", "sqlalchemy", "pydantic", "numpy", "yaml", "platformdirs", "tunesvc.data"}
print(sorted(heavy & set(sys.modules)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


# --- code for Ray Tune and Optuna
# -----------------------------------------------------------------------


class Counting(ray_tune.Trainable):
    """A class for Ray Tune."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> ray_tune.PlacementGroupFactory:
        return ray_tune.PlacementGroupFactory([{"CPU": 2}])


def test_a_config_with_other_arguments_and_a_class_of_ray_tune_take_the_search_space_given_apart() -> (
    None
):
    def with_data(config: dict[str, Any], data: object = None, epochs: int = 3) -> None: ...

    space = {"lr": ray_tune.uniform(0, 1), "layers": ray_tune.choice([[64], [64, 32]]), "n": 1}
    for objective in (with_data, Counting, ray_tune.with_parameters(with_data, data=1)):
        spec = tunable(parameters=space, trials=3)(objective).spec()
        assert list(spec.parameters) == ["lr", "layers"]
        assert spec.constants == {"n": 1}
    assert spec.resources.cpu == 1
    assert tunable(parameters=space, trials=3)(Counting).spec().resources.cpu == 2


def test_an_optuna_objective_may_call_its_trial_anything() -> None:
    def objective(t: optuna.Trial) -> float:
        return t.suggest_float("x", 0.0, 1.0)

    assert tunable(trials=3)(objective).spec().define_by_run


def test_arguments_of_rays_tuner_and_of_optuna_name_what_to_write() -> None:
    with pytest.raises(SpecError) as raised:
        bare.spec(num_samples=10, mode="max", run_config=None)
    message = str(raised.value)
    assert "`num_samples`: as Ray Tune calls it; here it is `budget: {trials: ...}`" in message
    assert "`mode`" in message
    assert "`run_config`" in message
    with pytest.raises(SpecError, match="`n_trials`: as Optuna calls it"):
        bare.spec(n_trials=10)
    with pytest.raises(
        SpecError, match="a Tuner cannot be called: `tunable` takes the training function"
    ):
        tunable(name="x")(ray_tune.Tuner.__new__(ray_tune.Tuner))


def test_all_mistakes_are_reported_at_once_those_of_samplers_and_pruners_too() -> None:
    with pytest.raises(SpecError) as raised:
        bare.spec(
            trials=3,
            sed=1,
            sampler={"name": "tpe", "n_startup": 3},
            pruner={"name": "asha", "mim": 3},
        )
    message = str(raised.value)
    for text in (
        "unknown key `sed`",
        "sampler: 'tpe' has no option 'n_startup'",
        "'mim', did you mean 'min'",
    ):
        assert text in message


def test_tuples_stay_the_choices_of_an_annotation() -> None:
    @tunable(trials=3)
    def train(layers: Annotated[tuple[int, ...], Choice((32, 16), (64, 32))]) -> float:
        assert isinstance(layers, tuple)
        return float(layers[0])

    assert train(**{"layers": [64, 32]}) == 64.0, "as `study.best.params` has it"
    assert train.spec().parameters == {"layers": CategoricalParameter(values=((32, 16), (64, 32)))}
    assert train((32, 16)) == 32.0


class Scaled:
    """A training that is an object."""

    def __init__(self, by: float) -> None:
        self.options = by

    def __call__(self, x: Annotated[float, Float(0.0, 1.0)]) -> float:
        return self.options * x

    def train(self, x: Annotated[float, Float(0.0, 1.0)]) -> float:
        return self.options + x


def shifted(
    by: float, x: Annotated[float, Float(0.0, 1.0)], y: Annotated[float, Float(0.0, 1.0)]
) -> float:
    """Train."""
    return by + x + y


@pytest.mark.parametrize(
    ("function", "name", "result"),
    [
        (partial(shifted, 3, y=0.0), "shifted", 3.5),
        (partial(partial(shifted, 3), y=0.0), "shifted", 3.5),
        (Scaled(2), "Scaled", 1.0),
        (partial(Scaled(2)), "Scaled", 1.0),
        (Scaled(2).train, "train", 2.5),
    ],
)
def test_a_partial_an_object_and_a_method_have_the_name_of_what_they_call(
    function: Callable[..., float], name: str, result: float
) -> None:
    tunable_function = tunable(function)
    spec = tunable_function.spec(trials=1)
    assert (tunable_function.__name__, spec.name, list(spec.parameters)) == (name, name, ["x"])
    assert tunable(name="named")(function).spec(trials=1).name == "named"
    with pytest.raises(SpecError, match=f"how much may {name} spend"):
        tunable_function.spec()
    travelled = cloudpickle.loads(cloudpickle.dumps(tunable_function))
    assert (travelled.__name__, travelled(x=0.5)) == (name, result)


def test_what_a_partial_fixes_is_no_parameter() -> None:
    spec = tunable(partial(shifted, 3, y=0.25)).spec(trials=1)
    assert (list(spec.parameters), spec.constants) == (["x"], {"y": 0.25})
    assert tunable(partial(shifted, 3)).__doc__ == "Train."


def test_a_misspelled_argument_of_tune_is_named_with_the_nearest() -> None:
    @tunable(metric="loss")
    def train(x: Annotated[float, Float(0.0, 1.0)]) -> float:
        return x

    with pytest.raises(SpecError, match="unknown key `trails`, did you mean `trials`?"):
        train.spec(trails=5)
    with pytest.raises(SpecError, match="unknown key `progess`, did you mean `progress`?"):
        train.tune(trials=1, progess=False)
