"""What a study would do, before anything is started: sample configurations, the size of its space, its worst cost.

Pure: values, and the sentences that every face says about them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from tunesvc.space.search_space import Space, sample
from tunesvc.spec import ParamValue, StudySpec
from tunesvc.util.formatting import duration


@dataclass(frozen=True, slots=True)
class Cost:
    """What the budget allows at most. None where nothing bounds it."""

    trials: int | None
    wall_s: float | None
    """Running time of the study: its wall budget, or every trial as long as `limits.wall` allows."""
    gpu_hours: float | None
    gpus_per_trial: float
    """All workers of a gang together."""
    cpus_per_trial: float
    reason: str
    """What bounds the GPU hours, or what would."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A study at a glance."""

    samples: tuple[Mapping[str, ParamValue], ...]
    """Drawn uniformly, active parameters only; empty when the objective asks for its parameters itself."""
    size: int | None
    """Different configurations; None when a parameter is continuous or unknown, or there are too many to count."""
    size_at_most: int | None
    """A bound on them; None when a parameter is continuous or unknown."""
    exhaustible: bool
    """Whether the budget tries every configuration once; not where `seeds` says that results are noisy."""
    cost: Cost


def preview(spec: StudySpec, *, samples: int = 5, seed: int = 0) -> Preview:
    """Look ahead; `seed` decides which samples are drawn."""
    space, rng = Space(spec.parameters), Random(seed)  # noqa: S311  # examples, not secrets
    if spec.define_by_run:
        return Preview((), None, None, False, _cost(spec))
    drawn = tuple(sample(space, rng) for _ in range(samples))
    exhaustible = spec.seeds is None and space.is_listed(spec.budget.trials)
    return Preview(drawn, space.size, space.size_at_most, exhaustible, _cost(spec))


def told_size(spec: StudySpec, seen: Preview) -> str:
    """How large the space is, in words."""
    if spec.define_by_run:
        return "declares its parameters while it runs"
    if seen.size_at_most is None:
        size = "continuous"
    elif seen.size is None:
        size = f"at most {_count_text(seen.size_at_most)} configurations"
    else:
        size = f"{_count_text(seen.size)} configurations"
    return f"{len(spec.parameters)} parameter{'' if len(spec.parameters) == 1 else 's'}, {size}" + (
        ": the budget tries them all" if seen.exhaustible else ""
    )


def _count_text(count: int) -> str:
    """All digits of a count, as long as they can be read."""
    return f"{count:,}" if count < 10**15 else f"about {Decimal(count):.1e}"


def told_cost(spec: StudySpec, cost: Cost) -> Iterator[str]:
    """What the budget means, in words."""
    budget = spec.budget
    limits = [f"{budget.trials} trials" if budget.trials else ""]
    limits.append(f"{duration(budget.wall)} of wall time" if budget.wall else "")
    limits.append(f"{budget.gpu_hours:g} GPU hours" if budget.gpu_hours else "")
    several = ", whichever comes first" if sum(map(bool, limits)) > 1 else ""
    yield f"ends after {' or '.join(filter(None, limits))}{several}"
    if cost.gpus_per_trial:
        most = "" if cost.gpu_hours is None else f"at most {cost.gpu_hours:.3g} GPU hours: "
        yield f"a trial holds {cost.gpus_per_trial:g} GPU and {cost.cpus_per_trial:g} CPU; {most}{cost.reason}"


def _cost(spec: StudySpec) -> Cost:
    gpus = spec.resources.gpu * spec.resources.workers
    cpus = spec.resources.cpu * spec.resources.workers
    walls = [bound.seconds for bound in _bounds(spec) if bound.seconds is not None]
    wall_s = min(walls, default=None)
    if not gpus:
        return Cost(
            spec.budget.trials,
            wall_s,
            0.0,
            gpus,
            cpus,
            "a trial asks for no GPU",
        )
    tightest = min(_gpu_bounds(spec, gpus), default=(None, _UNBOUNDED))
    return Cost(spec.budget.trials, wall_s, tightest[0], gpus, cpus, tightest[1])


_UNBOUNDED = "nothing bounds the GPU hours: set `budget.gpu_hours`, or `limits.wall` together with `budget.trials`"


@dataclass(frozen=True, slots=True)
class _Bound:
    """A limit on how long trials run: on the study's clock, and summed over trials."""

    seconds: float | None
    trial_seconds: float | None
    reason: str


def _bounds(spec: StudySpec) -> list[_Bound]:
    at_a_time, bounds = spec.parallelism, []
    if spec.budget.wall is not None:
        summed = None if at_a_time is None else spec.budget.wall * at_a_time
        bounds.append(
            _Bound(
                spec.budget.wall,
                summed,
                f"`budget.wall`, with {at_a_time} trials at a time",
            )
        )
    if spec.budget.trials is not None and spec.limits.wall is not None:
        longest = spec.limits.wall + spec.limits.grace
        summed = spec.budget.trials * longest
        rounds = None if at_a_time is None else -(-spec.budget.trials // at_a_time) * longest
        reason = f"{spec.budget.trials} trials of `limits.wall` each; retries come on top"
        bounds.append(_Bound(rounds, summed, reason))
    return bounds


def _gpu_bounds(spec: StudySpec, gpus: float) -> list[tuple[float, str]]:
    """GPU hours that each limit allows, with the limit's name."""
    by_time = [(b.trial_seconds * gpus / 3600, b.reason) for b in _bounds(spec) if b.trial_seconds is not None]
    budget = spec.budget.gpu_hours
    return by_time if budget is None else [*by_time, (budget, "`budget.gpu_hours`")]
