"""The spec that a champion is evaluated with, after its study file has changed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.specs import make_spec
from tunesvc.champions.fitting_spec import find_misfit, fitting_spec
from tunesvc.db.champions.champion_records import Configuration
from tunesvc.errors import SpecError

X = {"type": "float", "min": 0.0, "max": 1.0}
N = {"type": "int", "min": 1, "max": 8}
CHAMPION = Configuration(
    "shop", 1, {"x": 0.5, "n": 2}, {"epochs": 10}, "1f3a9c20", "loss", "minimize", 0.1
)


@pytest.mark.parametrize(
    ("changes", "misfit"),
    [
        ({}, ""),
        ({"parameters": {}}, ""),
        ({"parameters": {"x": X | {"max": 0.4}, "n": N}}, "x = 0.5 is outside of 0 ... 0.4"),
        ({"parameters": {"x": X, "m": N}}, "there is no parameter n any more"),
        ({"parameters": {"x": X, "n": N, "k": N}}, "it has no value of k"),
        ({"parameters": {"x": X, "n": N, "k": N | {"when": {"n": 3}}}}, ""),
        ({"parameters": {"x": X}, "constants": {"n": 2}}, "there is no parameter n any more"),
        ({"constants": {"epochs": 20}}, "its constant epochs is 10, now it is 20"),
        ({"constants": {}}, "there is no constant epochs any more"),
        ({"constants": {"epochs": 10, "size": 3}}, "it has no constant size"),
    ],
)
def test_what_no_longer_fits_is_named(changes: dict[str, Any], misfit: str) -> None:
    spec = make_spec(**({"constants": {"epochs": 10}} | changes))
    found = find_misfit(spec, CHAMPION)
    assert found.startswith(misfit) if misfit else not found


def test_a_spec_with_another_metric_or_of_another_configuration_is_not_used() -> None:
    spec = make_spec(parameters={"x": X})
    for tuned_with in (None, make_spec(parameters={"n": N})):
        with pytest.raises(SpecError, match="is not known any more"):
            fitting_spec(spec, CHAMPION, tuned_with)
    with pytest.raises(SpecError, match="for another metric"):
        fitting_spec(spec, CHAMPION, make_spec(metrics=[{"name": "error"}]))


def test_a_champion_that_no_longer_fits_keeps_its_space_and_program_and_nothing_else() -> None:
    today: dict[str, Any] = {"seed": 7, "cluster": "new:6379", "agents": "also"}
    today |= {"resources": {"gpu": 1}, "environment": {"env": {"A": "1"}}, "retries": {"lost": 4}}
    spec = make_spec(parameters={"x": X}, **today)
    old = make_spec(name="shop@1", entrypoint="old:train", seed=1, cluster="gone:6379")
    found = fitting_spec(spec, CHAMPION, old)
    assert found == spec.model_copy(
        update={
            "parameters": old.parameters,
            "entrypoint": "old:train",
            "constants": CHAMPION.constants,
        }
    )
    program = make_spec(entrypoint=None, command=["python", "old.py"])
    found = fitting_spec(spec, CHAMPION, program)
    assert (found.entrypoint, found.command) == (None, program.command)
