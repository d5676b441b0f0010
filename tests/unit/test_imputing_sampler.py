"""A sampler that sees what pruned trials promised, and does not repeat itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.samplers import TPESampler as OptunasTPE
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from tests.support.learning_curves import curve, make_study, make_trial
from tunesvc.search.pruners.curve.study_forecasts import model_of
from tunesvc.search.samplers.imputing_sampler import ImputingSampler
from tunesvc.search.samplers.tpe.tpe_sampler import TPESampler
from tunesvc.search.seeding import reseed


def optunas(seed: int = 1) -> BaseSampler:
    return OptunasTPE(multivariate=True, seed=seed)


def ours(seed: int = 1) -> BaseSampler:
    return TPESampler(seed=seed)


both = pytest.mark.parametrize("tpe", [optunas, ours])


@pytest.mark.slow
class TestOptunasSuite(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: ImputingSampler(OptunasTPE(multivariate=True, n_startup_trials=0))


class TestOptunasSuiteWithOurs(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: ImputingSampler(TPESampler(n_startup_trials=0))


def finished(number: int, x: float) -> FrozenTrial:
    return make_trial(number, x, curve(x), TrialState.COMPLETE)


def proposals(sampler: BaseSampler, trials: list[FrozenTrial], n: int = 12) -> list[float]:
    study = optuna.create_study(sampler=sampler)
    study.add_trials(trials)
    return [study.ask().suggest_float("x", 0.0, 1.0) for _ in range(n)]


@both
def test_it_asks_where_pruned_trials_did_well_however_early_they_were_stopped(
    tpe: Callable[[], BaseSampler],
) -> None:
    """Finished trials are far from the optimum at 0.3; trials that were stopped early, and so look
    bad to TPE, lie around it."""
    trials = [finished(i, x) for i, x in enumerate(np.linspace(0.6, 1.0, 12))]
    trials += [
        make_trial(12 + i, x, curve(x, 6), TrialState.PRUNED)
        for i, x in enumerate(np.linspace(0.2, 0.4, 30))
    ]
    blind = proposals(tpe(), trials)
    foreseeing = proposals(ImputingSampler(tpe(), seed=1), trials)
    assert np.median(np.abs(np.array(foreseeing) - 0.3)) < 0.25
    assert np.median(np.abs(np.array(blind) - 0.3)) > 0.3


def test_our_tpe_takes_the_present_forecasts_when_they_have_changed() -> None:
    """As one does that sees the study for the first time."""
    study = optuna.create_study()
    study.add_trials(make_study(finished=6, pruned=20))
    trial = study.ask()

    def proposed(sampler: BaseSampler) -> Any:
        reseed(sampler, 1, trial.number)
        frozen = study.trials[trial.number]
        sampler.before_trial(study, frozen)
        space = sampler.infer_relative_search_space(study, frozen)
        return sampler.sample_relative(study, frozen, space), sampler.explain(trial.number)  # type: ignore[attr-defined]

    taught = ImputingSampler(ours(), seed=1)
    early, _ = proposed(taught)
    before = model_of(study).expected(study.trials)
    study.add_trials([finished(27 + i, x) for i, x in enumerate(np.linspace(0.35, 1.0, 12))])
    later, distribution = proposed(taught)
    now = model_of(study).expected(study.trials)
    assert now.keys() == before.keys()
    assert now != before
    assert later != early
    assert (later, distribution) == proposed(ImputingSampler(ours(), seed=1))


@both
def test_it_covers_a_grid_without_repetition(tpe: Callable[[], BaseSampler]) -> None:
    def objective(trial: Trial) -> float:
        return float(
            (trial.suggest_int("a", 0, 4) - 2) ** 2 + (trial.suggest_int("b", 0, 4) - 2) ** 2
        )

    study = optuna.create_study(sampler=ImputingSampler(tpe(), seed=1))
    study.optimize(objective, n_trials=25)
    after_start = [tuple(trial.params.values()) for trial in study.trials[10:]]
    assert len(set(after_start)) == len(after_start)


@both
def test_the_study_itself_keeps_its_pruned_trials(tpe: Callable[[], BaseSampler]) -> None:
    study = optuna.create_study(sampler=ImputingSampler(tpe(), seed=1))
    study.add_trials([finished(i, x) for i, x in enumerate(np.linspace(0, 1, 12))])
    study.add_trials([make_trial(12, 0.5, curve(0.5, 6), TrialState.PRUNED)])
    study.ask().suggest_float("x", 0.0, 1.0)
    assert study.trials[12].state == TrialState.PRUNED
    assert 12 in model_of(study).expected(study.trials)


def test_a_look_at_one_trial_shows_what_a_look_at_all_shows() -> None:
    """TPE that remembers what it knows looks at new trials only."""

    class Looks(OptunasTPE):
        def sample_relative(
            self, study: optuna.Study, trial: FrozenTrial, search_space: Any
        ) -> dict[str, Any]:
            trials = study._get_trials(deepcopy=False)
            ended = [trials[place] for place in range(15)]
            assert {t.state for t in ended} == {TrialState.COMPLETE}
            assert [t.value for t in ended] == pytest.approx(
                [t.value for t in list(trials)[:15]], rel=1e-9
            )
            assert [t.number for t in trials[12:14]] == [12, 13]
            assert trials[12:14][0].state == TrialState.COMPLETE
            return super().sample_relative(study, trial, search_space)

    study = optuna.create_study(sampler=ImputingSampler(Looks(multivariate=True, seed=1), seed=1))
    study.add_trials([finished(i, x) for i, x in enumerate(np.linspace(0, 1, 12))])
    study.add_trials(
        [make_trial(12 + i, 0.5, curve(0.5, 6 + i), TrialState.PRUNED) for i in range(3)]
    )
    study.ask({"x": optuna.distributions.FloatDistribution(0.0, 1.0)})
