"""Folds, repeats and seeds with which a trial calls its objective."""

from __future__ import annotations

from tunesvc.execution.executor import Block
from tunesvc.search.training_seeds import training_seed
from tunesvc.spec import StudySpec


def blocks_of(spec: StudySpec, number: int, fixed_seed: int | None = None) -> list[Block]:
    """Return the calls of the objective that make a trial; one without `evaluation`.

    Args:
        spec: of the study.
        number: the trial's.
        fixed_seed: seed that the trial must be trained with. If it evaluates one fold, that follows
            from the seed, so that trials with equal seeds can be compared.
    """
    evaluation, seed = spec.evaluation, spec.seed or 0
    if evaluation is None or not evaluation.has_blocks:
        return [
            Block(0, 0, training_seed(seed, number, None) if fixed_seed is None else fixed_seed)
        ]
    turn_of = number if fixed_seed is None or evaluation.is_stepwise else fixed_seed
    return [
        Block(
            step,
            index,
            training_seed(seed, index, evaluation.count) if fixed_seed is None else fixed_seed,
        )
        for step, index in enumerate(evaluation.block_indices(turn_of))
    ]
