"""Study files to start from, and files under another name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.specs import make_spec
from tunesvc.search.registry.component_check import check
from tunesvc.spec.starter import Template, templates
from tunesvc.spec.yaml.document import examine, parse, renamed, written


@pytest.mark.parametrize("template", templates(), ids=lambda one: one.key)
def test_every_template_is_a_valid_study_and_survives_rewriting(template: Template) -> None:
    spec = parse(template.text)
    check(spec)
    assert parse(written(spec)) == spec
    assert template.title


NAMES = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=60
)


@given(NAMES.filter(lambda name: name == name.strip()))
def test_a_file_under_another_name_differs_in_its_name_alone(name: str) -> None:
    spec = parse(templates()[0].text)
    found, faults = examine(renamed(templates()[0].text, name))
    if found is None:
        assert all("name" in fault.text for fault in faults), (
            "only a name that no study may have is refused"
        )
    else:
        assert found == spec.model_copy(update={"name": name})


def test_what_stands_beside_a_name_stays() -> None:
    text = '# first\nname: "a # b"   # the name\nparameters: {name: {values: [1]}}\n'
    assert (
        renamed(text, "c") == "# first\nname: c   # the name\nparameters: {name: {values: [1]}}\n"
    )


def test_a_spec_that_was_never_a_file_is_written_as_one() -> None:
    spec = make_spec(description="a\nb: c", constants={"z": [1, {"y": None}]}, budget={"wall": 90})
    assert parse(written(spec)) == spec


def test_mistakes_come_with_their_places() -> None:
    spec, faults = examine("name: a\nbudget: {trials: many}\nparamters: {}\n")
    assert spec is None
    assert [
        fault.position.line
        for fault in faults
        if "trials" in fault.text or "paramters" in fault.text
    ] == [2, 3]
