"""Chart of the effects of parameters and of pairs of them, by the model."""

from __future__ import annotations

from tunesvc.charts.chart import Chart, heatmap, notes
from tunesvc.queries.rows import Objective
from tunesvc.search.analysis.interaction_effects import InteractionEffects

_COLOURS = [[0, "#f3f5f9"], [1, "#2f5fe0"]]


def interactions(
    objective: Objective,
    effects: InteractionEffects | None,
    trials: int = 0,
) -> Chart:
    """Draw own effects on the diagonal, and beside it what pairs do beyond their sum.

    Args:
        objective: whose values the effects change.
        effects: of the model; None while it has too few trials.
        trials: that the model was fitted to.
    """
    title = f"Interactions in {objective.name}"
    if effects is None:
        return Chart(title, None, "The model needs a few more complete trials.")
    names = effects.names
    if len(names) < 2:
        return Chart(title, None, "There is one parameter only.")
    return Chart(
        title,
        heatmap(names, effects.sizes, texttemplate="%{z:.2g}", zmin=0, colorscale=_COLOURS),
        notes(
            "diagonal: typical effect of a parameter by itself; beside it: of two beyond their sum",
            f"a model of {trials} trials",
        ),
        columns={
            "": list(names),
            **{name: effects.sizes[:, i].tolist() for i, name in enumerate(names)},
        },
    )
