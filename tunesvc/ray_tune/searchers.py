"""Ray Tune's search algorithms as our samplers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesvc.errors import SpecError

_NEAREST = {
    "HyperOptSearch": "OptunaSearch is the same estimator, TPE; or leave it out: `auto`",
    "Repeater": "train every configuration with several seeds by `seeds`, or `tune confirm`",
}


@dataclass(frozen=True, slots=True)
class SearchChoice:
    """Part of a study that a search algorithm decides."""

    sampler: Any
    """A name, or Optuna's object."""
    metrics: Mapping[str, str]
    """Mode of each metric that it names itself."""
    parallelism: int | None


def choice_of(algorithm: Any) -> SearchChoice:
    """Translate `search_alg`; without one `auto` proposes.

    Raises:
        SpecError: it exists in Ray Tune only.
    """
    kind = "BasicVariantGenerator" if algorithm is None else type(algorithm).__name__
    if kind == "ConcurrencyLimiter":
        inner = choice_of(algorithm.searcher)
        return SearchChoice(inner.sampler, inner.metrics, algorithm.max_concurrent)
    if algorithm is None:
        return SearchChoice("auto", {}, None)
    if getattr(algorithm, "_points_to_evaluate", None):
        text = f"{kind} with points_to_evaluate: enqueue them in the running study instead"
        raise SpecError(f"{text}, `tune enqueue STUDY name=value` or study.enqueue({{...}})")
    if kind == "BasicVariantGenerator":
        return SearchChoice("random", {}, algorithm.max_concurrent or None)
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
    # Optuna's module is loaded, since the algorithm has one of its samplers.
    from optuna.samplers import TPESampler

    sampler = algorithm._sampler
    is_plain = sampler is None or type(sampler) is TPESampler
    names = algorithm._metric or ()
    names = [names] if isinstance(names, str) else list(names)
    modes = algorithm._mode or ()
    modes = [modes] if isinstance(modes, str) else list(modes)
    pairs = dict(zip(names, modes, strict=False))
    return SearchChoice("tpe" if is_plain else sampler, pairs, None)
