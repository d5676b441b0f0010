"""study.yaml -> StudySpec: short forms, and mistakes named by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.study_texts import STUDY, faults_of, study
from tunesvc.errors import SpecError
from tunesvc.spec import CategoricalParameter, FloatParameter, IntParameter
from tunesvc.spec.yaml.document import load, parse, spec_from_dict


def test_a_study_is_read_with_its_parameters_in_the_order_of_the_file() -> None:
    spec = parse(STUDY)
    assert list(spec.parameters) == ["lr", "optimizer", "momentum"]
    assert spec.parameters["lr"] == FloatParameter(type="float", min=1e-4, max=1.0, log=True)
    assert spec.parameters["momentum"].when == {"optimizer": "sgd"}
    assert (spec.budget.trials, spec.budget.wall, spec.budget.gpu_hours) == (200, 43200.0, 40.0)


def test_a_file_bears_its_text_and_its_absolute_folder(tmp_path: Path) -> None:
    (tmp_path / "digits.py").write_text("def train(**config): ...")
    (tmp_path / "study.yaml").write_text(STUDY)
    document = load(tmp_path / "study.yaml")
    assert (document.text, document.folder, document.spec.name) == (STUDY, tmp_path, "digits")


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("sampler: tpe", "sampler: {name: tpe}"),
        ("pruner: asha", "pruner: {name: asha}"),
        ("retries: {lost: 1}", "retries: {lost: 1, error: 0}"),
    ],
)
def test_short_forms_mean_their_long_forms(short: str, long: str) -> None:
    assert study(short) == study(long)


def test_a_bare_budget_counts_trials() -> None:
    assert (
        parse(
            STUDY.replace("budget: {trials: 200, gpu_hours: 40, wall: 12h}", "budget: 7")
        ).budget.trials
        == 7
    )


def test_a_metric_may_be_a_name() -> None:
    spec = parse(STUDY.replace("metric: {name: val_error, goal: minimize}", "metric: loss"))
    assert [metric.name for metric in spec.metrics] == ["loss"]


def test_a_parameter_without_type_is_what_its_numbers_are() -> None:
    spec = study(
        a="{min: 1, max: 8}",
        b="{min: 1, max: 8, step: 0.5}",
        c="{min: 0.5, max: 8}",
        d="{values: [1]}",
    )
    assert [type(parameter) for parameter in spec.parameters.values()] == [
        IntParameter,
        FloatParameter,
        FloatParameter,
        CategoricalParameter,
    ]


@pytest.mark.parametrize(
    "command", ["python train.py --lr ${lr} --n 010", "[python, train.py, --lr, '${lr}', --n, 010]"]
)
def test_a_command_is_a_line_or_a_list_and_its_words_stay_text(command: str) -> None:
    text = STUDY.replace("entrypoint: digits:train", f"command: {command}")
    assert parse(text).command == ("python", "train.py", "--lr", "${lr}", "--n", "010")


def test_variables_requirements_and_tags_stay_text_whatever_they_look_like() -> None:
    spec = study(
        "environment: {env: {DEBUG: 1, EMPTY: , LEVEL: no}, pip: [1.0]}\ntags: [2026, on]\n"
    )
    assert spec.environment.env == {"DEBUG": "1", "EMPTY": "", "LEVEL": "no"}
    assert spec.environment.pip == ("1.0",)
    assert spec.tags == ("2026", "on")


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() -> None:
    with pytest.raises(SpecError) as caught:
        parse(STUDY + "paralelism: 8\n")
    assert str(caught.value) == (
        "study.yaml:9:1: unknown key `paralelism`, did you mean `parallelism`?\n    9 | paralelism: 8"
    )


def test_every_mistake_of_a_file_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = """\
name: 5
metric: {name: loss, goal: minimise}
parallelism: eight
parameters:
  x: {min: 0.0, max: 1.0, log: true}
  y: {min: 0, max: 1, when: {z: 1}}
"""
    assert faults_of(text) == [
        "study.yaml:1:1: `budget` is missing: how much may be spent, such as `budget: {trials: 100}`",
        "study.yaml:1:1: `entrypoint` or `command` is missing: what a trial runs, such as `train:main`",
        "study.yaml:1:7: name: needs text, found 5: put it in quotes",
        "study.yaml:2:28: metric.goal: write minimize or maximize, found text 'minimise', did you mean `minimize`?",
        "study.yaml:3:14: parallelism: needs a whole number, found text 'eight'",
        "study.yaml:5:3: parameters.x: `log: true` needs a `min` above 0, not 0",
        "study.yaml:6:30: parameters.y.when: there is no parameter `z`",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("resources: {gpu: 1.5}", "resources.gpu: more than one GPU must be a whole number"),
        (
            "resources: {memory: 4XB}",
            "resources.memory: '4XB' is not a size: write 512MB, 4GB or 1.5GiB",
        ),
        ("resources: 4", "resources: needs a mapping, found 4"),
        ("limits: {wall: 0}", "limits.wall: must be greater than 0, found 0"),
        ("limits: {wal: 1h}", "limits: unknown key `wal`, did you mean `wall`?"),
        ("parallelism: 0", "parallelism: must be at least 1, found 0"),
        ("parallelism: 1e2", "parallelism: needs a whole number, found 100.0: write 100"),
        (
            "parallelism: '8'",
            "parallelism: needs a whole number, found text '8': remove the quotes",
        ),
        ("command: 'python \"'", "command: cannot be split into words: No closing quotation"),
        ("command: [python]", "write either `entrypoint` or `command`, not both"),
        ("constants: {x: 3}", "constants: `x` is a parameter already"),
        (
            "constants: {trial: 3}",
            "constants: `trial` is the object that reports; give this another name",
        ),
        ("constraints: [{metric: ms}]", "constraints[0]: a constraint needs `min`, `max` or both"),
        ("metrics: [a, b]", "write either `metric` or `metrics`, not both"),
        ("environment: {pip: numpy}", "environment.pip: needs a list, found text 'numpy'"),
        ("sampler: {seed: 1.5}", "sampler.seed: needs a whole number, found 1.5"),
        ("description: '${lr}'\nseed: -1", "seed: must be at least 0, found -1"),
    ],
)
def test_a_mistake_is_described_in_plain_words(line: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        study(line)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        (
            "{type: integer, min: 1, max: 3}",
            "parameters.p: unknown type 'integer': write float, int or categorical",
        ),
        ("{min: 3, max: 1}", "parameters.p: `min` (3) is greater than `max` (1)"),
        ("{min: 3}", "parameters.p: needs `values`, or `min` and `max`"),
        (
            "27",
            "parameters.p: needs `values`, or `min` and `max`, found 27; a fixed value goes into",
        ),
        ("{values: []}", "parameters.p.values: needs at least one"),
        (
            "{values: [1, true]}",
            "parameters.p.values: the values must be distinct: 1 and True are equal",
        ),
        (
            "{values: [{a: 1}]}",
            "parameters.p.values[0]: must be text, a number, true, false, null or a list",
        ),
        (
            "{values: [[1, {a: 1}]]}",
            "parameters.p.values[0]: must be text, a number, true, false, null or a list",
        ),
        (
            "{values: [[1, 2], '[1, 2]']}",
            "parameters.p.values: the values must be distinct: (1, 2) and '[1, 2]'",
        ),
        (
            "{min: 0.0, max: 1.0, stop: 0.1}",
            "parameters.p: unknown key `stop`, did you mean `step`?",
        ),
        ("{min: 1, max: 8, log: yes}", "parameters.p.log: needs true or false, found text 'yes'"),
        ("{min: 0.0, max: 1.0e300, step: 1e-300}", "parameters.p: `step` (1e-300) is too fine"),
        (
            "{min: -1.7e308, max: 1.7e308}",
            "parameters.p: the range from -1.7e+308 to 1.7e+308 is too wide",
        ),
        ("{min: 0, max: 9007199254740993}", "parameters.p.max: must be at most 9007199254740992"),
        (
            "{min: 0, max: 1, when: {q: sdg}}",
            "parameters.p.when.q: is never 'sdg', did you mean `sgd`?",
        ),
        (
            "{min: 0, max: 1, when: {q: [sgd, 1]}}",
            "parameters.p.when.q: is never 1: one of sgd, adam",
        ),
        (
            "{min: 0, max: 1, when: {k: [1, 2]}}",
            "when.k: a list names several values: write [[1, 2]] for the one",
        ),
        (
            "{min: 0, max: 1, when: {n: 5}}",
            "parameters.p.when.n: is never 5: between 0 and 4, by 2",
        ),
        ("{min: 0, max: 1, when: {p: 1}}", "parameters.p.when: is circular: p -> p"),
        ("{min: 0, max: 1, when: {r: 1}}", "parameters.p.when: is circular: p -> r -> p"),
    ],
)
def test_an_impossible_parameter_is_described_in_plain_words(parameter: str, message: str) -> None:
    others = {
        "q": "{values: [sgd, adam]}",
        "k": "{values: [[1, 2], 3]}",
        "n": "{min: 0, max: 4, step: 2}",
        "r": "{min: 0, max: 1, when: {p: 1}}",
    }
    with pytest.raises(SpecError) as caught:
        study(p=parameter, **others)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("metrics: [{name: a}, {name: a}]", "metrics[1].name: the metric `a` is there twice"),
        (
            "metrics: [{name: a, target: 1}, {name: b}]",
            "metrics[0]: `target` ends a study of one metric only",
        ),
        (
            "metrics: [{name: a}, {name: b}]\npruner: median",
            "pruner: compares one metric; with several, leave `pruner` out, or use one of auto, curve, paired, asha, none",
        ),
        (
            "metric: a\nbudget: {gpu_hours: 1}",
            "budget: `gpu_hours` is never spent: `resources` requests no GPU",
        ),
        (
            "metrics: [a, b]\nbudget: {trials: 9, stop_when: {improvement_below: 1}}",
            "`stop_when` ends a study of one metric only",
        ),
        (
            "metric: a\nbudget: {trials: 9, stop_when: {improvement_below: 1, per: gpu_hour}}",
            "budget.stop_when.per: cannot be `gpu_hour`: `resources` requests no GPU",
        ),
        (
            "metric: a\nbudget: {trials: 9, stop_when: {improvment_below: 1}}",
            "unknown key `improvment_below`, did you mean `improvement_below`?",
        ),
        ("metric: a\nwarm_start: b", "`warm_start` needs `parameters`"),
        (
            "metric: a\nparameters: {x: {min: 0, max: 1}}\nwarm_start: [b, x]",
            "warm_start[1]: `x` is this study",
        ),
        (
            "metrics: [a, b]\nparameters: {x: {min: 0, max: 1}}\nwarm_start: b",
            "`warm_start` carries values of one metric",
        ),
    ],
)
def test_values_that_contradict_each_other_are_reported(lines: str, message: str) -> None:
    budget = "" if "budget" in lines else "budget: 1\n"
    with pytest.raises(SpecError) as caught:
        parse(f"name: x\nentrypoint: a:b\n{budget}{lines}\n")
    assert message in str(caught.value)


def test_a_placeholder_must_name_a_parameter_or_constant() -> None:
    text = STUDY.replace(
        "entrypoint: digits:train",
        "command: [run, '$${free}', '${lr}', '${epochs}', '${momentun}']",
    )
    assert faults_of(text + "constants: {epochs: 3}\n") == [
        "study.yaml:2:50: command[4]: `${momentun}` is not a parameter or constant, did you mean `momentum`?"
    ]


def test_an_option_is_an_argument_of_its_own_and_names_a_parameter() -> None:
    """Case W20."""
    options = "command: [run, '${--lr}', '${--max-epochs}', '${--momentun}', 'x${--lr}']"
    text = STUDY.replace("entrypoint: digits:train", options)
    momentum, within = faults_of(text + "constants: {max_epochs: 3}\n")
    assert (
        "command[3]: `${--momentun}` is not a parameter or constant, did you mean `momentum`?"
        in momentum
    )
    assert within.endswith(
        "`${--lr}` is not a parameter or constant: an option has to be an argument of its own"
    )


def test_a_study_without_parameters_needs_an_entrypoint_that_asks_for_them() -> None:
    assert parse("name: x\nentrypoint: a:b\nmetric: loss\nbudget: 1\n").define_by_run
    assert (
        "`parameters` is missing"
        in faults_of("name: x\ncommand: [run]\nmetric: loss\nbudget: 1\n")[0]
    )


def test_a_file_that_is_not_there_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no study file .*`tune init` writes one"):
        load(tmp_path / "study.yaml")


def test_plain_data_is_checked_like_a_file_and_reported_by_path() -> None:
    data = {
        "name": "x",
        "metric": {"name": "loss", "gaol": "minimize"},
        "budget": 3,
        "parameters": {"x": {"values": (1, 2)}},
    }
    with pytest.raises(SpecError) as caught:
        spec_from_dict(data, function=dict)
    assert str(caught.value) == "metric: unknown key `gaol`, did you mean `goal`?"
    data["metric"] = "loss"
    assert spec_from_dict(data, function=dict).parameters["x"] == CategoricalParameter(
        values=(1, 2)
    )
    with pytest.raises(SpecError, match="leave `entrypoint` and `command` out"):
        spec_from_dict({**data, "entrypoint": "a:b"}, function=dict)


def test_a_command_cannot_be_handed_a_parameter_that_exists_only_sometimes() -> None:
    text = (
        "name: s\ncommand: [run, '${kind}', '${depth}']\nmetric: loss\nbudget: 3\nparameters:\n"
        "  kind: {values: [a, b]}\n  depth: {min: 1, max: 3, when: {kind: a}}\n"
    )
    with pytest.raises(
        SpecError,
        match=r"study.yaml:2:27: command\[2\]: `\$\{depth\}` exists only under its `when`",
    ):
        parse(text)
    assert parse(text.replace("${depth}", "${--depth}")).command == ("run", "${kind}", "${--depth}")


@pytest.mark.parametrize(
    "name", ["accuracy", "val_acc", "test/AUC", "valF1", "r2", "mean_reward", "eval.score"]
)
def test_a_metric_that_is_mostly_maximised_needs_a_goal(name: str) -> None:
    """Case A10: it was minimised without a word."""
    text = STUDY.replace("{name: val_error, goal: minimize}", name)
    (fault,) = faults_of(text)
    assert fault.startswith(
        f"study.yaml:3:9: metric: `{name}` needs a goal, without which less is better: write "
    )
    for goal in ("maximize", "minimize"):
        assert (
            parse(STUDY.replace("val_error, goal: minimize", f"{name}, goal: {goal}"))
            .metrics[0]
            .goal
            == goal
        )


@pytest.mark.parametrize(
    "name", ["loss", "val_error", "brier_score", "accuracy_loss", "neg_reward", "account", "scored"]
)
def test_other_metrics_are_minimised_without_a_goal(name: str) -> None:
    assert (
        parse(STUDY.replace("{name: val_error, goal: minimize}", name)).metrics[0].goal
        == "minimize"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("strategy: SPRAED", "did you mean `SPREAD`"),
        ("strategy: STRICT_PACK", "a trial has one: add `workers: N`"),
    ],
)
def test_a_strategy_is_one_of_rays_and_places_several_workers(line: str, message: str) -> None:
    text = f"name: s\nentrypoint: a:b\nmetric: loss\nbudget: 3\nresources: {{{line}}}\n"
    with pytest.raises(SpecError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("command: [train]", r"resources.workers: a program of `command` is one process"),
        ("entrypoint: a:b\nagents: also", r"resources.workers: needs Ray: an agent runs"),
    ],
)
def test_programs_and_agents_have_no_gang(lines: str, message: str) -> None:
    text = f"name: s\n{lines}\nmetric: loss\nbudget: 3\nresources: {{workers: 2}}\n"
    with pytest.raises(SpecError, match=message):
        parse(text)
