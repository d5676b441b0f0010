"""Ray Tune's search algorithms as our samplers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesvc.errors import SpecError
from tunesvc.execution.objectives.ray_tune_space import constants_of

_NEAREST = {
    "HyperOptSearch": "OptunaSearch is the same estimator, TPE; or leave it out: `auto`",
    "Repeater": "train every configuration with several seeds by `evaluation: {repeats: 3}`, or "
    "`tune confirm`",
}


@dataclass(frozen=True, slots=True)
class SearchChoice:
    """Part of a study that a search algorithm decides."""

    sampler: Any
    """A name, or Optuna's object."""
    metrics: Mapping[str, str]
    """Mode of each metric that it names itself."""
    parallelism: int | None
    points: Sequence[Mapping[str, Any]] = ()
    """Configurations to be tried first, flat."""


def choice_of(algorithm: Any) -> SearchChoice:
    """Translate `search_alg`; without one `auto` proposes.

    Raises:
        SpecError: it exists in Ray Tune only.
    """
    kind = "BasicVariantGenerator" if algorithm is None else type(algorithm).__name__
    if kind == "ConcurrencyLimiter":
        return replace(choice_of(algorithm.searcher), parallelism=algorithm.max_concurrent)
    if algorithm is None:
        return SearchChoice("auto", {}, None)
    if kind == "BasicVariantGenerator":
        return SearchChoice("random", {}, algorithm.max_concurrent or None, _points(algorithm))
    if kind == "OptunaSearch":
        return _optuna(algorithm)
    instead = _NEAREST.get(
        kind, "leave it out: `auto` proposes; other libraries: docs/searchers.md"
    )
    raise SpecError(f"search_alg {kind} runs in Ray Tune only: {instead}")


def _optuna(algorithm: Any) -> SearchChoice:
    if callable(algorithm._space):
        raise SpecError(
            "OptunaSearch with a define-by-run function: make it the objective itself,"
            " a function of Optuna's `trial` (docs/concepts.md)"
        )
    if algorithm._space:
        raise SpecError("OptunaSearch with a space of its own: pass it as param_space")
    if algorithm._evaluated_rewards:
        raise SpecError(
            "OptunaSearch with evaluated_rewards: add them to a study of tunesvc.storage(), and"
            ' name that one, study_options={"warm_start": "earlier"}'
        )
    # Optuna's module is loaded, since the algorithm has one of its samplers.
    from optuna.samplers import TPESampler

    sampler = algorithm._sampler
    is_plain = sampler is None or type(sampler) is TPESampler
    names = algorithm._metric or ()
    names = [names] if isinstance(names, str) else list(names)
    modes = algorithm._mode or ()
    modes = [modes] if isinstance(modes, str) else list(modes)
    pairs = dict(zip(names, modes, strict=False))
    return SearchChoice("tpe" if is_plain else sampler, pairs, None, _points(algorithm))


def _points(algorithm: Any) -> list[dict[str, Any]]:
    """Return `points_to_evaluate`; nested values are named by path, as in the space."""
    return [constants_of(point) for point in algorithm._points_to_evaluate]
