"""Calls an objective once for each fold or repeat of a trial, and reports each result as a step.

Between two of them it stops if the trial is pruned. Imports no Ray.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from tunesvc.errors import BadReport, Pruned
from tunesvc.execution.attempt.attempt import Attempt, Run
from tunesvc.execution.executor import Block

_WAIT_MAX_S = 2.0
_BLIND_SHARE = 0.1
"""Longest wait after a fold for the decision on it: a fold that is begun in vain costs more. It
mostly takes 50 ms. A process of its own does not see that, and waits for this share of the fold."""


def run_blocks(run: Run, attempt: Attempt) -> Mapping[str, float]:
    """Run the objective for an attempt, and return its final metrics.

    With several folds or repeats the metrics are those of the last one. A value that is not finite
    ends the trial, since its mean cannot be finite any more.

    Raises:
        BadReport: a fold or repeat has no value of an objective.
        Pruned: the trial was asked to stop.
    """
    evaluation = attempt.job.evaluation
    if evaluation is None or not evaluation.is_stepwise:
        return run(attempt)
    metrics: Mapping[str, float] = {}
    blocks = attempt.launch.blocks
    share = _BLIND_SHARE if attempt.job.environment.isolation == "process" else 1.0
    for block in blocks:
        began_s = time.monotonic()
        attempt.begin_block(block)
        metrics = dict(run(attempt))
        _check(metrics, block, attempt)
        attempt.end_block(block, metrics)
        if not all(math.isfinite(metrics[name]) for name in attempt.job.metrics):
            return metrics
        wait_s = min(_WAIT_MAX_S, share * (time.monotonic() - began_s))
        if block is not blocks[-1] and attempt.await_decision(wait_s):
            raise Pruned(f"trial {attempt.launch.trial_number} stops after step {block.step}")
    return metrics


def _check(metrics: Mapping[str, float], block: Block, attempt: Attempt) -> None:
    missing = [name for name in attempt.job.metrics if name not in metrics]
    if not missing:
        return
    if not metrics and attempt.noticed_stop:
        raise Pruned(f"trial {attempt.launch.trial_number} stopped in step {block.step}")
    noun = "fold" if attempt.job.evaluation is None else attempt.job.evaluation.noun[:-1]
    raise BadReport(f"{noun} {block.index} has no value of {', '.join(missing)}: return it")
