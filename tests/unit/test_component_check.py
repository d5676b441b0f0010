"""Mistakes in the options of samplers and pruners, reported with their lines beside all others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.specs import make_spec
from tunesvc.cli.several_studies import Changes, read_all
from tunesvc.errors import SpecError
from tunesvc.search.registry.component_check import check, option_issues
from tunesvc.spec.yaml.document import parse

STUDY = "name: s\ncommand: [run]\nmetric: loss\nbudget: 3\n"
SPACE = "parameters: {x: {min: 0.0, max: 1.0}}\n"


def mistakes(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse(STUDY + text, extra_check=option_issues)
    return [line for line in str(caught.value).splitlines() if line.startswith("study.yaml")]


def test_a_mistake_in_the_sampler_and_one_in_the_pruner_are_both_reported_with_their_lines() -> (
    None
):
    sampler, pruner = mistakes(
        SPACE + "sampler: {name: tpe, n_startup: 3}\npruner:\n  name: asha\n  mim: 3\n"
    )
    assert sampler.startswith(
        "study.yaml:6:22: sampler: 'tpe' has no option 'n_startup', did you mean"
    )
    assert pruner.startswith(
        "study.yaml:9:3: pruner: 'asha' has no option 'mim', did you mean 'min'?"
    )


def test_they_are_reported_beside_mistakes_of_the_file_itself() -> None:
    parameters = "parameters: {k: {values: []}, x: {min: 0.0, max: 1.0, when: {k: 1}}}\n"
    reported = mistakes(
        parameters
        + "sampler: {name: tpe, seed: -1, n_start: 3}\npruner: {name: median, n: 1}\nsed: 1\n"
    )
    assert [line.split(": ")[0] for line in reported] == [
        "study.yaml:5:26",
        "study.yaml:6:28",
        "study.yaml:6:32",
        "study.yaml:7:24",
        "study.yaml:8:1",
    ]


def test_several_options_of_one_are_reported_and_those_of_a_wrapped_pruner() -> None:
    pruner = "pruner: {name: patient, patience: 1, wrapped: {name: asha, eta: 1, mni: 2, mxa: 3}}\n"
    reported = mistakes(SPACE + "sampler: tep\n" + pruner)
    assert reported[0].startswith(
        "study.yaml:6:10: sampler: there is no 'tep', did you mean 'tpe'? Known: auto,"
    )
    assert [line.split(": ", 1)[1].split(", did")[0] for line in reported[1:]] == [
        "pruner.wrapped: 'asha' refuses its options: eta (1) is how many times fewer trials go on at each rung: at least 2",
        "pruner.wrapped: 'asha' has no option 'mni'",
        "pruner.wrapped: 'asha' has no option 'mxa'",
    ]
    assert mistakes(SPACE + "pruner: {name: patient, patience: 1, wrapped: 3}\n")[0].endswith(
        "pruner.wrapped: write a pruner's name, or a mapping with its `name`"
    )


def test_a_mistake_that_depends_on_the_space_is_reported_at_the_sampler() -> None:
    (reported,) = mistakes(SPACE + "sampler: grid\n")
    assert reported.startswith(
        "study.yaml:6:1: sampler 'grid' needs parameters that are all discrete"
    )


def test_a_spec_made_by_hand_reports_all_of_them_too() -> None:
    with pytest.raises(
        SpecError, match=r"(?s)sampler: there is no 'tep'.*pruner: 'asha' has no option 'mim'"
    ):
        check(make_spec(sampler={"name": "tep"}, pruner={"name": "asha", "mim": 3}))


def test_files_with_mistakes_report_those_of_their_options_too(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(STUDY + SPACE + "sed: 1\nsampler: tep\n")
    with pytest.raises(
        SpecError,
        match=r"(?s)a\.yaml:6:1: unknown key `sed`.*a\.yaml:7:10: sampler: there is no 'tep'",
    ):
        read_all([file], Changes())
