"""`search:` in a study file: short forms, and mistakes that name their remedy."""

from __future__ import annotations

import pytest

from tunesvc.errors import SpecError
from tunesvc.search.registry.component_check import option_issues
from tunesvc.spec import StudySpec
from tunesvc.spec.yaml.document import parse, written

FILE = """name: a
entrypoint: m:f
metric: loss
parameters: {lr: {min: 0.001, max: 1.0, log: true}}
"""
PBT = "search: {method: pbt, population: 4, interval: 5, steps: 50}\n"


def read(more: str) -> StudySpec:
    return parse(FILE + more, extra_check=option_issues)


def issues(more: str) -> str:
    with pytest.raises(SpecError) as error:
        read(more)
    return str(error.value)


def test_search_brings_its_sampler_and_a_budget_that_suffices() -> None:
    spec = read(PBT)
    assert (spec.sampler.name, spec.pruner.name, spec.budget.trials) == ("pbt", "none", 40)
    assert parse(written(spec), extra_check=option_issues) == spec
    assert StudySpec.model_validate_json(spec.model_dump_json()) == spec
    assert read(PBT + "budget: {wall: 1h}\n").budget.trials is None


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("search: {method: pbt, interval: 5}\n", "needs `interval`, the steps between"),
        ("search: {method: ptb, interval: 5, steps: 9}\n", "did you mean `pbt`?"),
        ("search: {method: pbt, interval: 5, steps: 9, poplation: 3}\n", "`population`?"),
        ("search: pbt\n", "search: needs a mapping"),
        ("search: {method: pb2, interval: 5, steps: 9, resample: 0.3}\n", "no `resample`: leave"),
        ("search: {method: pbt, population: 1, interval: 5, steps: 9}\n", "use 2 or more"),
        ("search: {method: pbt, interval: 9, steps: 5}\n", "`interval` (9) is not below"),
        ("search: {method: schedule}\n", "`tune best --schedule` writes"),
        (
            "search: {method: schedule, stages: [{until: 5, parameters: {lr: 7.0, x: 1}}]}\n",
            "there is no parameter `x`",
        ),
        ("search: {method: schedule, stages: [{until: 5, parameters: {}}]}\n", "no value for lr"),
    ],
)
def test_a_mistake_in_search_is_the_only_issue(more: str, text: str) -> None:
    found = issues(more)
    assert text in found
    assert "budget" not in found
    assert "sampler" not in found


def test_keys_that_contradict_search_are_named_together() -> None:
    found = issues(
        PBT
        + "sampler: tpe\npruner: asha\nevaluation: {repeats: 5}\nconstraints: [{metric: m, max: 1}]\n"
        "budget: {trials: 9, stop_when: {improvement_below: 1}}\nwarm_start: b\n"
    )
    for text in ("leave `sampler` out", "leave `pruner` out", "of one training", "metric alone"):
        assert text in found
    assert "stop_when" in found
    assert "no checkpoint here" in found


def test_several_metrics_and_define_by_run_do_not_fit() -> None:
    with pytest.raises(SpecError, match="by one metric"):
        parse(FILE.replace("metric: loss", "metrics: [loss, time]") + PBT)
    with pytest.raises(SpecError, match="needs `parameters`"):
        parse(FILE[: FILE.index("parameters")] + PBT)


def test_a_sampler_of_search_alone_is_refused() -> None:
    found = issues("sampler: pbt\nbudget: 3\n")
    assert "belongs to `search: {method: pbt, ...}`" in found
