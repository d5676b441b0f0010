from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from tunesvc.search.auto import GP_MAX, OBJECTIVES_MAX, PARAMETERS_MAX, AutoSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)

UNIT = FloatDistribution(0.0, 1.0)


def explained(study: optuna.Study, parameters: int = 1) -> str:
    """Ask for one trial; why it was proposed."""
    trial = study.ask({f"x{i}": UNIT for i in range(parameters)})
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
