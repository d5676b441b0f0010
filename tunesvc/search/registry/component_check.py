"""Check of a spec's sampler and pruner, with their options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from tunesvc.errors import SpecError
from tunesvc.search.registry.component_options import Given, OptionError
from tunesvc.search.registry.pruner_registry import make_pruner
from tunesvc.search.registry.sampler_registry import make_sampler
from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec
from tunesvc.spec.checks import PRUNERS_OF_SEVERAL
from tunesvc.spec.diagnostics import SpecIssue


def check(
    spec: StudySpec,
    sampler: Given[BaseSampler] = None,
    pruner: Given[BasePruner] = None,
) -> None:
    """Check sampler and pruner before anything is started or stored.

    Args:
        spec: of the study.
        sampler: the object that the study is started with, if the spec names none; the class or
            function, if the spec has an import path. Without it, only its name's form is checked.
        pruner: likewise.

    Raises:
        SpecError: there is no such sampler or pruner, or it refuses its options.
    """
    if issues := option_issues(spec, sampler, pruner):
        raise SpecError("\n".join(map(str, issues)))


def option_issues(
    spec: StudySpec,
    sampler: Given[BaseSampler] = None,
    pruner: Given[BasePruner] = None,
) -> list[SpecIssue]:
    """Return all issues, each at its path. The arguments are those of `check`.

    The spec may lack parameters that are wrong themselves.
    """
    found: list[SpecIssue] = []
    if sampler is not None or not spec.sampler.is_imported:
        found += _faults("sampler", partial(make_sampler, spec, _space(spec), sampler))
    if len(spec.metrics) > 1 and spec.pruner.name not in PRUNERS_OF_SEVERAL:
        return found  # the spec's own checks report this
    if pruner is not None or not spec.pruner.is_imported:
        found += _faults("pruner", partial(make_pruner, spec, pruner))
    return found


def require_no_imports(spec: StudySpec) -> None:
    """Refuse a spec with a sampler or pruner that a server would have to import.

    Raises:
        SpecError: it has one; the text has the remedies.
    """
    for kind, entry in (("sampler", spec.sampler), ("pruner", spec.pruner)):
        if entry.is_imported:
            raise SpecError(
                f"{kind}: servers run no code of a study's own, and {entry.name!r} would have to be"
                f" imported: name one of ours, or run the study on a machine of yours, `tune run`"
            )


def _faults(section: str, make: Callable[[], object]) -> list[SpecIssue]:
    try:
        make()
    except OptionError as error:
        return list(error.issues)
    except SpecError as error:
        return [SpecIssue((section,), str(error), at_key=True)]
    return []


def _space(spec: StudySpec) -> Space:
    try:
        return Space(spec.parameters)
    except SpecError:  # a parent of a conditional parameter is wrong
        return Space({name: one for name, one in spec.parameters.items() if not one.when})
