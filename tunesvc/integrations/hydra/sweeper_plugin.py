"""The plugin as Hydra finds it, in the wheel as `hydra_plugins/tunesvc_sweeper.py`.

Every program that uses Hydra imports this: it loads nothing else before a multirun.
"""

# Without `annotations` of `__future__`: Hydra runs this before it is in `sys.modules`, where
# dataclasses would look its names up.
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig

_SAMPLERS = {
    "auto": "auto",
    "tpe": "tpe",
    "gp": "gp",
    "random": "random",
    "qmc": "qmc",
    "cmaes": "cmaes",
    "nsgaii": "nsga2",
    "motpe": "tpe",
    "grid": "grid",
}
"""Names of the group `hydra/sweeper/sampler`, those of Hydra's Optuna sweeper among them, and our
samplers."""


@dataclass
class TuneSweeperConf:
    """Keys of `hydra.sweeper`: those of Hydra's Optuna sweeper, and `options`."""

    _target_: str = "hydra_plugins.tunesvc_sweeper.TuneSweeper"
    _recursive_: bool = False
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "auto"}])
    sampler: Any = MISSING
    direction: Any = "minimize"
    """`minimize`, `maximize`, or a list of them for several objectives."""
    storage: Any = None
    """A Postgres; other URLs are left out."""
    study_name: Any = None
    """The same name continues the study."""
    n_trials: int = 20
    """Jobs in all, those of earlier runs of the study included."""
    n_jobs: int = 2
    """Jobs that run at a time."""
    max_failure_rate: Any = None
    search_space: Any = None
    custom_search_space: Any = None
    params: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    """Other keys of study.yaml, such as `pruner`, `resources` and `retries`."""


class TuneSweeper(Sweeper):
    """Runs a multirun as a study of tunesvc."""

    def __init__(self, **settings: Any) -> None:
        """Take the settings, which `setup` gets again with the whole configuration."""

    def setup(
        self,
        *,
        hydra_context: HydraContext,
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        """Keep what jobs need."""
        self._context, self._function, self._config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Run the study with the overrides of the command line; return the `Study`."""
        from tunesvc.integrations.hydra.hydra_sweep import sweep

        return sweep(self._context, self._function, self._config, arguments)


_store = ConfigStore.instance().store
_store(group="hydra/sweeper", name="tunesvc", node=TuneSweeperConf, provider="tunesvc")
for _name, _sampler in _SAMPLERS.items():
    _node = {"name": _sampler, "seed": None}
    _store(group="hydra/sweeper/sampler", name=_name, node=_node, provider="tunesvc")
