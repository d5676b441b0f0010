"""Imports the sampler and pruner of a spec that names them by import path.

Only a process that runs or checks a study on its user's machine does so: a server imports no code
of a study's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from tunesvc.errors import SpecError
from tunesvc.execution.attempt.failures import EntrypointError
from tunesvc.runtime.imported_classes import load_class
from tunesvc.runtime.named_loggers import logger_issues
from tunesvc.search.registry.component_check import option_issues
from tunesvc.spec import StudySpec
from tunesvc.spec.diagnostics import SpecIssue
from tunesvc.spec.entrypoint_file import is_import_path
from tunesvc.spec.sections.components import Pruner, Sampler
from tunesvc.spec.yaml.document import SpecCheck


@dataclass(frozen=True, slots=True)
class Searchers:
    """A study's sampler and pruner as far as its spec cannot make them: objects from Python, and
    the classes or functions of import paths."""

    sampler: BaseSampler | Callable[..., Any] | None = None
    pruner: BasePruner | Callable[..., Any] | None = None


def import_searchers(
    spec: StudySpec,
    folder: str | Path | None,
    given: Searchers | None = None,
) -> Searchers:
    """Import what a spec names by import path.

    Args:
        spec: of the study.
        folder: of the study, where its own modules are; the working directory if it has none.
        given: objects from Python, of which the spec has only the class.

    Raises:
        SpecError: one cannot be imported; the text has the reason.
    """
    found, issues = _attempt(spec, folder, given or Searchers())
    if issues:
        raise SpecError("\n".join(map(str, issues)))
    return found


def machine_check(folder: str | Path, given: Searchers | None = None) -> SpecCheck:
    """Return the check of samplers, pruners and loggers on a machine that may run the study.

    The arguments are those of `import_searchers`.
    """
    return partial(_issues, folder, given or Searchers())


def _issues(folder: str | Path, given: Searchers, spec: StudySpec) -> list[SpecIssue]:
    found, issues = _attempt(spec, folder, given)
    issues += option_issues(spec, found.sampler, found.pruner)
    return issues + logger_issues(spec.loggers, folder)


def _attempt(
    spec: StudySpec,
    folder: str | Path | None,
    given: Searchers,
) -> tuple[Searchers, list[SpecIssue]]:
    """Return what could be imported, and why the rest could not."""
    where = Path.cwd() if folder is None else Path(folder).absolute()
    found: dict[str, Any] = {}
    issues = []
    for kind in ("sampler", "pruner"):
        found[kind] = getattr(given, kind)
        try:
            found[kind] = _imported(getattr(spec, kind), where) or found[kind]
        except EntrypointError as error:
            issues.append(SpecIssue((kind, "name"), str(error)))
    return Searchers(**found), issues


def _imported(component: Sampler | Pruner, folder: Path) -> Callable[..., Any] | None:
    if not component.is_imported or not is_import_path(component.name):
        return None
    return load_class(component.name, folder)
