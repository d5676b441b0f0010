"""Good trials are those that Optuna's TPE splits off; a view is bounded, and depends on the
finished trials, not on their order."""

from __future__ import annotations

import math

import optuna
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.samplers._tpe.sampler import _split_trials, default_gamma, default_gamma_multiobjective
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunesvc.search.samplers.tpe.tpe_history import TPEHistory
from tunesvc.search.study_storage import FAILURE, shown_as_infeasible
from tunesvc.search.tracking.pausing import PAUSED

HISTORY = 100
SPACE = {"x": FloatDistribution(0, 1)}
LOSSES = st.sampled_from(
    [-math.inf, -1.5, 0.0, 0.25, 1.0, 7.0, math.inf]
)  # few, so that there are ties


@st.composite
def trials(draw: st.DrawFn, objectives: int = 1, most: int = 400) -> list[FrozenTrial]:
    count = draw(st.one_of(st.integers(0, 60), st.integers(0, most)))
    kinds = draw(st.lists(st.integers(0, 7), min_size=count, max_size=count))
    values = LOSSES if objectives == 1 else st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0])
    drawn = draw(st.lists(st.tuples(*[values] * objectives), min_size=count, max_size=count))
    return [
        _trial(number, kind, list(loss))
        for number, (kind, loss) in enumerate(zip(kinds, drawn, strict=True))
    ]


def _trial(number: int, kind: int, losses: list[float]) -> FrozenTrial:
    common = {"params": {"x": (number * 0.37) % 1}, "distributions": SPACE}
    if kind == 0:
        trial = create_trial(state=TrialState.RUNNING, **common)
    elif kind == 1:
        trial = create_trial(state=TrialState.FAIL, **common)
    elif kind == 2:
        trial = create_trial(state=TrialState.FAIL, system_attrs={FAILURE: "gpu_oom"}, **common)
    elif kind == 3 and len(losses) == 1:
        curve = dict.fromkeys(range(number % 4), losses[0])
        trial = create_trial(state=TrialState.PRUNED, intermediate_values=curve, **common)
    elif kind == 4:
        attrs = {"constraints:memory": float(number % 3), "constraints:speed": -1.0}
        trial = create_trial(values=losses, system_attrs=attrs, **common)
    else:
        trial = create_trial(values=losses, **common)
    trial.number = number
    return trial


def shown(all_trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that Optuna's TPE sees of a study in our memory."""
    others = [
        trial for trial in all_trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    infeasible = [seen for trial in all_trials if (seen := shown_as_infeasible(trial))]
    return sorted([*others, *infeasible], key=lambda trial: trial.number)


def learn(
    all_trials: list[FrozenTrial], directions: list[StudyDirection], history: int = HISTORY
) -> TPEHistory:
    ranks = TPEHistory(directions, history)
    ranks.update(all_trials)
    return ranks


@given(trials(), st.sampled_from([StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]))
def test_the_good_trials_are_those_that_optuna_splits_off(
    all_trials: list[FrozenTrial], to: StudyDirection
) -> None:
    seen = shown(all_trials)
    study = optuna.create_study(direction=to.name.lower())
    good, _ = _split_trials(study, seen, default_gamma(len(seen)))
    view = learn(all_trials, [to]).view()
    assert [observation.number for observation in view.good] == [trial.number for trial in good]
    assert view.finished == len(seen)


@settings(max_examples=25)
@given(trials(objectives=2, most=150))
def test_the_good_trials_of_two_objectives_are_those_that_optuna_splits_off(
    all_trials: list[FrozenTrial],
) -> None:
    directions = [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]
    seen = shown(all_trials)
    study = optuna.create_study(directions=directions)
    good, _ = _split_trials(study, seen, default_gamma_multiobjective(len(seen)))
    view = learn(all_trials, directions, history=200).view()
    assert [observation.number for observation in view.good] == [trial.number for trial in good]


@given(trials())
def test_a_view_is_bounded_and_splits_what_it_shows(all_trials: list[FrozenTrial]) -> None:
    view = learn(all_trials, [StudyDirection.MINIMIZE]).view()
    good, bad = [o.number for o in view.good], [o.number for o in view.bad]
    finished = [trial.number for trial in shown(all_trials)]
    assert len(good) + len(bad) == min(HISTORY, len(finished))
    assert not set(good) & set(bad)
    assert set(good + bad) <= set(finished)
    assert bad == sorted(bad)


@settings(max_examples=25)
@given(trials(objectives=2))
def test_a_view_of_two_objectives_is_bounded(all_trials: list[FrozenTrial]) -> None:
    view = learn(all_trials, [StudyDirection.MINIMIZE] * 2).view()
    assert len(view.good) <= HISTORY // 4
    assert len(view.good) + len(view.bad) == min(HISTORY, view.finished)


@given(trials(), st.randoms(use_true_random=False))
def test_a_view_does_not_depend_on_the_order_in_which_trials_finish(
    all_trials: list[FrozenTrial], chance
) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(all_trials)))
    chance.shuffle(order)
    ranks = TPEHistory([StudyDirection.MINIMIZE], HISTORY)
    state = [create_trial(state=TrialState.RUNNING) for _ in all_trials]
    for n, position in enumerate(order):
        state[position] = all_trials[position]
        if n % 7 == 0:
            ranks.update(state)
            ranks.view()
    ranks.update(state)
    assert ranks.view() == learn(all_trials, [StudyDirection.MINIMIZE]).view()


def test_the_latest_are_shown_and_of_the_others_an_even_sample() -> None:
    all_trials = [_trial(number, 7, [float(-number % 997)]) for number in range(5_000)]
    bad = [
        observation.number
        for observation in learn(all_trials, [StudyDirection.MINIMIZE], 400).view().bad
    ]
    assert bad[-25:] == [n for n in range(4_950, 5_000) if n in bad][-25:]
    counts = [
        sum(low <= number < low + 1_000 for number in bad[:-25]) for low in range(0, 5_000, 1_000)
    ]
    assert max(counts) - min(counts) <= 10
    assert sum(counts) == 350


def test_a_finished_trial_is_looked_at_once() -> None:
    class Watched(list[FrozenTrial]):
        looks = 0

        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            self.looks += 1
            return super().__getitem__(index)

    all_trials = Watched(_trial(number, 7, [float(number)]) for number in range(1_000))
    ranks = learn(all_trials, [StudyDirection.MINIMIZE])
    before = all_trials.looks
    all_trials.append(_trial(1_000, 7, [0.5]))
    ranks.update(all_trials)
    assert all_trials.looks - before <= 2


def test_the_front_survives_many_dominated_trials() -> None:
    """With several objectives only candidates are kept; the best ones are always among them."""
    directions = [StudyDirection.MINIMIZE] * 2
    front = [_trial(number, 7, [number / 10, 1 - number / 10]) for number in range(11)]
    dominated = [_trial(11 + n, 7, [2 + (n * 0.37) % 1, 2 + (n * 0.73) % 1]) for n in range(2_000)]
    ranks = TPEHistory(directions, HISTORY)
    state: list[FrozenTrial] = []
    for trial in [*front, *dominated]:
        state.append(trial)
        ranks.update(state)
    assert set(range(11)) <= {observation.number for observation in ranks.view().good}


def test_parameters_are_divided_into_those_that_occur_together_with_their_latest_ranges() -> None:
    x, wider, y = FloatDistribution(0, 1), FloatDistribution(0, 2), IntDistribution(1, 3)
    one = create_trial(params={"x": 0.5, "y": 2}, distributions={"x": x, "y": y}, value=0.0)
    other = create_trial(params={"x": 1.5}, distributions={"x": wider}, value=0.0)
    ranks = learn([one, other], [StudyDirection.MINIMIZE])
    assert ranks.groups == [{"x": wider}, {"y": y}]
    assert ranks.common == {}


def test_a_paused_trial_of_several_objectives_that_was_shown_by_its_forecast_continues() -> None:
    """The front forgets it, and learns it again when it ends."""
    ended = [_trial(number, 7, [float(number), 1.0 - number / 10]) for number in range(12)]
    paused = create_trial(
        values=[-1.0, -1.0], params={"x": 0.5}, distributions=SPACE, system_attrs={PAUSED: 3}
    )
    running = create_trial(state=TrialState.RUNNING, params={"x": 0.5}, distributions=SPACE)
    paused.number = running.number = 12
    ranks = TPEHistory([StudyDirection.MINIMIZE] * 2, HISTORY)
    ranks.update([*ended, paused], [])
    assert 12 in ranks.view().good.numbers
    ranks.update([*ended, running], [12])
    assert 12 not in {*ranks.view().good.numbers, *ranks.view().bad.numbers}
    assert ranks.finished == 12
    ranks.update([*ended, paused], [12])
    assert 12 in ranks.view().good.numbers
