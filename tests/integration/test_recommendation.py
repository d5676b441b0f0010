"""Explanations of a study, and the recommendation of its best trial: on the real database, with
simulated workers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from random import Random

import pytest
from optuna.study import StudyDirection
from rich.console import Console

from tests.support.simulation import Simulation, curve, quadratic
from tests.support.specs import make_spec
from tunesvc.db import study_records
from tunesvc.db.engine.database import Database
from tunesvc.db.optuna.optuna_storage import PgStorage
from tunesvc.db.schema.states import StudyState
from tunesvc.db.study_records import StudyRecord
from tunesvc.errors import StudyBusy, TuneError
from tunesvc.execution.executor import Failed, Finished, Launch, Lost, Payload, Reported
from tunesvc.queries.confirmation import get_confirmation
from tunesvc.queries.explain.explanation import explain_study, explain_trial
from tunesvc.queries.explain.pruning_audit import get_audit
from tunesvc.queries.recommendation import forecast_value, get_recommendation
from tunesvc.queries.studies import get_study
from tunesvc.queries.trials.trial_table import list_best_trials, list_trials
from tunesvc.runtime.confirm import prepare
from tunesvc.search.pruners.audit import false_prunes
from tunesvc.study import Study
from tunesvc.views import study_text


def noisy(launch: Launch) -> Iterable[tuple[float, Payload]]:
    """Best at 0.3, with noise that its seed decides."""
    x = float(launch.params["x"])  # type: ignore[arg-type]
    return curve((x - 0.3) ** 2 + Random(launch.seed).gauss(0, 0.02))


def confirmed(
    database: Database, record: StudyRecord, script: object = noisy, **numbers: int
) -> Simulation:
    """Confirm a study as `tune confirm` does, with simulated workers."""
    made = prepare(database, record, **numbers)
    assert made.spec is not None
    simulation = Simulation(database, made.spec, script)  # type: ignore[arg-type]
    simulation.run()
    return simulation


def test_finalists_are_run_again_with_seeds_of_their_own(database: Database) -> None:
    seeds: list[int] = []

    def remembering(launch: Launch) -> Iterable[tuple[float, Payload]]:
        seeds.append(launch.seed)
        return noisy(launch)

    simulation = Simulation(database, make_spec(seed=1, budget={"trials": 20}), remembering)
    simulation.run()
    repeats = confirmed(database, simulation.record, remembering, top=3, repeats=4)
    assert repeats.states() == {"complete": 12}
    assert len(set(seeds)) == 20 + 4, "each finalist has the same four"
    confirmation = get_confirmation(database, "test")
    assert confirmation is not None
    answer = get_recommendation(database, get_study(database, "test"))
    assert answer is not None
    assert {answer.number, answer.luckiest} <= {one.number for one in confirmation.finalists}
    assert all(len(one.values) == 4 for one in confirmation.finalists)
    assert str(confirmation.finalists[0].number) in confirmation.verdict
    explained = explain_trial(
        database, get_study(database, "test"), confirmation.finalists[0].number
    )
    assert explained is not None
    (repeats_text, chance_text) = explained.topics["Confirmation"]
    assert re.fullmatch(
        r"Confirmed by 4 repeats with other seeds: mean loss = \S+ \(95 % interval \S+ to \S+\)\.",
        repeats_text,
    )
    assert chance_text.startswith("The chance that its true mean is the best of all finalists is ")
    # the study itself knows nothing of them
    assert get_study(database, "test").counts.total == 20


def test_what_a_seed_does_to_all_trials_is_taken_out_of_the_answer(database: Database) -> None:
    """The folds differ by more than the parameters do; finalists are confirmed with seeds of
    their own."""
    seeds: list[int] = []

    def folded(launch: Launch) -> Iterable[tuple[float, Payload]]:
        seeds.append(launch.seed)
        x = float(launch.params["x"])  # type: ignore[arg-type]
        return curve(1.0 + (x - 0.3) ** 2 + (launch.seed % 3))

    spec = make_spec(seed=1, seeds=3, sampler={"name": "gp"}, budget={"trials": 30})
    simulation = Simulation(database, spec, folded)
    simulation.run()
    view = get_study(database, "test")
    answer = get_recommendation(database, view)
    assert answer is not None
    (params,) = [
        row.params for row in list_trials(database, view.study_id) if row.number == answer.number
    ]
    assert abs(params["x"] - 0.3) < 0.1
    assert answer.mean == pytest.approx(2.0, abs=0.1), "the mean over all three"
    assert "The effect of each of 3 seeds" in str(explain_study(database, view).statements)
    repeats = confirmed(database, simulation.record, folded, top=2, repeats=4)
    assert repeats.states() == {"complete": 8}
    assert len(set(seeds)) == 3 + 4
    confirmation = get_confirmation(database, "test")
    assert confirmation is not None
    assert (
        len({round(max(one.values) - min(one.values), 6) for one in confirmation.finalists}) == 1
    ), "each had all folds"


def test_more_repeats_run_what_is_missing_and_what_failed(database: Database) -> None:
    def frail(launch: Launch) -> Iterable[tuple[float, Payload]]:
        return [(1.0, Failed("error", "boom"))] if launch.trial_number == 1 else noisy(launch)

    simulation = Simulation(database, make_spec(), noisy)
    simulation.run()
    assert confirmed(database, simulation.record, frail, top=2, repeats=2).states() == {
        "complete": 3,
        "fail": 1,
    }
    assert confirmed(database, simulation.record, top=2, repeats=3).states() == {
        "complete": 6,
        "fail": 1,
    }
    assert confirmed(database, simulation.record, top=2, repeats=3).states() == {
        "complete": 6,
        "fail": 1,
    }


def test_a_newer_confirmation_replaces_what_the_former_has_not_begun(database: Database) -> None:
    simulation = Simulation(database, make_spec(), noisy)
    simulation.run()
    prepare(database, simulation.record, top=4, repeats=5)
    assert confirmed(database, simulation.record, top=2, repeats=2).states() == {
        "complete": 4,
        "fail": 16,
    }
    confirmation = get_confirmation(database, "test")
    assert confirmation is not None
    assert [(len(one.values), one.failed) for one in confirmation.finalists] == [(2, 0)] * 2
    more = confirmed(database, simulation.record, top=2, repeats=3)
    assert more.states() == {"complete": 6, "fail": 16}
    assert more.sql("SELECT state FROM studies WHERE name = 'test:confirm'")[0] == ("finished",)


def test_an_interrupted_confirmation_continues(database: Database) -> None:
    simulation = Simulation(database, make_spec(), noisy)
    simulation.run()
    made = prepare(database, simulation.record, top=3, repeats=3)
    assert made.spec is not None
    repeats = Simulation(database, made.spec, noisy, slots=2)
    coordinator = repeats.start()
    for _ in range(4):
        coordinator.step()
    with pytest.raises(StudyBusy):
        prepare(database, simulation.record, top=3, repeats=4)
    repeats.crash()
    assert confirmed(database, simulation.record, top=3, repeats=3).states() == {"complete": 9}


def test_repeats_that_all_agree_are_reported_as_such(database: Database) -> None:
    simulation = Simulation(database, make_spec(), quadratic)
    simulation.run()
    confirmed(database, simulation.record, quadratic, top=2, repeats=3)
    confirmation = get_confirmation(database, "test")
    assert confirmation is not None
    assert "trial.seed" in confirmation.verdict


def test_a_study_without_results_has_nothing_to_confirm(database: Database) -> None:
    with database.engine.begin() as connection:
        record = study_records.create(connection, make_spec())
    with pytest.raises(TuneError, match="no complete, feasible trial"):
        prepare(database, record, top=5, repeats=5)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_the_nearest_trials_are_those_that_the_sampler_named(
    database: Database, sampler: str
) -> None:
    simulation = Simulation(
        database, make_spec(sampler={"name": sampler, "seed": 1}, budget={"trials": 30})
    )
    simulation.run()
    explanation = explain_trial(database, get_study(database, "test"), 29)
    assert explanation is not None
    assert explanation.reasons is not None
    assert explanation.reasons.proposal is not None
    named = simulation.sql(
        """SELECT details -> 'nearest' FROM decisions
        WHERE trial_number = 29 AND kind = 'ask'"""
    )[0][0]
    nearest = explanation.reasons.proposal.nearest
    assert [(one.number, one.distance) for one in nearest] == [
        (one["number"], one["distance"]) for one in named
    ]
    assert all(one.value is not None for one in nearest)


def test_a_trial_is_compared_with_the_best_one_and_the_best_with_none(database: Database) -> None:
    Simulation(database, make_spec(budget={"trials": 30})).run()
    view = get_study(database, "test")
    [best] = list_best_trials(database, view.study_id)
    number = next(n for n in range(30) if n != best.number)
    explained = explain_trial(database, view, number)
    assert explained is not None
    assert explained.against_best is not None
    assert explained.against_best.against == best.number
    assert f"for trial {best.number}, the best observed" in str(explained)
    explained = explain_trial(database, view, best.number)
    assert explained is not None
    assert explained.local is not None
    assert explained.against_best is None


def explanation_text(database: Database, number: int | None = None) -> str:
    view = get_study(database, "test")
    explanation = (
        explain_study(database, view) if number is None else explain_trial(database, view, number)
    )
    assert explanation is not None
    return "\n".join(said.text for said in explanation.statements)


def test_a_pruned_and_retried_trial_is_explained(database: Database) -> None:
    def script(launch: Launch) -> Iterable[tuple[float, Payload]]:
        if launch.trial_number == 5 and launch.attempt.number == 1:
            return [(1.0, Lost("killed"))]
        return curve(*[0.1 if launch.trial_number < 4 else 0.9] * 8)

    Simulation(database, make_spec(pruner={"name": "median", "n_startup_trials": 2}), script).run()
    text = explanation_text(database, 5)
    assert "Proposed by random" in text
    assert "Nearest earlier trials" in text
    assert "2 attempts" in text
    assert "Retry 1 of 3 after lost" in text
    assert "Stopped: 0.9 at step" in text
    assert "found none poor enough to stop the trial" in explanation_text(database, 1)
    whole = explanation_text(database)
    assert "6 of 10 trials were stopped early" in whole
    assert "that saved about" in whole
    assert "all 10 trials are done" in whole
    assert explain_trial(database, get_study(database, "test"), 99) is None


def test_the_model_says_nothing_of_a_trial_that_was_pruned(database: Database) -> None:
    """Case A3: of the worst trial, where only pruned ones were, it expected one of the best
    values."""
    pruner = {"name": "median", "n_startup_trials": 3}
    Simulation(database, make_spec(pruner=pruner, budget={"trials": 30}), quadratic).run()
    view = get_study(database, "test")
    numbers = {row.state: row.number for row in list_trials(database, view.study_id)}
    explained = {state: explain_trial(database, view, number) for state, number in numbers.items()}
    assert {
        state: one is not None and one.local is not None for state, one in explained.items()
    } == {
        "complete": True,
        "pruned": False,
    }


def test_a_study_ends_early_when_little_more_is_to_be_expected(database: Database) -> None:
    stop = {"improvement_below": 0.001, "after": 12}
    spec = make_spec(budget={"trials": 500, "stop_when": stop}, parallelism=3)
    simulation = Simulation(database, spec, quadratic)
    closing = simulation.run()
    assert closing.state is StudyState.FINISHED
    assert "budget.stop_when" in closing.reason
    assert 12 <= simulation.states()["complete"] < 500
    shown = simulation.recorder.snapshots[-1].forecast
    assert shown == forecast_value(database, get_study(database, "test"))


@pytest.mark.parametrize("metrics", [["loss"], ["loss", "cost"]])
def test_the_false_prune_rate_is_measured_by_audited_trials(
    database: Database, metrics: list[str]
) -> None:
    def script(launch: Launch) -> Iterable[tuple[float, Payload]]:
        x = float(launch.params["x"])  # type: ignore[arg-type]
        curve = [0.1 + x + 0.8**step for step in range(12)]
        # one of them turns out best after all
        curve += [0.0] if launch.trial_number == 30 else [0.1 + x]
        return [
            *((1.0, Reported(s, dict.fromkeys(metrics, v))) for s, v in enumerate(curve)),
            (1.0, Finished()),
        ]

    pruner = {"name": "curve", "audit": 0.6, "chance": 0.1}
    goals = [{"name": name} for name in metrics]
    simulation = Simulation(
        database, make_spec(pruner=pruner, metrics=goals, budget={"trials": 40}), script
    )
    simulation.run()
    view = get_study(database, "test")
    found = get_audit(database, view)
    assert found is not None
    directions = [StudyDirection.MINIMIZE] * len(metrics)
    counted = false_prunes(PgStorage(database).get_all_trials(view.study_id), *directions)
    assert (found.audited, found.wrong, found.rate) == (
        counted.audited,
        counted.wrong,
        counted.rate,
    )
    assert found.audited > 5
    assert found.wrong == 1
    assert found.text[1:] in explanation_text(database)
    best = "the new best" if len(metrics) == 1 else "on the front"
    assert (
        f"of {found.audited} audited trials 1 would have been {best}: false-prune rate"
        in found.text
    )
    assert found.text.endswith("allowed 10 %")
    explanation = explain_study(database, view)
    assert explanation.audit == found
    shown = io.StringIO()
    Console(file=shown, width=200).print(study_text.overview(view, (), (), 200, audit=found))
    assert found.text in shown.getvalue()


def test_a_study_that_audits_nothing_has_no_rate(database: Database) -> None:
    Simulation(database, make_spec(pruner={"name": "asha"})).run()
    assert get_audit(database, get_study(database, "test")) is None
    Simulation(
        database, make_spec(name="young", pruner={"name": "auto"}, budget={"trials": 2})
    ).run()
    young = get_audit(database, get_study(database, "young"))
    assert young is not None
    assert (young.audited, young.rate, young.text) == (0, None, "no audited trial has finished yet")


def test_repeats_decide_which_trial_is_best(database: Database) -> None:
    simulation = Simulation(database, make_spec(seed=1, budget={"trials": 20}), noisy)
    simulation.run()
    modelled = get_recommendation(database, get_study(database, "test"))
    confirmed(database, simulation.record, top=3, repeats=4)
    view = get_study(database, "test")
    confirmation, answer = get_confirmation(database, "test"), get_recommendation(database, view)
    assert confirmation is not None
    assert confirmation.winner is not None
    assert answer is not None
    assert answer.number == confirmation.winner.number
    assert answer.mean == confirmation.winner.mean
    assert answer.confirmed == confirmation.winner
    assert "confirmed by 4 repeats" in answer.describe()
    assert modelled is not None
    assert modelled.confirmed is None


def test_the_end_of_a_run_names_the_trial_that_best_names(database: Database) -> None:
    """Two trials have the same best value; only one of them is the answer, whichever face shows
    it."""

    def tied(launch: Launch) -> Iterable[tuple[float, Payload]]:
        return curve(round((float(launch.params["x"]) - 0.3) ** 2, 1))  # type: ignore[arg-type]

    Simulation(database, make_spec(seed=1, budget={"trials": 20}), tied).run()
    study = Study("test", database)
    answer, rows = study.answer
    assert answer is not None
    assert rows[0].number == answer.number
    assert [row.number for row in study.best_trials] == [answer.number]
