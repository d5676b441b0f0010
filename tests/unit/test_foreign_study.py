"""`tune import`: files of other tuners become studies, and nothing of them is lost silently.

Each example of `tests/foreign` lies beside the study that it has to become.
"""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Iterator
from contextlib import chdir
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tunesvc.cli import app
from tunesvc.errors import SpecError
from tunesvc.foreign import dimensions
from tunesvc.foreign.dimensions import bounded
from tunesvc.foreign.foreign_study import FORMATS, import_study
from tunesvc.search.registry.component_check import option_issues
from tunesvc.spec.yaml.document import parse

FOLDER = Path(__file__).parents[1] / "foreign"
EXAMPLES = sorted(
    path
    for path in FOLDER.glob("*/*")
    if path.suffix in (".yaml", ".json") and not path.name.endswith(".study.yaml")
)
OF_RAY = ["tuner.py", "space.py", "function.py:search"]
NAMES = [f"{path.parent.name}/{path.name}" for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_an_example_becomes_the_study_beside_it(path: Path) -> None:
    made, left = import_study(str(path), extra_check=option_issues)
    assert made == path.with_name(f"{path.stem}.study.yaml").read_text()
    assert all(f"#   {line}" in made.splitlines() for line in left)
    assert import_study(str(path), path.parent.name)[0] == made, "recognised by its keys"


@pytest.mark.parametrize("name", OF_RAY)
def test_a_script_of_ray_tune_becomes_the_study_beside_it(name: str) -> None:
    path = FOLDER / "ray" / name.partition(":")[0]
    made, left = import_study(str(path.with_name(name)), extra_check=option_issues)
    assert made == path.with_name(f"{path.stem}.study.yaml").read_text()
    assert all(f"#   {line}" in made.splitlines() for line in left)


def test_there_are_three_examples_of_each_format() -> None:
    assert {path.parent.name for path in EXAMPLES} == FORMATS.keys()
    assert len(EXAMPLES) >= 3 * len(FORMATS)


UNKNOWN = "unheard"


def with_an_unknown_key(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Yield the data with one more key in one of its mappings, and the path to that mapping."""
    if isinstance(data, dict):
        yield {**data, UNKNOWN: 1}, path
    for key in (
        data if isinstance(data, dict) else range(len(data) if isinstance(data, list) else 0)
    ):
        for changed, where in with_an_unknown_key(data[key], (*path, key)):
            copy = data.copy()
            copy[key] = changed
            yield copy, where


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_no_key_is_lost_silently(path: Path, tmp_path: Path) -> None:
    (tmp_path / "space.json").write_text((FOLDER / "nni" / "space.json").read_text())
    source = tmp_path / "source.yaml"
    for data, where in with_an_unknown_key(yaml.safe_load(path.read_text().expandtabs())):
        source.write_text(json.dumps(data))
        try:
            made, left = import_study(str(source), path.parent.name)
        except SpecError as error:
            made, left = str(error), []
        parents = [f"{key}`" for key in where if isinstance(key, str)]
        noted = "\n".join(left)
        is_noted = UNKNOWN in noted or any(parent in noted for parent in parents)
        assert UNKNOWN in made or is_noted or "trialSpec" in where, where


WANDB = "method: bayes\nmetric: {name: loss}\nparameters:\n  lr: {%s}\n"
NNI = '{"lr": {"_type": "%s", "_value": [%s]}}'
KATIB = """kind: Experiment
apiVersion: kubeflow.org/v1beta1
spec:
  objective: {type: minimize, objectiveMetricName: loss}
  parameters:
    - {name: lr, parameterType: %s}
"""
DETERMINED = (
    "hyperparameters:\n  lr: {type: %s, minval: 0}\nsearcher: {name: random, metric: loss}\n"
)
HYDRA = "hydra:\n  sweeper:\n    params:\n      lr: %s\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\nbudget: 3\n", "none of its keys tells what it is: name it by `--format`"),
        ("a: [1\nb: 2\n", r"source:2:\d+: this is not YAML"),
        ("- a\n- b\n", r"source:1:1: a mapping is expected"),
        ("method: &m bayes\nparameters: {}\n", r"source:1:9: anchors .* write the value out"),
        (
            WANDB % "distribution: q_normal, mu: 1, sigma: 0.1",
            r"source:4:8: `parameters\.lr` is `q_normal`: .* write a range such as 0\.7 to 1\.3",
        ),
        (WANDB % "distribution: beta", r"source:4:8: `parameters\.lr` is `beta`: .* write a range"),
        (WANDB % "distribution: unifrom, min: 0, max: 1", r"`unifrom`: write uniform"),
        (WANDB % "min: 0", r"source:4:7: `parameters\.lr\.max` is missing: write a number"),
        (WANDB % "min: 0, max: high", r"source:4:16: `parameters\.lr\.max` is 'high'"),
        (
            WANDB % "distribution: q_log_uniform_values, min: 1, max: 9, q: 2",
            r"it rounds on a logarithmic scale, .* leave the rounding to the program",
        ),
        ("method: bayes\nparameters: {x: {value: 1}}\n", "`metric` is missing: write `metric: {"),
        (
            "method: hill\n" + WANDB.partition("\n")[2] % "value: 1",
            "`hill` is no method: write one",
        ),
        (NNI % ("qnormal", "0, 1, 2"), r"source:1:\d+: `lr` is `qnormal`: .* such as -3 to 3"),
        (NNI % ("lognormal", "0, 1"), r"`lr` is `lognormal`: .* logarithmic range such as 0\.0497"),
        (NNI % ("uniform", "0"), r"`lr`: `uniform` takes 2 numbers, not 1"),
        (NNI % ("zipf", "0, 1"), r"`lr` is `zipf`: write choice, randint, uniform"),
        ("searchSpaceFile: gone.json\ntrialCommand: x\n", r"source:1:1: .*put the file there"),
        (KATIB % "double", r"source:6:7: `spec\.parameters\[0\]\.feasibleSpace` is missing"),
        (KATIB % "vector, feasibleSpace: {}", r"has a type `vector`: write int, double"),
        (KATIB % "int, feasibleSpace: {min: '1'}", r"source:6:\d+: .*\.max` is missing"),
        (DETERMINED % "double", r"source:2:7: `hyperparameters\.lr\.maxval` is missing"),
        (DETERMINED % "normal", r"source:2:8: `hyperparameters\.lr` has a type `normal`: write"),
        (HYDRA % "glob(a*)", r"source:4:7: `hydra\.sweeper\.params\.lr` is `glob\(a\*\)`: write"),
        (
            "hydra:\n  sweeper:\n    search_space:\n      x: {type: complex}\n",
            "write int, float or",
        ),
        (
            WANDB.replace("loss", "accuracy, goal: up") % "value: 1",
            r"(?s)source gives a study that is not valid yet:.*goal",
        ),
    ],
)
def test_what_cannot_be_carried_is_refused_with_its_line_and_a_remedy(
    text: str, expected: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_text(text)
    with pytest.raises(SpecError, match=expected):
        import_study(str(source))


SYNE = '{"lr": {"domain_cls": "%s", "domain_kwargs": {"lower": 0, "upper": 1}%s}}'
RAY = "from ray import tune\nspace = {'lr': %s}\n"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "s.json",
            SYNE % ("Float", ', "sampler_cls": "Normal"'),
            r"`lr` is `Normal`: it has no bounds",
        ),
        ("s.json", SYNE % ("Float", ', "sampler_cls": "ReverseLogUniform"'), "of 1 - x if it"),
        ("s.json", SYNE % ("Curve", ""), r"s\.json:1:\d+: `lr` is `Curve`: write Float, Integer"),
        (
            "a.json",
            '{"parameters": [{"name": "x", "bounds": [1]}]}',
            r"a\.json:1:\d+: .*two numbers",
        ),
        (
            "a.json",
            '{"parameters": [{"name": "x", "bounds": [1, 2]}], "outcome_constraints": ["a + b <= 1"]}',
            r"`a \+ b <= 1` is no bound of a metric: write a metric, <= or >=, and a number",
        ),
        ("r.py", RAY % "tune.randn(0, 1)", "parameter `lr`: randn has no bounds: use uniform"),
        ("r.py", "x = 1\n", r"defines none of tuner, param_space, .*: name it, `.*r\.py:NAME`"),
        ("r.py", "import no_such_module\n", "r.py cannot be imported: ModuleNotFoundError"),
        ("r.py", "space = {'x': object()}\n", "it is no search space of Ray Tune, Syne Tune or Ax"),
        ("r.py:gone", "x = 1\n", "defines no `gone`: give the search space a name"),
    ],
)
def test_a_space_that_cannot_be_carried_is_refused_too(
    name: str, text: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / name.partition(":")[0]).write_text(text)
    with pytest.raises(SpecError, match=expected):
        import_study(str(tmp_path / name))


def test_where_ray_stores_is_noted(tmp_path: Path) -> None:
    text = (FOLDER / "ray" / "function.py").read_text()
    stored = f"run_config=tune.RunConfig(storage_path={str(tmp_path)!r}),\n)"
    source = tmp_path / "function.py"
    source.write_text(text[: text.rindex(")")] + stored)
    _, left = import_study(f"{source}:search")
    assert left == ["`run_config.storage_path`: the variable TUNE_CHECKPOINTS says where they go"]


def test_parameters_of_ax_are_taken_from_python(tmp_path: Path) -> None:
    """As in `client.create_experiment(parameters=...)`; Ax itself would bring torch."""
    source = tmp_path / "space.py"
    listed = json.loads((FOLDER / "ax" / "service.json").read_text())["parameters"]
    source.write_text(f"true, false = True, False\nparameters = {json.dumps(listed)}\n")
    made = parse(import_study(str(source))[0])
    assert set(made.parameters) == {"lr", "hidden", "act"}
    assert dict(made.constants) == {"epochs": 10}


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    source = tmp_path / "sweep.yaml"
    source.write_text("method: hill\nparameters:\n  a: {min: 0}\n  b: {distribution: beta}\n")
    with pytest.raises(SpecError) as raised:
        import_study(str(source))
    lines = re.findall(r"^sweep\.yaml:(\d+):", str(raised.value), re.MULTILINE)
    assert lines == ["1", "1", "3", "4"]


@given(
    low=st.integers(-50, 50),
    width=st.integers(1, 100),
    step=st.sampled_from([0.05, 0.1, 0.25, 0.3, 1, 2, 7]),
)
def test_multiples_are_those_of_the_step_within_the_range(
    low: int, width: int, step: float
) -> None:
    first, last = low / 10, (low + width) / 10
    made = dimensions.multiples(first, last, step)
    for end in (made["min"], made["max"]):
        assert abs(end / step - round(end / step)) < 1e-9
    assert first <= made["min"] < first + step
    assert last - step < made["max"] <= last


def test_the_program_of_a_study_may_be_named(tmp_path: Path) -> None:
    space = str(FOLDER / "nni" / "space.json")
    spec = parse(import_study(space, program="mymodule:train")[0])
    assert (spec.entrypoint, spec.command) == ("mymodule:train", None)
    command = parse(import_study(space, program="./run.sh --fast")[0]).command
    assert command is not None
    assert command[:3] == ("./run.sh", "--fast", "${--batch_size}")


def test_a_note_cannot_leave_its_comment(tmp_path: Path) -> None:
    source = tmp_path / "source.yaml"
    source.write_text(WANDB % "min: 1, max: 2" + '"x\\nname: evil": 1\n')
    made, _ = import_study(str(source))
    assert parse(made).name == "source"


def test_a_study_is_imported_from_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(FOLDER))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        here = str(FOLDER / "wandb" / "grid.yaml")
        assert import_study(f"{address}/wandb/grid.yaml") == import_study(here)
        with pytest.raises(SpecError, match="answers 404"):
            import_study(f"{address}/nothing.yaml")
        with pytest.raises(SpecError, match="`space.json`, which is not beside it"):
            import_study(f"{address}/nni/experiment.yaml")
        server.shutdown()


def tune(*words: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["import", *words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def test_the_command_writes_the_study_and_says_what_is_left(tmp_path: Path) -> None:
    sweep, out = str(FOLDER / "wandb" / "bayes.yaml"), tmp_path / "study.yaml"
    printed = tune(sweep)
    assert parse(printed.stdout).name == "mnist-bayes"
    assert "note: line 36: `early_terminate.s`" in printed.stderr
    assert f"tune validate {out}" in tune(sweep, "--out", str(out)).stderr
    assert out.read_text() == printed.stdout
    assert "would be overwritten" in tune(sweep, "--out", str(out), code=2).stderr
    assert "did you mean `wandb`?" in tune(sweep, "--format", "wanb", code=2).stderr
    assert "cannot be read" in tune(str(tmp_path / "gone.yaml"), code=2).stderr


GUIDE = (Path(__file__).parents[2] / "docs" / "importing.md").read_text(encoding="utf-8")
SECTIONS = re.findall(
    r"`([\w.]+)`[^\n`]*(?:`\w+`[^\n`]*)?:\n\n```(?:yaml|json|python)\n(.*?)```\n\n```bash\ntune import (.*?)\n```\n\n(.*?)(?=\n## |\Z)",
    GUIDE,
    re.DOTALL,
)


@pytest.mark.parametrize(("name", "text", "words", "promise"), SECTIONS, ids=lambda one: one[:12])
def test_the_guide_does_what_it_says(
    name: str, text: str, words: str, promise: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with chdir(tmp_path):
        tune(*shlex.split(words))
        made = yaml.safe_load((tmp_path / "study.yaml").read_text())
    command = " ".join(made.get("command", []))
    if promised := re.search(r"gives the command\s+`(.*?)`", promise):
        assert command == promised[1]
    for key, value in re.findall(r"`(\w+): ([{\[]?[^`]*)`", promise):
        assert {**made, **made["parameters"]}[key] == yaml.safe_load(value)


def test_the_guide_has_all_formats() -> None:
    assert len(SECTIONS) == len(FORMATS) + 1, "and Ray's scripts"
    assert all(f"| `{name}` |" in GUIDE for name in FORMATS)


def test_the_range_in_place_of_a_normal_distribution_has_round_ends() -> None:
    assert bounded(0.3, 0.1).endswith("write a range such as 0 to 0.6")
