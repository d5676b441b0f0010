"""Samplers and pruners by import path: what is imported, where, and how mistakes are reported."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest

from tests.support.specs import make_spec
from tunesvc.errors import SpecError
from tunesvc.runtime.imported_searchers import Searchers, import_searchers, machine_check
from tunesvc.search.registry.component_check import option_issues, require_no_imports
from tunesvc.search.registry.pruner_registry import last_step, make_pruner
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec
from tunesvc.spec.yaml.document import parse, spec_from_dict, written

OWN = """
import optuna
from optuna.samplers import RandomSampler

class Walker(RandomSampler):
    def __init__(self, width, *, seed=None, search_space=None):
        if width <= 0:
            raise ValueError(f"width ({width}) has to be positive")
        super().__init__(seed)
        self.arguments = width, seed, search_space

class Broken(RandomSampler):
    def __init__(self):
        raise KeyError("nothing")

def late(**options):
    from own_helper import Helped
    return Helped(options)

def three():
    return 3

NUMBER = 3
"""
STUDY = "name: s\ncommand: [run]\nmetric: loss\nbudget: 3\nparameters: {x: {min: 0.0, max: 1.0}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "own_sampler.py").write_text(OWN)
    (tmp_path / "own_helper.py").write_text(
        "from optuna.samplers import RandomSampler\n"
        "class Helped(RandomSampler):\n    def __init__(self, options): self.options = options\n"
    )
    before, loaded = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = before
    for name in set(sys.modules) - loaded:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def mistakes(folder: Path) -> Callable[[str], list[str]]:
    def found(text: str) -> list[str]:
        with pytest.raises(SpecError) as caught:
            parse(STUDY + text, extra_check=machine_check(folder))
        return [line for line in str(caught.value).splitlines() if line.startswith("study.yaml")]

    return found


def imported(spec: StudySpec, folder: Path) -> optuna.samplers.BaseSampler:
    found = import_searchers(spec, folder)
    return make_sampler(spec, Space(spec.parameters), found.sampler)


def test_a_class_gets_its_options_the_studys_seed_and_the_space(folder: Path) -> None:
    text = STUDY + "seed: 5\nsampler: {class: 'own_sampler:Walker', width: 0.5}\n"
    spec = parse(text, extra_check=machine_check(folder))
    space = Space(spec.parameters).distributions
    assert imported(spec, folder).arguments == (0.5, 5, space)  # type: ignore[attr-defined]
    own_seed = spec.model_copy(update={"sampler": spec.sampler.model_copy(update={"seed": 7})})
    assert imported(own_seed, folder).arguments[1] == 7  # type: ignore[attr-defined]
    assert parse(written(spec), extra_check=machine_check(folder)) == spec


def test_a_function_a_file_and_a_class_of_a_package_do_as_well(folder: Path) -> None:
    for path, options in [("own_sampler:late", {"any": 1}), ("own_sampler.py:late", {})]:
        spec = make_spec(sampler={"name": path, **options})
        assert imported(spec, folder).options == options  # type: ignore[attr-defined]
    spec = make_spec(sampler={"name": "optuna.samplers:QMCSampler", "scramble": True})
    assert isinstance(imported(spec, folder), optuna.samplers.QMCSampler)
    spec = make_spec(pruner={"name": "optuna.pruners:ThresholdPruner", "upper": 3.0, "max": 9})
    assert last_step(spec) is None, "only of our pruners does `max` mean that"
    spec = make_spec(pruner={"name": "optuna.pruners:ThresholdPruner", "upper": 3.0})
    pruner = make_pruner(spec, import_searchers(spec, folder).pruner)
    assert isinstance(pruner, optuna.pruners.ThresholdPruner)


def test_mistakes_are_reported_at_their_lines_together(
    mistakes: Callable[[str], list[str]],
) -> None:
    sampler, needs, pruner = mistakes(
        "sampler:\n  class: own_sampler:Walker\n  widht: 0.5\n"
        "pruner: {class: 'optuna.pruners:MedianPrunr'}\n"
    )
    assert needs.startswith(
        "study.yaml:8:3: sampler: 'own_sampler:Walker' has no option 'widht', d"
    )
    assert sampler == "study.yaml:6:1: sampler: 'own_sampler:Walker' needs the option width"
    assert pruner.startswith("study.yaml:9:17: pruner.class: 'optuna.pruners:MedianPrunr': ")
    assert pruner.endswith("did you mean `MedianPruner`?")


@pytest.mark.parametrize(
    ("component", "reported"),
    [
        ("{class: 'own_sampler:Walker', width: -1}", "refuses its options: width (-1) has to be"),
        ("{class: 'own_sampler:Broken'}", "'own_sampler:Broken' raised KeyError: 'nothing'"),
        ("{class: 'own_sampler:three'}", "makes a int, and has to make a BaseSampler: derive it"),
        ("{class: 'own_sampler:NUMBER'}", "'own_sampler:NUMBER' is a int, not a function"),
        ("{class: 'own_smapler:Walker'}", "no module 'own_smapler' in "),
        ("{class: 'sub/own.py:Walker'}", "there is no file "),
        ("'own_smapler:Walker'", "no module 'own_smapler' in "),
        ("{class: own_sampler}", "sampler.class: write `module:Name` or `path/file.py:Name`, such"),
        ("{class: 'own_sampler:'}", "sampler.class: write `module:Name` or `path/file.py:Name`"),
        ("{class: 3}", "sampler.class: write `module:Name` or `path/file.py:Name`, such"),
        ("{class: 'a:B', name: tpe}", "write either `name` or `class`, not both"),
    ],
)
def test_each_mistake_has_one_message(
    mistakes: Callable[[str], list[str]], component: str, reported: str
) -> None:
    (line,) = mistakes(f"sampler: {component}\n")
    assert reported in line
    assert line.startswith("study.yaml:6:")


def test_a_server_checks_only_the_form_and_refuses_to_run_it() -> None:
    text = STUDY + "sampler: {class: 'not_there:Sampler'}\npruner: {class: 'not_there:Pruner'}\n"
    spec = parse(text, extra_check=option_issues)
    assert "not_there" not in sys.modules
    with pytest.raises(SpecError, match=r"servers run no code of a study's own.*`tune run`"):
        require_no_imports(spec)
    with pytest.raises(SpecError, match="imported only where its study runs"):
        make_sampler(spec, Space(spec.parameters))


def test_modules_of_one_name_in_two_folders_and_one_of_the_standard_library_are_kept_apart(
    folder: Path, tmp_path: Path
) -> None:
    made = (
        "from optuna.samplers import RandomSampler\nclass Own(RandomSampler):\n    where = {!r}\n"
    )
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.py").write_text(made.format(name))
        (tmp_path / name / "queue.py").write_text(made.format(name))
    standard = sys.modules["queue"]
    for module in ("same", "queue"):
        spec = make_spec(sampler={"name": f"{module}:Own"})
        found = [imported(spec, tmp_path / name) for name in ("one", "two", "one")]
        assert [one.where for one in found] == ["one", "two", "one"]  # type: ignore[attr-defined]
        assert type(found[0]) is type(found[2]), "a module is run once"
    assert sys.modules["queue"] is standard


def test_an_object_from_python_is_kept_beside_an_imported_class(folder: Path) -> None:
    given = optuna.samplers.RandomSampler()
    spec = spec_from_dict(
        {
            "name": "s",
            "command": ["run"],
            "metric": "loss",
            "budget": 3,
            "parameters": {"x": {"min": 0.0, "max": 1.0}},
            "sampler": {"name": "object", "class": "optuna.samplers.RandomSampler"},
            "pruner": {"class": "optuna.pruners:NopPruner"},
        }
    )
    found = import_searchers(spec, folder, Searchers(given))
    assert found == Searchers(given, optuna.pruners.NopPruner)


def test_the_function_of_the_guide_makes_a_sampler(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "searchers.md").read_text()
    block = next(text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    assert block.startswith("# my_sampler.py\n")
    (folder / "my_sampler.py").write_text(block)
    text = f"{STUDY}sampler: {{class: my_sampler:made}}\nseed: 4\n"
    spec = parse(text, extra_check=machine_check(folder))
    made = make_sampler(spec, Space(spec.parameters), import_searchers(spec, folder).sampler)
    assert isinstance(made, optuna.samplers.CmaEsSampler)
