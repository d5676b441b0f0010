"""Text for terminal and page."""

from __future__ import annotations

import math

from tunesvc.util import formatting


def test_a_violation_names_the_bound_and_by_how_much() -> None:
    broken = {"cost.max": 0.25, "auc.min": 1e-9, "c0": 2.0, "cost.min": math.inf}
    assert formatting.violations(broken) == (
        "cost is 0.25 above its maximum, auc is 1e-09 below its minimum, constraint c0 is 2 above 0, "
        "cost.min is not finite"
    )
