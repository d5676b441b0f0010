"""Paused and promoted trials: the pruners' rules, the sampler's view, and that no other state is
kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

import tunesvc
from tests.support.learning_curves import STEPS, curve, make_study, make_trial
from tests.support.specs import make_spec
from tests.unit.test_optimizer import make_optimizer
from tunesvc.search.explanations import Explainable
from tunesvc.search.optimizer import Optimizer
from tunesvc.search.pruners.curve.curve_model import CurveForecast
from tunesvc.search.pruners.curve.regression import DOF
from tunesvc.search.pruners.curve.study_forecasts import model_of
from tunesvc.search.samplers.tpe.tpe_history import TPEHistory
from tunesvc.search.study_storage import RecordingStorage
from tunesvc.search.tracking.pausing import PAUSED, RESUMED, Alternative, PausingPruner
from tunesvc.search.tracking.scale import ValueScale

AshaPruner, CurvePruner = tunesvc.AshaPruner, tunesvc.CurvePruner
RUNGS = (1, 3, 9)
ETA = 3
ASHA = {"name": "asha", "min": 1, "max": 27, "eta": ETA, "form": "promote"}
LOSSES = st.lists(st.floats(-1e3, 1e3) | st.just(math.nan), min_size=1, max_size=40)


def asha() -> BasePruner:
    return AshaPruner(min=1, max=27, eta=ETA, form="promote")


class Asha:
    """Flat curves at given values, run by algorithm 2 without a coordinator: promote if
    possible, else ask."""

    def __init__(self, losses: Sequence[float], goal: str = "minimize") -> None:
        metrics = [{"name": "loss", "goal": goal}]
        spec = make_spec(pruner=ASHA, metrics=metrics, budget={"trials": len(losses)})
        self.optimizer = make_optimizer(spec)
        self.losses = losses
        self.promoted: list[tuple[int, int, int, int]] = []
        """Trial, rung, rank and how many had come there."""

    def run(self) -> None:
        while (
            asks := len(self.optimizer.trials) < len(self.losses)
        ) or self.optimizer._pruning.paused:
            promotion = self.optimizer.promotion(asks=asks)
            if promotion is not None:
                self._check(promotion.number)
                details = promotion.details
                self.promoted.append(
                    (promotion.number, details["rung"], details["rank"], details["of"])
                )
                self.optimizer.promote(promotion.number, details)
                self._train(promotion.number)
            elif asks:
                self._train(self.optimizer.ask().number)
            else:
                return

    def _train(self, number: int) -> None:
        for step in range(1 + (self.optimizer.trial(number).last_step or 0), 28):
            self.optimizer.report(number, step, self.losses[number])
            verdict = self.optimizer.verdict(number)
            if verdict is not None:
                assert verdict.stop
                assert verdict.pause
                self.optimizer.pause(number, step)
                return
        finite = math.isfinite(self.losses[number])
        self.optimizer.tell(
            number,
            TrialState.COMPLETE if finite else TrialState.FAIL,
            [self.losses[number]] * finite,
        )

    def _check(self, number: int) -> None:
        """A new pruner decides alike: only the reports are remembered."""
        for instead in Alternative:
            theirs, ours = asha(), self.optimizer.study.pruner
            assert isinstance(theirs, PausingPruner)
            assert isinstance(ours, PausingPruner)
            paused = dict(reversed(self.optimizer._pruning.paused.items()))
            fresh = theirs.promotion(self.optimizer.study, paused, instead)
            assert fresh == ours.promotion(
                self.optimizer.study, self.optimizer._pruning.paused, instead
            )
        assert number in self.optimizer._pruning.paused


@settings(max_examples=40, deadline=None)
@given(losses=LOSSES)
def test_a_promoted_trial_is_among_the_best_part_of_its_rung_and_a_restart_promotes_alike(
    losses: list[float],
) -> None:
    study = Asha(losses)
    study.run()
    for number, rung, rank, of in study.promoted:
        assert rank <= max(1, of // ETA), f"trial {number} at rung {rung}"
        assert math.isfinite(losses[number])
    assert len({(number, rung) for number, rung, *_ in study.promoted}) == len(study.promoted), (
        "once at each rung"
    )


@settings(max_examples=40, deadline=None)
@given(losses=LOSSES)
def test_when_the_best_come_first_no_more_than_the_best_part_goes_past_a_rung(
    losses: list[float],
) -> None:
    """Otherwise there may be a few more: trials that were among the best before others came."""
    study = Asha(sorted(loss for loss in losses if math.isfinite(loss)) or [1.0])
    study.run()
    for rung in RUNGS:
        came = sum((trial.last_step or 0) >= rung for trial in study.optimizer.trials)
        passed = sum((trial.last_step or 0) > rung for trial in study.optimizer.trials)
        assert passed <= max(1, came // ETA)


@settings(max_examples=20, deadline=None)
@given(losses=st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=30))
def test_maximising_the_negative_promotes_the_same(losses: list[float]) -> None:
    down, up = Asha(losses), Asha([-loss for loss in losses], "maximize")
    down.run()
    up.run()
    assert down.promoted == up.promoted


def test_a_pruner_that_promoted_no_trial_is_asked_again_only_after_a_change() -> None:
    asked: list[Alternative] = []

    class Strict(BasePruner):
        pauses = True

        def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
            return True

        def promotion(self, study: optuna.Study, paused: Any, instead: Alternative) -> int | None:
            asked.append(instead)
            return None

    optimizer = make_optimizer(make_spec(), pruner=Strict())
    first, second = optimizer.ask().number, optimizer.ask().number
    optimizer.report(first, 0, 1.0)
    optimizer.pause(first, -1)
    changes = [
        lambda: None,
        lambda: optimizer.report(second, 0, 1.0),
        lambda: optimizer.memory.truncate_curve(second, -1),
        lambda: optimizer.tell(second, TrialState.COMPLETE, [1.0]),
        lambda: optimizer.ask(),
        lambda: optimizer.pause(2, -1),
        lambda: optimizer.tell(2, TrialState.PRUNED, None),
    ]
    for times, change in enumerate(changes, start=1):
        change()
        for _ in range(3):
            assert optimizer.promotion(asks=False) is None
        assert len(asked) == times
    optimizer.promotion(asks=True)
    assert asked[-1] is Alternative.NEW


def test_the_highest_rung_comes_first_and_a_new_trial_only_when_none_can_be_promoted() -> None:
    study = Asha([0.1 * number for number in range(12, 0, -1)])
    order = []
    original = study._train

    def train(number: int) -> None:
        order.append((number, study.optimizer.trial(number).last_step or 0))
        original(number)

    study._train = train  # type: ignore[method-assign]
    study.run()
    # each new trial is better than all before it, so the third, and every one from then on, goes on
    # at once
    assert order[:3] == [(0, 0), (1, 0), (2, 0)]
    assert study.optimizer.trial(2).last_step != 1, "the best of three goes on where it stands"
    assert study.optimizer.trial(11).state == TrialState.COMPLETE


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_best_of_few_comes_to_its_end_once_nothing_more_is_asked(count: int) -> None:
    study = Asha([0.5 + 0.1 * number for number in range(count)])
    study.run()
    states = [study.optimizer.trial(number).state for number in range(count)]
    assert states[0] == TrialState.COMPLETE
    assert TrialState.COMPLETE not in states[1:]


def test_the_stopping_form_neither_pauses_nor_differs_from_what_it_was() -> None:
    assert not AshaPruner().pauses
    with pytest.raises(ValueError, match="form"):
        AshaPruner(form="sleep")  # type: ignore[arg-type]


# --- the curve pruner
# -----------------------------------------------------------------------------------


def curve_study(paused: Sequence[tuple[float, int]]) -> tuple[Optimizer, list[int]]:
    """Fourteen finished trials, and paused ones at (x, steps)."""
    optimizer = make_optimizer(
        make_spec(
            pruner={"name": "curve"}, parameters={"x": {"type": "float", "min": 0.0, "max": 1.0}}
        ),
        trials=make_study(finished=14, pruned=0),
    )
    numbers = []
    for x, steps in paused:
        number = optimizer.memory.create_new_trial(
            optimizer.memory.study_id, make_trial(0, x, curve(x, steps))
        )
        optimizer.pause(number, steps - 1)
        numbers.append(number)
    return optimizer, numbers


def promotion(
    optimizer: Optimizer, instead: Alternative, pruner: BasePruner | None = None
) -> int | None:
    chooser = pruner or optimizer.study.pruner
    assert isinstance(chooser, PausingPruner)
    return chooser.promotion(optimizer.study, optimizer._pruning.paused, instead)


def test_the_paused_trial_that_promises_most_continues() -> None:
    optimizer, (poor, good) = curve_study([(0.95, 9), (0.3, 9)])
    assert promotion(optimizer, Alternative.NOTHING) == good
    pruner = optimizer.study.pruner
    assert isinstance(pruner, Explainable)
    explanation = pruner.explain(good)
    assert explanation is not None
    assert explanation.details["chance"] > explanation.details["allowed"]
    assert explanation.details["gain"] > 0
    assert poor != good


def test_nothing_continues_that_has_no_chance() -> None:
    optimizer, _ = curve_study([(0.95, 20), (0.9, 20)])
    assert [promotion(optimizer, instead) for instead in Alternative] == [None, None, None]


def test_after_the_last_ask_only_a_chance_of_its_own_counts_and_before_it_that_of_all() -> None:
    optimizer, numbers = curve_study([(0.3 + 0.012 * k, 14) for k in range(-6, 7)])
    model, best = model_of(optimizer.study), optimizer.study.best_value
    chances = [
        f.chance_of_better(best)
        for n in numbers
        if (f := model.forecast(optimizer.trial(n))) is not None
    ]
    strict, lenient = 1.01 * max(chances), 0.5 * max(chances)
    assert 1 - math.prod(1 - chance for chance in chances) > strict
    assert promotion(optimizer, Alternative.NOTHING, CurvePruner(strict)) is None
    assert promotion(optimizer, Alternative.NOTHING, CurvePruner(lenient)) is not None
    assert promotion(optimizer, Alternative.REPEAT, CurvePruner(strict)) is not None


def test_a_trial_that_has_to_restart_promises_less_per_step() -> None:
    optimizer, (one,) = curve_study([(0.3, 14)])

    def gain(after_step: int) -> float:
        optimizer._pruning.paused[one] = after_step
        assert promotion(optimizer, Alternative.NOTHING) == one
        pruner = optimizer.study.pruner
        assert isinstance(pruner, Explainable)
        explanation = pruner.explain(one)
        assert explanation is not None
        return float(explanation.details["gain"])

    assert gain(13) == pytest.approx(gain(-1) * STEPS / (STEPS - 14))


@settings(max_examples=15, deadline=None)
@given(xs=st.lists(st.floats(0, 1), min_size=1, max_size=8), steps=st.integers(1, 20))
def test_a_new_curve_pruner_promotes_alike(xs: list[float], steps: int) -> None:
    optimizer, _ = curve_study([(x, steps) for x in xs])
    for instead in Alternative:
        assert promotion(optimizer, instead) == promotion(optimizer, instead, CurvePruner())


def test_one_that_went_on_with_a_small_chance_is_stopped_when_it_has_halved() -> None:
    study = optuna.create_study()
    study.add_trials(list(make_study(finished=14)))
    study.add_trial(make_trial(0, 0.6, curve(0.6, 9)))
    pruner, trial = CurvePruner(audit=0.0), study.get_trials()[-1]
    judged = [cut(trial, steps) for steps in range(1, 10)]
    stopped = [t for t in judged if pruner.prune(study, t)]
    assert stopped
    explanation = pruner.explain(trial.number)
    assert explanation is not None
    for chance, expected in (
        (3 * explanation.details["chance"], True),
        (1.5 * explanation.details["chance"], False),
    ):
        again = copy.copy(stopped[-1])
        again.system_attrs = {RESUMED: {"step": 0, "chance": chance}}
        assert pruner.prune(study, again) is expected


def cut(trial: FrozenTrial, steps: int) -> FrozenTrial:
    shown = copy.copy(trial)
    shown.intermediate_values = {s: v for s, v in trial.intermediate_values.items() if s < steps}
    return shown


@pytest.mark.parametrize(("options", "pauses"), [({}, True), ({"resume": False}, False)])
def test_without_resuming_the_pruner_stops_for_good(
    options: dict[str, Any], *, pauses: bool
) -> None:
    optimizer = make_optimizer(make_spec(pruner={"name": "auto", **options}))
    assert optimizer._pruning.pauses is pauses


@settings(max_examples=15, deadline=None)
@given(st.floats(-3, 3), st.floats(0.05, 3))
def test_the_expected_gain_is_the_mean_of_what_is_better(centre: float, deviation: float) -> None:
    scale = ValueScale(1.0, is_log=False, centre=0.0, unit=1.0)
    drawn = centre + deviation * np.random.default_rng(0).standard_t(DOF, 200_000)
    for reached in (math.inf, -0.5):
        forecast = CurveForecast(0, centre, deviation, reached, scale)
        mean = np.maximum(0.0, -0.2 - np.minimum(drawn, reached)).mean()
        assert forecast.expected_gain(-0.2) == pytest.approx(mean, abs=0.03 * deviation)


# --- what is seen of a paused trial
# ---------------------------------------------------------------------


def test_a_paused_trial_is_shown_as_pruned_and_is_running_all_the_same() -> None:
    memory = RecordingStorage(
        "test", [StudyDirection.MINIMIZE], make_study(finished=3, pruned=0, running=1)
    )
    memory.pause(3)
    assert memory.get_trial(3).state == TrialState.RUNNING
    shown = memory.get_all_trials(memory.study_id)[3]
    assert shown.state == TrialState.PRUNED
    assert shown.value == shown.intermediate_values[shown.last_step or 0]
    assert [
        t.number for t in memory.get_all_trials(memory.study_id, states=(TrialState.RUNNING,))
    ] == []
    assert [
        t.number for t in memory.get_all_trials(memory.study_id, states=(TrialState.PRUNED,))
    ] == [3]
    memory.resume(3)
    assert memory.get_all_trials(memory.study_id)[3].state == TrialState.RUNNING


def test_the_sampler_forgets_what_a_paused_trial_was_when_it_continues() -> None:
    trials = [
        *make_study(finished=12, pruned=0),
        make_trial(12, 0.3, curve(0.3, 3), TrialState.PRUNED),
    ]
    trials[12].system_attrs = {PAUSED: 3}
    ranks = TPEHistory([StudyDirection.MINIMIZE], 100)
    ranks.update(trials)
    assert ranks.completed_or_pruned == 13
    assert 12 not in [one.number for one in ranks.view().good]
    running = [*trials[:12], make_trial(12, 0.3, curve(0.3, 5))]
    ranks.update(running)
    assert ranks.completed_or_pruned == 12
    assert [trial.number for trial in ranks.running(running)] == [12]
    ended = [*trials[:12], make_trial(12, 0.3, curve(0.3), TrialState.COMPLETE, -1.0)]
    ranks.update(ended)
    assert (ranks.completed_or_pruned, ranks.finished) == (13, 13)
    assert 12 in [one.number for one in ranks.view().good]
    fresh = TPEHistory([StudyDirection.MINIMIZE], 100)
    fresh.update(ended)
    assert fresh.view() == ranks.view()


def test_a_promoted_trial_is_not_judged_where_it_had_been() -> None:
    optimizer = make_optimizer(make_spec(pruner=ASHA))
    number = optimizer.ask().number
    optimizer.report(number, 1, 1.0)
    assert optimizer.verdict(number) is not None
    optimizer.pause(number, -1)
    optimizer.promote(number, {"chance": None})
    optimizer.memory.truncate_curve(number, -1)
    optimizer.report(number, 1, 1.0)
    assert optimizer.verdict(number) is None
    optimizer.report(number, 3, 1.0)
    assert optimizer.verdict(number) is not None


def test_a_pruner_that_raises_promotes_no_trial_and_it_is_recorded() -> None:
    class Broken(optuna.pruners.NopPruner):
        pauses = True

        def promotion(self, study: object, paused: object, instead: object) -> int | None:
            raise RuntimeError("no idea")

    optimizer = make_optimizer(make_spec(), pruner=Broken())
    optimizer.pause(optimizer.ask().number, -1)
    assert optimizer.promotion(asks=True) is None
    assert "no idea" in optimizer.memory.recorded.decisions[-1].reason


def test_what_is_set_on_a_paused_trial_is_there_when_it_continues() -> None:
    optimizer, (number,) = curve_study([(0.3, 9)])
    memory = optimizer.memory
    memory.set_trial_user_attr(number, "note", 1)
    assert optimizer.trials[number].state == TrialState.PRUNED
    assert memory.get_trial(number).state == TrialState.RUNNING
    memory.resume(number)
    assert optimizer.trials[number].state == TrialState.RUNNING
    assert optimizer.trials[number].user_attrs["note"] == 1
