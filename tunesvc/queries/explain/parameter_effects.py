"""Effects of a study's parameters and of pairs of them, in sentences.

The effects are those of a model that is fitted to the study.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tunesvc.queries.rows import Objective

if TYPE_CHECKING:
    from tunesvc.search.analysis.interaction_effects import InteractionEffects

NAMED_MAX = 5
"""Parameters named in a sentence."""
PAIRS_MAX = 3
"""Pairs named in a sentence."""
_NOTABLE = 0.2
"""Least interaction that is named, as a part of the largest effect of a parameter."""


def describe_effects(objective: Objective, effects: InteractionEffects) -> Iterator[str]:
    """Yield sentences about the largest effects."""
    own = dict(zip(effects.names, effects.sizes.diagonal().tolist(), strict=True))
    if not any(own.values()):
        return
    listed = ", ".join(f"{name} {size:.3g}" for name, size in list(own.items())[:NAMED_MAX])
    yield f"By the model, parameters typically change {objective.name} by: {listed}."
    notable = [
        f"{first} and {second} {size:.3g}"
        for first, second, size in effects.pairs()
        if size >= _NOTABLE * max(own.values())
    ]
    if notable:
        yield f"Beyond that, pairs act together: {', '.join(notable[:PAIRS_MAX])}."
