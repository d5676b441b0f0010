from __future__ import annotations

from collections.abc import Mapping

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from tunesvc.search.auto import GP_MAX, OBJECTIVES_MAX, PARAMETERS_MAX, AutoSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)

UNIT = FloatDistribution(0.0, 1.0)


def explained(study: optuna.Study, parameters: int = 1) -> str:
    """Ask for one trial in the unit cube; why it was proposed."""
    return explained_in(study, {f"x{i}": UNIT for i in range(parameters)})


def explained_in(study: optuna.Study, space: Mapping[str, BaseDistribution]) -> str:
    trial = study.ask(dict(space))
    assert isinstance(study.sampler, AutoSampler)
    reason = study.sampler.explain(trial.number)
    assert reason is not None
    assert reason.details["chosen"] in reason.text
    return reason.text


def fill(study: optuna.Study, trials: int, parameters: int = 1) -> None:
    for number in range(trials):
        params = {f"x{i}": ((number + i) * 0.618) % 1 for i in range(parameters)}
        values = [params["x0"]] * len(study.directions)
        study.add_trial(create_trial(params=params, distributions=dict.fromkeys(params, UNIT), values=values))


@pytest.mark.parametrize(
    ("trials", "parameters", "objectives", "chosen"),
    [
        (0, 1, 1, "a Gaussian process"),
        (GP_MAX, 1, 1, "a Gaussian process"),
        (GP_MAX + 1, 1, 1, "TPE, which stays fast with 501 trials"),
        (20, PARAMETERS_MAX, 1, "a Gaussian process"),
        (20, PARAMETERS_MAX + 1, 1, "TPE, for 31 parameters"),
        (20, 1, OBJECTIVES_MAX, "a Gaussian process"),
        (20, 1, OBJECTIVES_MAX + 1, "TPE, for 4 objectives"),
    ],
)
def test_it_says_which_sampler_it_chose_and_why(trials: int, parameters: int, objectives: int, chosen: str) -> None:
    study = optuna.create_study(sampler=AutoSampler(seed=1), directions=["minimize"] * objectives)
    fill(study, trials, parameters)
    assert explained(study, parameters).startswith(chosen)


GRID = {"a": IntDistribution(0, 7), "b": IntDistribution(0, 7)}


def study_that_prunes(best: tuple[int, int] = (3, 5), shared_seeds: int | None = None) -> optuna.Study:
    """Forty trials on a grid, of which most were stopped after the first of three reports."""
    study = optuna.create_study(sampler=AutoSampler(seed=1, search_space=dict(GRID), shared_seeds=shared_seeds))
    for number in range(40):
        a, b = best if number == 12 else (number % 8, (3 * number) % 8)
        loss = (a - best[0]) ** 2 + (b - best[1]) ** 2
        curve = {step: float(loss + 8 - 4 * step) for step in range(3 if number < 13 else 1)}
        state = TrialState.COMPLETE if number < 13 else TrialState.PRUNED
        value = loss if state == TrialState.COMPLETE else None
        params = {"a": a, "b": b}
        trial = create_trial(
            params=params, distributions=dict(GRID), value=value, intermediate_values=curve, state=state
        )
        study.add_trial(trial)
    return study


def test_where_trials_are_pruned_both_samplers_take_turns() -> None:
    study = study_that_prunes()
    told = [explained_in(study, GRID) for _ in range(6)]
    assert [text.startswith("TPE, in turns") for text in told] == [True, False] * 3
    assert all(" in turns with TPE" in text or " would repeat trial " in text for text in told[1::2])


def test_where_trials_are_pruned_none_is_measured_again_as_long_as_there_is_something_new() -> None:
    """The best of the grid is known: a Gaussian process that had learned of noise would look at it once more."""
    study = study_that_prunes()
    seen = {(trial.params["a"], trial.params["b"]) for trial in study.trials}
    asked = []
    for _ in range(20):
        trial = study.ask(GRID)
        asked.append((trial.params["a"], trial.params["b"]))
        study.tell(trial, float((trial.params["a"] - 3) ** 2 + (trial.params["b"] - 5) ** 2))
    assert len(set(asked)) == 20
    assert not seen & set(asked)


def test_what_the_gaussian_process_would_repeat_tpe_replaces_and_says_so() -> None:
    """Of two choices one is far better, and both are known."""
    study = optuna.create_study(sampler=AutoSampler(seed=1))
    kind = IntDistribution(0, 1)
    for number in range(24):
        state = TrialState.PRUNED if number == 20 else TrialState.COMPLETE
        value = None if state == TrialState.PRUNED else float(number % 2) + 0.1 * (number % 5)
        study.add_trial(create_trial(params={"k": number % 2}, distributions={"k": kind}, value=value, state=state))
    told = [explained_in(study, {"k": kind}) for _ in range(2)]
    assert told[1].startswith("TPE, for the Gaussian process would repeat trial ")


def test_a_trial_that_was_begun_by_one_sampler_is_ended_by_it() -> None:
    study = optuna.create_study(sampler=AutoSampler(seed=1))
    fill(study, GP_MAX)
    trial = study.ask()
    x0 = trial.suggest_float("x0", 0, 1)
    fill(study, 10)
    assert 0 <= trial.suggest_float("new", 0, 1) <= 1
    study.tell(trial, x0)
    assert isinstance(study.sampler, AutoSampler)
    assert "Gaussian" in str(study.sampler.explain(trial.number))
    assert explained(study).startswith("TPE")


def test_its_first_trials_are_spread_evenly() -> None:
    study = optuna.create_study(sampler=AutoSampler(seed=3, search_space={"x0": UNIT}))
    asked = []
    for _ in range(8):
        trial = study.ask({"x0": UNIT})
        asked.append(trial.params["x0"])
        study.tell(trial, asked[-1])
    assert sorted(int(8 * x) for x in asked) == list(range(8))


def test_a_trial_that_it_did_not_propose_is_ended_without_choosing_for_it() -> None:
    """After a restart hundreds of paused trials may end at once."""
    study = optuna.create_study(sampler=AutoSampler(seed=1))
    fill(study, 20)
    trial = study.ask({"x0": UNIT})
    study.sampler = restarted = AutoSampler(seed=1)
    study.tell(trial, 0.5)
    assert not restarted._chosen


def test_each_sampler_meets_every_seed() -> None:
    """With two seeds in turns, and samplers in turns, each sampler would always have the same one."""
    study = study_that_prunes(shared_seeds=2)
    told = [explained_in(study, GRID) for _ in range(8)]
    assert [text.startswith("TPE, in turns") for text in told] == [True, False, False, True] * 2
