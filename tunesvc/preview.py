"""Preview of a study: sample configurations, the size of its space, its largest cost.

Pure: values, and the sentences about them.
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
    """Most that the budget allows. None where nothing limits it."""

    trials: int | None
    wall_s: float | None
    """Running time of the study: its wall budget, or all trials of `limits.wall` each."""
    gpu_hours: float | None
    gpus_per_trial: float
    """GPUs of all workers of a trial together."""
    cpus_per_trial: float
    reason: str
    """Limit of the GPU hours, or a possible one."""
    money: float | None = None
    """Cost at the study's prices; None without."""


@dataclass(frozen=True, slots=True)
class Preview:
    """Preview of a study."""

    samples: tuple[Mapping[str, ParamValue], ...]
    """Uniform samples with active parameters only;
    empty if the objective declares its parameters."""
    size: int | None
    """Number of configurations; None if a parameter is continuous or unknown,
    or there are too many."""
    size_at_most: int | None
    """Bound on the size; None if a parameter is continuous or unknown."""
    exhaustible: bool
    """True if the budget tries every configuration once, and no turns of seeds declare noise."""
    cost: Cost


def preview(spec: StudySpec, *, samples: int = 5, seed: int = 0) -> Preview:
    """Make a preview; `seed` decides which samples are drawn."""
    space, rng = Space(spec.parameters), Random(seed)  # noqa: S311  # examples, not secrets
    if spec.define_by_run:
        return Preview((), None, None, False, _cost(spec))
    drawn = tuple(sample(space, rng) for _ in range(samples))
    exhaustible = spec.shared_blocks is None and space.is_listed(spec.budget.trials)
    return Preview(
        drawn,
        space.size,
        space.size_at_most,
        exhaustible,
        _cost(spec),
    )


def describe_size(spec: StudySpec, seen: Preview) -> str:
    """Describe the size of the space."""
    if spec.define_by_run:
        return "declares its parameters while it runs"
    if seen.size_at_most is None:
        size = "continuous"
    elif seen.size is None:
        size = f"at most {_count_text(seen.size_at_most)} configurations"
    else:
        size = f"{_count_text(seen.size)} configurations"
    if seen.exhaustible:
        size += ": the budget tries them all"
    plural = "" if len(spec.parameters) == 1 else "s"
    return f"{len(spec.parameters)} parameter{plural}, {size}"


def _count_text(count: int) -> str:
    """Format a count with all digits, as long as they are readable."""
    return f"{count:,}" if count < 10**15 else f"about {Decimal(count):.1e}"


def describe_cost(spec: StudySpec, cost: Cost) -> Iterator[str]:
    """Describe the limits of the budget, and its largest cost."""
    budget = spec.budget
    limits = []
    if budget.trials:
        limits.append(f"{budget.trials} trials")
    if budget.wall:
        limits.append(f"{duration(budget.wall)} of wall time")
    if budget.gpu_hours:
        limits.append(f"{budget.gpu_hours:g} GPU hours")
    if budget.cost and spec.cost:
        limits.append(spec.cost.format(budget.cost))
    several = ", whichever comes first" if len(limits) > 1 else ""
    yield f"ends after {' or '.join(limits)}{several}"
    if cost.gpus_per_trial:
        held = f"{cost.gpus_per_trial:g} GPU and {cost.cpus_per_trial:g} CPU"
        most = ""
        if cost.gpu_hours is not None:
            most = f"at most {cost.gpu_hours:.3g} GPU hours: "
        yield f"a trial holds {held}; {most}{cost.reason}"
    if spec.cost is not None:
        an_hour = spec.cost.format(spec.cost.cost(cost.cpus_per_trial, cost.gpus_per_trial))
        bound = ""
        if cost.money is not None:
            bound = f", the study at most {spec.cost.format(cost.money)}"
        yield f"an hour of a trial costs {an_hour}{bound}"


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
            _money(spec, cpus, gpus),
        )
    tightest = min(_gpu_bounds(spec, gpus), default=(None, _UNBOUNDED))
    return Cost(
        spec.budget.trials,
        wall_s,
        tightest[0],
        gpus,
        cpus,
        tightest[1],
        _money(spec, cpus, gpus),
    )


def _money(spec: StudySpec, cpus: float, gpus: float) -> float | None:
    """Return the most that the study may cost; None without prices, or if nothing limits it."""
    if spec.cost is None:
        return None
    an_hour = spec.cost.cost(cpus, gpus)
    summed = [bound.trial_seconds for bound in _bounds(spec) if bound.trial_seconds is not None]
    limits = [seconds / 3600 * an_hour for seconds in summed]
    if spec.budget.gpu_hours is not None and gpus:
        limits.append(spec.budget.gpu_hours / gpus * an_hour)
    if spec.budget.cost is not None:
        limits.append(spec.budget.cost)
    return min(limits, default=None)


_UNBOUNDED = "nothing bounds the GPU hours: set `budget.gpu_hours`"
_UNBOUNDED += ", or `limits.wall` together with `budget.trials`"


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
        reason = f"`budget.wall`, with {at_a_time} trials at a time"
        bounds.append(_Bound(spec.budget.wall, summed, reason))
    if spec.budget.trials is not None and spec.limits.wall is not None:
        longest = spec.limits.wall + spec.limits.grace
        summed = spec.budget.trials * longest
        rounds = None
        if at_a_time is not None:
            rounds = -(-spec.budget.trials // at_a_time) * longest
        reason = f"{spec.budget.trials} trials of `limits.wall` each; retries come on top"
        bounds.append(_Bound(rounds, summed, reason))
    return bounds


def _gpu_bounds(spec: StudySpec, gpus: float) -> list[tuple[float, str]]:
    """Return the GPU hours that each limit allows, with the limit's name."""
    bounds = []
    for bound in _bounds(spec):
        if bound.trial_seconds is None:
            continue
        bounds.append((bound.trial_seconds * gpus / 3600, bound.reason))
    if spec.budget.gpu_hours is not None:
        bounds.append((spec.budget.gpu_hours, "`budget.gpu_hours`"))
    return bounds
