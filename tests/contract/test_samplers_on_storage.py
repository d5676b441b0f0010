"""Optuna's samplers and pruners on our storage: its own sampler suites, whole runs, figures,
several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial

import optuna
import pytest
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GridSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState

import tunesvc
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage

SamplerFactory = Callable[[], BaseSampler]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:optuna")


@pytest.fixture
def storage(database: Database) -> PgStorage:
    return PgStorage(database)


@pytest.fixture(scope="module")
def shared_storage(shared_database: Database) -> PgStorage:
    return PgStorage(shared_database)


class _OnPostgres:
    """Optuna's suites call `optuna.create_study` without a storage: here that means ours."""

    @pytest.fixture(autouse=True)
    def _studies_live_in_postgres(
        self, shared_storage: PgStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ours = partial(optuna.create_study, storage=shared_storage)
        monkeypatch.setattr(optuna, "create_study", ours)
        monkeypatch.setattr(optuna.study, "create_study", ours)


@pytest.mark.slow
class TestRandom(_OnPostgres, BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> SamplerFactory:
        return RandomSampler


class TestTPE(
    _OnPostgres, BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> SamplerFactory:
        return partial(TPESampler, n_startup_trials=0, multivariate=True)


@pytest.mark.slow
class TestOurTPE(
    _OnPostgres, BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> SamplerFactory:
        return partial(tunesvc.TPESampler, n_startup_trials=0)


@pytest.mark.slow
class TestCmaEs(_OnPostgres, BasicSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> SamplerFactory:
        return partial(CmaEsSampler, n_startup_trials=0)


@pytest.mark.slow
class TestQMC(_OnPostgres, BasicSamplerTestCase, RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> SamplerFactory:
        return QMCSampler


@pytest.mark.slow
class TestNSGAII(_OnPostgres, BasicSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> SamplerFactory:
        return partial(NSGAIISampler, population_size=4)


def _curve(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", -5, 5)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    for step in range(5):
        trial.report((x - 1) ** 2 + (kind == "b") + 1 / (step + 1), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return (x - 1) ** 2 + (kind == "b")


@pytest.mark.parametrize(
    "make_pruner",
    [
        optuna.pruners.SuccessiveHalvingPruner,
        partial(optuna.pruners.HyperbandPruner, max_resource=5),
        partial(optuna.pruners.MedianPruner, n_startup_trials=3),
        partial(optuna.pruners.PatientPruner, optuna.pruners.MedianPruner(), patience=1),
        optuna.pruners.WilcoxonPruner,
        tunesvc.CurvePruner,
        tunesvc.AshaPruner,
        partial(tunesvc.PairedPruner, 5),
    ],
    ids=["halving", "hyperband", "median", "patient", "wilcoxon", "curve", "asha", "paired"],
)
def test_tpe_with_a_pruner_gives_the_same_trials_as_in_memory(
    storage: PgStorage, make_pruner: Callable[[], optuna.pruners.BasePruner]
) -> None:
    ours = optuna.create_study(
        storage=storage, sampler=TPESampler(seed=1), pruner=make_pruner(), study_name="same"
    )
    theirs = optuna.create_study(
        sampler=TPESampler(seed=1), pruner=make_pruner(), study_name="same"
    )
    for study in (ours, theirs):
        study.optimize(_curve, n_trials=25)
    for one, other in zip(ours.trials, theirs.trials, strict=True):
        assert (one.state, one.params, one.values, one.intermediate_values) == (
            other.state, other.params, other.values, other.intermediate_values
        )  # fmt: skip


def test_a_grid_is_covered_once(storage: PgStorage) -> None:
    study = optuna.create_study(
        storage=storage, sampler=GridSampler({"x": [0, 1, 2], "y": ["a", "b"]})
    )
    study.optimize(
        lambda t: t.suggest_float("x", 0, 2) + len(t.suggest_categorical("y", ["a", "b"]))
    )
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 6


def test_cmaes_continues_from_the_state_that_it_left_in_the_storage(
    storage: PgStorage, database: Database
) -> None:
    study = optuna.create_study(storage=storage, sampler=CmaEsSampler(seed=1), study_name="cma")
    study.optimize(
        lambda t: t.suggest_float("x", -3, 3) ** 2 + t.suggest_float("y", -3, 3) ** 2, n_trials=20
    )
    again = optuna.load_study(
        study_name="cma", storage=PgStorage(database), sampler=CmaEsSampler(seed=1)
    )
    again.optimize(
        lambda t: t.suggest_float("x", -3, 3) ** 2 + t.suggest_float("y", -3, 3) ** 2, n_trials=20
    )
    assert len(again.trials) == 40
    assert again.best_value < 1.0


def test_figures_are_drawn_from_the_storage(storage: PgStorage) -> None:
    study = optuna.create_study(
        storage=storage, sampler=TPESampler(seed=1), pruner=optuna.pruners.MedianPruner()
    )
    study.optimize(_curve, n_trials=20)
    for draw in (
        optuna.visualization.plot_optimization_history,
        optuna.visualization.plot_intermediate_values,
        optuna.visualization.plot_parallel_coordinate,
        optuna.visualization.plot_slice,
        optuna.visualization.plot_timeline,
    ):
        assert draw(study).data


def test_a_pareto_front_is_drawn_from_the_storage(storage: PgStorage) -> None:
    study = optuna.create_study(
        storage=storage, directions=["minimize", "maximize"], sampler=NSGAIISampler(seed=1)
    )
    study.optimize(lambda t: (t.suggest_float("x", 0, 1), t.suggest_float("y", 0, 1)), n_trials=20)
    assert optuna.visualization.plot_pareto_front(study).data
    assert study.best_trials


def _work(storage: PgStorage, study_name: str, trials: int) -> None:
    study = optuna.load_study(study_name=study_name, storage=storage)
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=trials)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_two_processes_optimize_one_study_without_sharing_a_number(
    storage: PgStorage, method: str
) -> None:
    study = optuna.create_study(storage=storage, study_name="shared")
    for number in range(10):
        study.enqueue_trial({"x": number / 10})
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=_work, args=(storage, "shared", 15)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert [trial.number for trial in study.trials] == list(range(30))
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert [trial.params["x"] for trial in study.trials[:10]] == [
        number / 10 for number in range(10)
    ]
