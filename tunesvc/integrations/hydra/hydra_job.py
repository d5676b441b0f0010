"""A trial as a job of Hydra: its configuration composed, its folder made, its log configured.

Runs on a worker, in the order of Hydra's own launchers of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from tunesvc.errors import Pruned
from tunesvc.spec.yaml import scalars
from tunesvc.trial import Trial


@dataclass(frozen=True)
class HydraJob:
    """The objective of a multirun: called for a trial, it runs the job of the trial's number."""

    context: HydraContext
    function: TaskFunction
    config: DictConfig
    keys: Mapping[str, str]
    """Parameter -> key of its override, where that is another one, such as `+lr`."""
    overrides: Sequence[str]
    """Overrides of all jobs."""
    singletons: Mapping[Any, Any]
    """Hydra's state in the process that began the multirun: resolvers, stored configurations."""

    def __call__(self, config: object, *, trial: Trial) -> Any:
        """Run the job; return what its function returns."""
        setup_globals()
        Singleton.set_state(dict(self.singletons))
        composed = self._composed(trial)
        HydraConfig.instance().set_config(composed)
        ended = run_job(
            hydra_context=self.context,
            config=composed,
            task_function=self._call,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if isinstance(ended.return_value, Pruned):
            raise ended.return_value
        return ended.return_value

    def _call(self, config: DictConfig) -> Any:
        """Call the function. To Hydra a pruned job has not failed."""
        try:
            return self.function(config)
        except Pruned as pruned:
            return pruned

    def compose(self, params: Mapping[str, Any]) -> DictConfig:
        """Return the configuration of a job with these parameters.

        Raises:
            CompactHydraException: the program's configuration has no such key or group.
        """
        chosen = [
            f"{self.keys.get(name, name)}={as_override(value)}" for name, value in params.items()
        ]
        loader = self.context.config_loader
        return loader.load_sweep_config(self.config, [*self.overrides, *chosen])

    def _composed(self, trial: Trial) -> DictConfig:
        composed = self.compose(trial.params)
        started_in = self.config.hydra.runtime.cwd  # a worker may be elsewhere
        with open_dict(composed):
            composed.hydra.runtime.cwd = started_in
            composed.hydra.sweep.dir = str(Path(started_in, str(composed.hydra.sweep.dir)))
            composed.hydra.job.num = trial.number
            composed.hydra.job.id = f"{composed.hydra.job.name}_{trial.number}"
        return composed


def as_override(value: Any) -> str:
    """Return a value as an override has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(as_override, value))}]"
    if isinstance(value, str) and not _is_plain(value):
        return str(QuotedString(value, Quote.single).with_quotes())
    return str(value)


def _is_plain(text: str) -> bool:
    """Return True for a word that Hydra reads as the text that it is."""
    word = text.replace("_", "").replace("-", "").replace("/", "").replace(".", "")
    return word.isalnum() and word.isascii() and text[0].isalpha() and scalars.resolve(text) == text
