"""Ray's private interface, as this version of Ray has it: fails on an upgrade that changes it,
and names what changed."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.tune

import tunesvc
from tunesvc.execution import ray_internals


@ray.remote(num_cpus=0)
class Idle:
    """An actor."""

    def log_folder(self) -> str | None:
        return ray_internals.log_folder()


@pytest.fixture
def actor(local_ray: object) -> Any:
    return Idle.remote()


def test_an_actor_has_a_state_and_finds_the_logs_of_its_node(actor: Any) -> None:
    folder = ray.get(actor.log_folder.remote())
    assert Path(folder).is_dir()
    assert ray_internals.actor_state(actor) == "ALIVE"


def test_a_node_tells_what_it_has_free(local_ray: object) -> None:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    free = ray_internals.free_resources_by_node()
    assert {node["NodeID"] for node in nodes if node["Alive"]} == set(free)
    assert all("CPU" in resources for resources in free.values())


def test_accelerators_are_counted_by_resource() -> None:
    assert set(ray_internals.accelerator_counts()) >= {"GPU", "TPU"}


def test_rays_functions_use_the_session_that_is_set() -> None:
    session = SimpleNamespace(world_rank=None, loaded_checkpoint="checkpoint")
    with ray_internals.tune_session(session):
        assert ray.tune.get_checkpoint() == "checkpoint"
    with pytest.warns(UserWarning, match="meant to only be called inside"):
        ray.tune.get_checkpoint()


def test_a_trainable_restores_a_checkpoint_with_its_step(tmp_path: Path) -> None:
    class Counted(ray.tune.Trainable):
        def load_checkpoint(self, checkpoint: Any) -> None:
            self.loaded = checkpoint

    trainable = Counted()
    checkpoint = ray.tune.Checkpoint.from_directory(str(tmp_path))
    trainable.restore(ray_internals.restorable(checkpoint, {"training_iteration": 3}))
    assert trainable.training_iteration == 3
    assert Path(trainable.loaded) == tmp_path


def test_a_request_for_resources_is_found() -> None:
    def train(config: dict[str, Any]) -> None: ...

    assert ray_internals.requested_resources(train) is None
    bound = ray.tune.with_resources(train, {"cpu": 2})
    assert ray_internals.requested_resources(bound).bundles == [{"CPU": 2.0}]


def test_what_a_tuner_was_made_with_is_found() -> None:
    def train(config: dict[str, Any]) -> None: ...

    config = ray.tune.TuneConfig(metric="loss", mode="min")
    tuner = ray.tune.Tuner(train, param_space={"x": 1}, tune_config=config)
    given = ray_internals.given_to_tuner(tuner)
    assert given.keys() == {"trainable", "param_space", "tune_config", "run_config"}
    assert (given["trainable"], given["param_space"]) == (train, {"x": 1})
    assert given["tune_config"].metric == "loss"
    assert given["run_config"].stop is None


def test_bound_parameters_are_found() -> None:
    def train(config: dict[str, Any], data: list[int]) -> None: ...

    bound = ray.tune.with_parameters(train, data=[1])
    found = [cell.cell_contents for cell in bound.__closure__]
    assert sum(map(ray_internals.is_parameter_registry, found)) == 1


def test_no_other_module_uses_rays_private_interface() -> None:
    package = Path(tunesvc.__file__).parent
    private = re.compile(r"\bray(\.\w+)*\._[a-z]|\"_resources\"|_ParameterRegistry|_TrainingResult")
    users = {file.stem for file in package.rglob("*.py") if private.search(file.read_text())}
    assert users == {"ray_internals", "ray_train_internals"}


def test_ray_train_starts_its_workers_in_a_group_that_it_is_lent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.train.v2._internal.execution.worker_group import worker_group

    from tunesvc.execution.ray_train_internals import train_in_group

    workers = worker_group.WorkerGroup
    made = inspect.getsource(workers._start_impl)
    assert "self._create_placement_group(" in made
    assert "pg_handle.placement_group" in made
    monkeypatch.setattr(workers, "_create_placement_group", workers._create_placement_group)
    group = object()
    train_in_group(group)
    handle = workers._create_placement_group(None, None, None)  # type: ignore[arg-type]
    assert handle.placement_group is group
    handle.shutdown()  # Ray would refuse to remove it


def test_ray_train_reserves_and_removes_nothing_in_a_gang(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.train import RunConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from tunesvc.execution.ray_train_internals import GangCallback, reserve_nothing

    def run(self: Any, **arguments: Any) -> Any:
        started.append(arguments)
        return SimpleNamespace(error=None)

    def names(callbacks: list[GangCallback]) -> set[str]:
        options: dict[str, Any] = {"callbacks": callbacks}
        DataParallelTrainer(lambda: None, run_config=RunConfig(**options)).fit()
        arguments = started[-1]
        return {
            type(one).__name__ for one in (*arguments["callbacks"], arguments["scaling_policy"])
        }

    started: list[dict[str, Any]] = []
    monkeypatch.setattr(DataParallelTrainer, "_initialize_and_run_controller", run)
    reserve_nothing()
    reserve_nothing()
    own = {"PlacementGroupCleanerCallback", "FixedScalingPolicy", "DatasetsCallback"}
    assert own <= names([])
    assert not own & names([GangCallback()])
    started[-1]["scaling_policy"].after_controller_start(None)  # Ray's would start an actor
    started[-1]["scaling_policy"].make_decision_for_non_running_worker_group()
    (without,) = (one for one in started[-1]["callbacks"] if type(one).__name__ == "_NoDatasets")
    ((provider,),) = without.before_init_train_context([object()]).values()
    with pytest.raises(KeyError, match="'train' not found: the trainer has no `datasets`"):
        provider.get_dataset_shard(SimpleNamespace(dataset_name="train"))


def test_a_worker_of_ray_train_takes_a_provider_of_datasets() -> None:
    from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker

    from tunesvc.execution.ray_train_internals import _NoDatasets

    arguments = _NoDatasets().before_init_train_context([object()])
    assert set(arguments) <= set(inspect.signature(RayTrainWorker.init_train_context).parameters)


def test_a_worker_of_ray_train_keeps_its_checkpoint_in_its_context() -> None:
    from ray.train.v2._internal.execution.context import TrainContext

    assert "checkpoint" in {field.name for field in dataclasses.fields(TrainContext)}
