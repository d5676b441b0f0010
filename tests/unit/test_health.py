"""Checks of a study's health: each finds what it is for, and is silent on a healthy study and on
a small one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from tests.support.specs import make_spec
from tunesvc.queries.health import Check, HealthFinding, examine
from tunesvc.queries.health.evidence import (
    AuditedEnd,
    BestSoFar,
    Evidence,
    OccupiedTime,
    SeenTrial,
)
from tunesvc.queries.rows import Counts, Objective, StudyStatus, StudyView
from tunesvc.space.search_space import Space
from tunesvc.spec import StudySpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPACE = {
    "x": {"type": "float", "min": 0.0, "max": 2.0},
    "lr": {"type": "float", "min": 1e-4, "max": 1.0, "log": True},
    "layers": {"type": "int", "min": 1, "max": 8},
    "kind": {"type": "categorical", "values": ["a", "b", "c"]},
}


def view(spec: StudySpec, *, state: StudyStatus = StudyStatus.RUNNING, **counts: int) -> StudyView:
    return StudyView(
        study_id=1,
        name=spec.name,
        state=state,
        reason="",
        objectives=tuple(Objective(metric.name, metric.goal) for metric in spec.metrics),
        counts=Counts(**counts),
        best_value=None,
        budget=spec.budget,
        fraction=0.5,
        active_s=100.0,
        gpu_hours=0.0,
        prices=spec.cost,
        cost=None,
        coordinator="host:1",
        created_at=NOW,
        ended_at=None,
        owner="",
        project="",
        tags=(),
        note="",
        closing=None,
        submission=None,
        spec=spec,
        source_text=None,
        source_dir=None,
    )


Row = Mapping[str, Any]


def rows_of(
    count: int, seed: int = 0, **fixed: Callable[[np.random.Generator, int], Any]
) -> list[dict[str, Any]]:
    """Configurations drawn evenly; `fixed` draws some parameters in its own way."""
    rng = np.random.default_rng(seed)
    drawn = []
    for number in range(count):
        row: dict[str, Any] = {
            "x": float(rng.uniform(0, 2)),
            "lr": float(10 ** rng.uniform(-4, 0)),
            "layers": int(rng.integers(1, 9)),
            "kind": str(rng.choice(["a", "b", "c"])),
        }
        drawn.append(row | {name: draw(rng, number) for name, draw in fixed.items()})
    return drawn


def bowl(row: Row) -> float:
    return float(
        (row["x"] - 1) ** 2 + 0.2 * (np.log10(row["lr"]) + 2) ** 2 + 0.1 * (row["layers"] - 4) ** 2
    )


def evidence_of(
    rows: Sequence[Row],
    values: Iterable[float | None],
    *,
    state: StudyStatus = StudyStatus.RUNNING,
    failures: Mapping[int, str] | None = None,
    spec: StudySpec | None = None,
    **more: Any,
) -> Evidence:
    """A study whose trials ended in their order; a value of None is a failed trial."""
    spec = spec or make_spec(
        parameters=SPACE,
        metrics=({"name": "error"},),
        budget={"trials": 1000},
        pruner={"name": "auto"},
    )
    kinds = Space(spec.parameters).distributions
    seen = [
        SeenTrial(
            number,
            "fail" if value is None else "complete",
            value,
            (failures or {}).get(number, "error") if value is None else None,
            row,
            {name: kinds[name] for name in row},
        )
        for number, (row, value) in enumerate(zip(rows, values, strict=True))
    ]
    done = [one for one in seen if one.value is not None]
    records: list[BestSoFar] = []
    for place, one in enumerate(seen, 1):
        if one.value is not None and (not records or one.value < records[-1].value):
            records.append(BestSoFar(place, one.value))
    counts = {"complete": len(done), "failed": len(seen) - len(done)}
    return Evidence(
        view(spec, state=state, **counts),
        sampled=seen,
        best=sorted(done, key=lambda one: one.value or 0.0)[:50],
        failed=[one for one in seen if one.value is None],
        recent=seen[-500:],
        records=records,
        now=NOW,
        **more,
    )


def check(evidence: Evidence, name: str) -> Check:
    return next(one for one in examine(evidence).checks if one.name == name)


def found(evidence: Evidence, name: str) -> HealthFinding:
    (finding,) = check(evidence, name).findings
    return finding


HEALTHY = rows_of(200)


def test_a_healthy_study_raises_no_alarm() -> None:
    evidence = evidence_of(HEALTHY, map(bowl, HEALTHY))
    assert [
        finding.text for _, finding in examine(evidence).findings if finding.severity == "warn"
    ] == []


@pytest.mark.parametrize("seed", range(8))
def test_a_small_study_raises_no_alarm(seed: int) -> None:
    rows = rows_of(12, seed, x=lambda rng, _: 2.0)
    values = [None if number % 3 == 0 else bowl(row) for number, row in enumerate(rows)]
    assert examine(evidence_of(rows, values)).findings == ()


@pytest.mark.parametrize("seed", range(5))
def test_values_that_mean_nothing_raise_no_alarm_about_the_space_or_failures(seed: int) -> None:
    """The rate of false alarms is below 1 in 100 per check; eight checks of five studies stay
    silent."""
    rng = np.random.default_rng(seed)
    rows = rows_of(300, seed)
    values = [None if rng.random() < 0.1 else float(rng.normal()) for _ in rows]
    evidence = evidence_of(rows, values)
    for name in ("narrow", "wide", "stuck", "failures"):
        assert check(evidence, name).findings == (), name


def test_the_best_at_a_border_is_found_with_a_wider_range_as_advice() -> None:
    rows = rows_of(240)
    finding = found(evidence_of(rows, [-row["x"] for row in rows]), "narrow")
    assert finding.severity == "warn"
    assert "x: 10 of the 10 best trials" in finding.text
    assert finding.action is not None
    assert finding.action.payload == {"parameters": {"x": {"max": 3.0}}}
    assert finding.action.command("my study") == "tune widen 'my study' x=..3.0"


def test_a_border_of_a_logarithmic_range_widens_by_a_factor() -> None:
    rows = rows_of(240)
    action = found(evidence_of(rows, [row["lr"] ** 0.3 for row in rows]), "narrow").action
    assert action is not None
    assert action.payload == {"parameters": {"lr": {"min": 1e-5}}}


def test_a_border_that_is_a_natural_end_is_only_noted() -> None:
    rows = rows_of(120)
    finding = found(evidence_of(rows, [row["x"] for row in rows]), "narrow")
    assert finding.severity == "note"
    assert finding.action is None


def test_whole_numbers_at_their_border_are_found_only_when_that_is_no_accident() -> None:
    rows = rows_of(120)
    assert (
        "layers"
        in found(
            evidence_of(rows, [-row["layers"] + row["x"] / 100 for row in rows]), "narrow"
        ).text
    )
    few = [row | {"layers": 1 + row["layers"] % 3} for row in rows]
    spec = make_spec(
        parameters=SPACE | {"layers": {"type": "int", "min": 1, "max": 3}},
        metrics=({"name": "error"},),
    )
    evidence = evidence_of(few, [-row["layers"] + row["x"] / 100 for row in few], spec=spec)
    assert not any("layers" in finding.text for finding in check(evidence, "narrow").findings)


def test_an_optimum_near_a_border_but_not_at_it_is_left_alone() -> None:
    rows = rows_of(200)
    assert check(evidence_of(rows, [abs(row["x"] - 1.7) for row in rows]), "narrow").findings == ()


def test_a_range_of_which_only_a_small_part_is_any_good_is_too_wide() -> None:
    rows = rows_of(400)
    evidence = evidence_of(rows, [(row["x"] - 0.9) ** 2 + 1e-3 * row["lr"] for row in rows])
    finding = found(evidence, "wide")
    assert finding.text.startswith("x: all good trials lie between 0.79")
    assert "warm_start" in finding.advice


def test_a_sampler_that_has_settled_on_the_good_part_wastes_nothing() -> None:
    rows = rows_of(
        400, x=lambda rng, n: float(rng.uniform(0, 2) if n < 40 else rng.normal(0.9, 0.05))
    )
    assert (
        check(
            evidence_of(rows, [(row["x"] - 0.9) ** 2 + 1e-3 * row["lr"] for row in rows]), "wide"
        ).findings
        == ()
    )


def test_noise_is_measured_by_repeats() -> None:
    rng = np.random.default_rng(0)
    rows = [row for row in rows_of(40) for _ in range(3)]
    loud = evidence_of(rows, [bowl(row) + 3 * rng.normal() for row in rows])
    assert "repeats" in found(loud, "noise").text
    assert found(loud, "noise").severity == "warn"
    quiet = evidence_of(rows, [bowl(row) + 0.01 * rng.normal() for row in rows])
    assert check(quiet, "noise").findings == ()


def test_what_seeds_do_to_all_trials_alike_is_no_noise_where_they_are_shared() -> None:
    rng = np.random.default_rng(0)
    rows = [row for row in rows_of(40) for _ in range(3)]
    does = 3 * rng.normal(size=4)
    values = [bowl(row) + does[number % 4] + 0.01 * rng.normal() for number, row in enumerate(rows)]
    assert (
        "`evaluation: {repeats: 5, per_trial: 1}`"
        in found(evidence_of(rows, values), "noise").advice
    )
    shared = evidence_of(
        rows, values, spec=make_spec(parameters=SPACE, metrics=({"name": "error"},), seeds=4)
    )
    assert check(shared, "noise").findings == ()


def test_noise_is_learned_by_the_model_where_nothing_is_repeated() -> None:
    rng = np.random.default_rng(0)
    rows = rows_of(200)
    finding = found(evidence_of(rows, [bowl(row) + 2 * rng.normal() for row in rows]), "noise")
    assert finding.severity == "note"
    assert "as the model sees it" in finding.text
    assert check(evidence_of(rows, map(bowl, rows)), "noise").findings == ()


def audited(wrong: int, right: int) -> list[AuditedEnd]:
    values = [0.1] * wrong + [0.9] * right
    return [([value], {"step": 1, "best": 0.5, "chance": 0.01}) for value in values]


def test_pruning_is_too_eager_when_its_audit_says_so_for_sure() -> None:
    values = list(map(bowl, HEALTHY))
    assert "6 of 20" in found(evidence_of(HEALTHY, values, audited=audited(6, 14)), "pruning").text
    assert check(evidence_of(HEALTHY, values, audited=audited(1, 3)), "pruning").findings == ()
    assert check(evidence_of(HEALTHY, values), "pruning").findings == ()


def test_with_several_objectives_the_audit_is_of_the_front() -> None:
    spec = make_spec(
        parameters=SPACE, metrics=({"name": "error"}, {"name": "size"}), pruner={"name": "auto"}
    )
    ends: list[AuditedEnd] = [([0.1, 0.9], {"step": 1, "front": [[0.5, 0.5]]})] * 6
    evidence = evidence_of(HEALTHY, map(bowl, HEALTHY), spec=spec, audited=ends)
    assert "6 of 6 trials" in found(evidence, "pruning").text
    assert "extended the front" in found(evidence, "pruning").text


def test_a_sampler_that_repeats_itself_without_gain_is_stuck() -> None:
    same = {"x": 1.0, "lr": 0.01, "layers": 4, "kind": "a"}
    rows = [*rows_of(80), *[same | {"x": 1.0 + 1e-6 * i} for i in range(40)]]
    finding = found(evidence_of(rows, [*map(bowl, rows[:80]), *[1.0] * 40]), "stuck")
    assert "30 of the last 30 proposals" in finding.text
    assert finding.action is not None
    assert finding.action.kind == "stop"


def test_repeats_that_bring_a_new_best_are_no_sign_of_being_stuck() -> None:
    same = {"x": 1.0, "lr": 0.01, "layers": 4, "kind": "a"}
    rows = [*rows_of(80), *[same for _ in range(40)]]
    assert (
        check(
            evidence_of(rows, [*map(bowl, rows[:80]), *[-float(i) for i in range(40)]]), "stuck"
        ).findings
        == ()
    )


def test_improvement_has_stalled_when_the_best_came_early_and_budget_is_left() -> None:
    values = [1.0] * 20 + [0.1] + [1.0] * 100
    finding = found(evidence_of(rows_of(121), values), "stalled")
    assert "came 100 trials ago, after 21 of 121" in finding.text
    assert "50% of the budget is left" in finding.text
    assert check(evidence_of(rows_of(121), values[::-1]), "stalled").findings == ()


def test_a_study_that_ended_while_it_improved_can_be_extended() -> None:
    values = [1.0 / (n + 1) ** 0.2 for n in range(100)]
    finding = found(evidence_of(rows_of(100), values, state=StudyStatus.FINISHED), "stalled")
    assert finding.action is not None
    assert finding.action.kind == "extend"
    assert finding.action.command("test") == "tune extend test --trials 500"
    done = evidence_of(rows_of(100), [*values[:50], *[1.0] * 50], state=StudyStatus.FINISHED)
    assert check(done, "stalled").findings == ()


def held(
    count: int, *, slots: int, gap_s: float, wait_s: float = 0.0, run_s: float = 10.0
) -> list[OccupiedTime]:
    """Each slot: wait, run, gap, again and again."""
    made = []
    for number in range(count):
        opened = (
            NOW
            - timedelta(hours=5)
            + timedelta(seconds=(number // slots) * (wait_s + run_s + gap_s))
        )
        started = opened + timedelta(seconds=wait_s)
        stagger = timedelta(seconds=number % slots)
        made.append(
            OccupiedTime(
                opened + stagger, started + stagger, started + stagger + timedelta(seconds=run_s)
            )
        )
    return made


def test_idle_workers_are_found_with_the_reason() -> None:
    values = list(map(bowl, HEALTHY))
    waiting = evidence_of(HEALTHY, values, attempts=held(200, slots=4, gap_s=0, wait_s=10))
    assert "waited for a worker to start, 9.7s each" in found(waiting, "idle").text
    slow = evidence_of(HEALTHY, values, attempts=held(200, slots=4, gap_s=12))
    assert "faster than new ones are proposed" in found(slow, "idle").text
    action = found(slow, "idle").action
    assert action is not None
    assert action.command("test") == "tune parallelism test 3"
    busy = evidence_of(HEALTHY, values, attempts=held(200, slots=4, gap_s=0.1))
    assert check(busy, "idle").findings == ()
    assert (
        check(evidence_of(HEALTHY, values, attempts=held(30, slots=4, gap_s=30)), "idle").findings
        == ()
    )


def test_a_night_in_which_the_study_was_paused_is_not_idleness() -> None:
    early = held(100, slots=4, gap_s=0.1)
    late = [
        OccupiedTime(
            *(at + timedelta(hours=3) for at in (one.opened_at, one.started_at, one.ended_at) if at)
        )
        for one in early
    ]
    evidence = evidence_of(HEALTHY, map(bowl, HEALTHY), attempts=[*early, *late])
    assert check(evidence, "idle").findings == ()


def test_failures_beyond_a_threshold_are_named() -> None:
    rows = rows_of(150)
    values = [None if row["lr"] > 0.1 else bowl(row) for row in rows]
    finding = found(evidence_of(rows, values), "failures")
    assert "Failures are clustered at lr ≥ 0.08" in finding.text
    assert finding.severity == "warn"


def test_failures_of_a_choice_are_named_and_those_of_machines_are_not() -> None:
    rows = rows_of(150)
    values = [None if row["kind"] == "b" else bowl(row) for row in rows]
    assert "kind = b" in found(evidence_of(rows, values), "failures").text
    machines = dict.fromkeys(range(len(rows)), "node")
    assert check(evidence_of(rows, values, failures=machines), "failures").findings == ()


def test_several_objectives_have_no_border_and_no_single_best() -> None:
    spec = make_spec(parameters=SPACE, metrics=({"name": "error"}, {"name": "size"}))
    evidence = evidence_of(HEALTHY, map(bowl, HEALTHY), spec=spec)
    assert {
        name for name in ("narrow", "wide", "noise", "stalled") if check(evidence, name).findings
    } == set()


def test_a_parameter_that_only_exists_under_a_condition_does_not_disturb() -> None:
    parameters: Mapping[str, Any] = SPACE | {
        "momentum": {"type": "float", "min": 0.0, "max": 0.9, "when": {"kind": "a"}}
    }
    spec = make_spec(parameters=parameters, metrics=({"name": "error"},))
    rows = [
        row | ({"momentum": row["x"] / 3} if row["kind"] == "a" else {}) for row in rows_of(200)
    ]
    assert [
        one
        for one in examine(evidence_of(rows, map(bowl, rows), spec=spec)).findings
        if one[1].severity == "warn"
    ] == []
