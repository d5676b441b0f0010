"""A multirun of Hydra as a study: `hydra.sweeper` read, jobs run on workers, results written.

The keys of `hydra.sweeper` are read by `foreign.formats.hydra_sweeper`, as in `tune import`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from tunesvc import api
from tunesvc.errors import SpecError, StudyNotFound, TuneError
from tunesvc.foreign.draft import Draft
from tunesvc.foreign.formats.hydra_overrides import is_sweep
from tunesvc.foreign.formats.hydra_sweeper import read_sweeper
from tunesvc.foreign.source import section_of
from tunesvc.integrations.hydra.hydra_job import HydraJob
from tunesvc.search.registry.component_check import option_issues
from tunesvc.spec import CategoricalParameter, StudySpec
from tunesvc.spec.yaml.document import spec_from_dict
from tunesvc.study import Study
from tunesvc.util.paths import is_url

RESULTS = "optimization_results.yaml"
_LAUNCHER = "hydra.launcher"
_log = logging.getLogger(__name__)


def sweep(
    context: HydraContext,
    function: TaskFunction,
    config: DictConfig,
    arguments: Sequence[str],
) -> Study:
    """Run the study of a multirun, or continue it; write its results into the sweep's folder.

    Args:
        context: what jobs are composed by.
        function: the decorated function.
        config: the composed configuration, with `hydra`.
        arguments: overrides of the command line, those of `hydra` left out.

    Raises:
        CompactHydraException: a setting cannot be used, or no job has a result; the text has the
            remedy.
        SystemExit: Ctrl-C was pressed; what is recorded is kept.
    """
    try:
        return _sweep(context, function, config, arguments)
    except TuneError as error:
        raise CompactHydraException(str(error)) from error


def _sweep(
    context: HydraContext,
    function: TaskFunction,
    config: DictConfig,
    arguments: Sequence[str],
) -> Study:
    settings: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True, enum_to_str=True)
    _check_launcher(config)
    written = _overrides(settings.get("params") or {}, arguments)
    swept = {name: one for name, one in written.items() if is_sweep(one.value)}
    settings["params"] = {name: one.value for name, one in swept.items()}
    name = settings.get("study_name") or f"{config.hydra.job.name}-{uuid4().hex[:8]}"
    database_url = _database_url(settings.pop("storage", None))
    job = HydraJob(
        context,
        function,
        config,
        {name: one.key for name, one in swept.items()},
        [str(one) for name, one in written.items() if name not in swept],
        Singleton.get_state(),
    )
    spec = study_of({**settings, "study_name": name}, job)
    job.compose(_least(spec))  # a misspelled key is an error before the first job
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "multirun.yaml")
    _log.info(f"Study name: {name}; `hydra.sweeper.study_name={name}` continues it")
    with _only_warnings_of("tunesvc", "alembic"):
        return _run(spec, job, database_url, folder)


def _run(
    spec: StudySpec,
    job: HydraJob,
    database_url: str | None,
    folder: Path,
) -> Study:
    try:
        study = api.run(spec, function=job, database_url=database_url, resume=True)
    except KeyboardInterrupt:
        with suppress(StudyNotFound):  # Ray or the database was starting
            _write_results(api.load_study(spec.name, database_url=database_url), folder)
        _log.warning(f"interrupted; with `hydra.sweeper.study_name={spec.name}` it continues")
        raise SystemExit(130) from None
    _write_results(study, folder)
    return study


def _least(spec: StudySpec) -> dict[str, Any]:
    """Return the first value of each parameter that all jobs have."""
    return {
        name: one.values[0] if isinstance(one, CategoricalParameter) else one.min
        for name, one in spec.parameters.items()
        if not one.when
    }


@contextmanager
def _only_warnings_of(*names: str) -> Iterator[None]:
    """Leave progress to our own display: Hydra shows what each logger says."""
    levels = {one: one.level for one in map(logging.getLogger, names)}
    _log.setLevel(logging.INFO)
    try:
        for one in levels:
            one.setLevel(logging.WARNING)
        yield
    finally:
        for one, level in levels.items():
            one.setLevel(level)


def study_of(settings: Mapping[str, Any], job: Callable[..., Any]) -> StudySpec:
    """Return the study of the composed `hydra.sweeper`; what of it is not carried is logged.

    Raises:
        SpecError: a key cannot be used.
    """
    if settings.get("custom_search_space"):
        raise SpecError(
            "hydra.sweeper.custom_search_space is code for Optuna's trials: write a parameter that "
            "depends on another one as `hydra.sweeper.options.parameters`, with `when`"
        )
    kept = {key: value for key, value in settings.items() if value is not None}
    options = kept.pop("options", {})
    draft = Draft("hydra.sweeper", json.dumps(kept, indent=1))
    sweeper = section_of(draft.text, draft)
    read_sweeper(sweeper, draft)
    for key in ("_target_", "_recursive_"):
        sweeper.take(key)
    sweeper.close()
    if draft.issues:
        raise SpecError("\n".join(f"hydra.sweeper: {issue.text}" for issue in draft.issues))
    for _, text in draft.notes:
        _log.warning(f"hydra.sweeper: {text}")
    data = _with_options(draft.data, options)
    return spec_from_dict(data, function=job, extra_check=option_issues)


def _with_options(data: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study with other keys of study.yaml added, or put in place of those it has."""
    both = {**data, **options}
    if "metrics" in options or "metric" in options:
        both = {key: one for key, one in both.items() if key in options or "metric" not in key}
    parameters = {**data.get("parameters", {}), **options.get("parameters", {})}
    return {**both, "parameters": parameters}


class _Override(NamedTuple):
    key: str
    """The key with the `+` or `~` that adds or deletes it."""
    value: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}" if self.value else self.key


def _overrides(params: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, _Override]:
    """Return all overrides by the names of parameters; `arguments` replace `params`.

    Raises:
        OverrideParseException: Hydra cannot read one.
    """
    lines = [f"{key}={value}" for key, value in params.items()] + list(arguments)
    found: dict[str, _Override] = {}
    for override, line in zip(OverridesParser.create().parse_overrides(lines), lines, strict=True):
        key = str(override.get_key_element())
        found[key.lstrip("+~")] = _Override(key, line.partition("=")[2])
    return found


def _check_launcher(config: DictConfig) -> None:
    """Say that jobs run on workers of tunesvc, or refuse a launcher that is for other machines.

    Raises:
        SpecError: it is one.
    """
    kind = str(config.hydra.launcher.get("_target_", "")).rpartition(".")[2]
    if kind == "JoblibLauncher":
        _log.warning(f"{_LAUNCHER} is not used: `hydra.sweeper.n_jobs` jobs run at a time")
    elif kind != "BasicLauncher":
        raise SpecError(
            f"{_LAUNCHER} is {kind}, and jobs run on Ray's workers: take the override away, and "
            "name a cluster by `hydra.sweeper.options.cluster` where you need one"
        )


def _database_url(storage: Any) -> str | None:
    if isinstance(storage, str) and is_url(storage) and storage.startswith("postgres"):
        return storage
    if storage is not None:
        _log.warning("hydra.sweeper.storage is no Postgres: jobs are in the database of `tune`")
    return None


def _write_results(study: Study, folder: Path) -> None:
    """Write the best jobs as Hydra's other sweepers do, and log them."""
    rows = study.best_trials
    best: list[Any] = [
        {"params": dict(row.params), "values": list(row.values or ())} for row in rows
    ]
    for row, one in zip(rows, best, strict=True):
        _log.info(f"Best: job {row.number}, {one['params']}, {one['values']}")
    results: dict[str, Any] = {"name": "tunesvc"}
    if len(study.view.objectives) > 1:
        results["solutions"] = best
    elif best:
        results |= {"best_params": best[0]["params"], "best_value": best[0]["values"][0]}
    OmegaConf.save(OmegaConf.create(results), folder / RESULTS)
