"""The objective of a search: one candidate, fold by fold or by steps of training on all folds."""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from sklearn import config_context, get_config
from sklearn.base import clone

from tunesvc.execution.inline_executor import Steps
from tunesvc.integrations.sklearn_search.param_space import ParamSpace
from tunesvc.integrations.sklearn_search.sklearn_internals import fit_and_score
from tunesvc.integrations.sklearn_search.training_steps import train_step
from tunesvc.trial import Trial
from tunesvc.util.characters import storable

FOLDS = "folds"
"""Attribute of a trial: the results of its folds, in the form of scikit-learn's private ones."""
RAISED = "raised"
"""Attribute of a trial: the exception that ended it. Those of `fit` do so only if `error_score` is
"raise"."""
FoldResult = dict[str, Any]


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Data, folds and scorers. Called with a candidate's parameters, it yields its mean scores."""

    estimator: Any
    space: ParamSpace
    X: Any
    y: Any
    splits: Sequence[tuple[Any, Any]]
    scorer: Any
    metric: str
    """Name of the score to search by; without a score of that name, the first one."""
    fit_params: Mapping[str, Any]
    options: Mapping[str, Any]
    """Keywords of scikit-learn's `fit_and_score`, the same for all folds."""
    steps: int = 0
    """Steps of training to report; 0: report folds."""
    config: Mapping[str, Any] = field(default_factory=get_config)
    """scikit-learn's settings where the search was started."""

    def __call__(self, config: dict[str, Any], *, trial: Trial) -> Steps:
        """Evaluate a candidate; the last step is returned, not yielded."""
        with config_context(**self.config):
            rounds = self._rounds(config)
        while True:
            try:
                with config_context(**self.config):
                    results, is_last = next(rounds)
            except Exception as error:
                _keep(trial, error)
                raise
            trial.set_user_attr(FOLDS, results)
            means = self._means(results)
            if is_last:
                return means
            yield means

    def _rounds(self, config: dict[str, Any]) -> Iterator[tuple[list[FoldResult], bool]]:
        """Yield the results of the folds after each step, and whether it is the last step."""
        parameters = self.space.decode(config)
        if not self.steps:
            results: list[FoldResult] = []
            for index in range(len(self.splits)):
                results.append(self._evaluate(clone(self.estimator), index, parameters))
                yield results, index == len(self.splits) - 1
            return
        models = [clone(self.estimator) for _ in self.splits]
        results = [{"fit_time": 0.0, "score_time": 0.0} for _ in models]
        for step in range(self.steps):
            for index, model in enumerate(models):
                # `fit_and_score` trains by `fit`, which is here one step more of the same model.
                model.fit = partial(self._train, model, step)
                result = self._evaluate(model, index, parameters if step == 0 else None)
                for name in ("fit_time", "score_time"):
                    result[name] += results[index][name]
                results[index] = result
            yield results, step == self.steps - 1

    def _train(self, model: Any, step: int, X: Any, y: Any = None, **fit_params: Any) -> None:  # noqa: N803
        train_step(model, step, self.steps, X, y, fit_params)

    def _evaluate(self, model: Any, index: int, parameters: Any) -> FoldResult:
        train, test = self.splits[index]
        result: FoldResult = fit_and_score(
            model,
            self.X,
            self.y,
            scorer=self.scorer,
            train=train,
            test=test,
            parameters=parameters,
            fit_params=self.fit_params,
            split_progress=(index, len(self.splits)),
            return_n_test_samples=True,
            return_times=True,
            **self.options,
        )
        result["fit_error"] = result["fit_error"] and storable(result["fit_error"])
        return result

    def _means(self, results: Sequence[FoldResult]) -> dict[str, float]:
        """Return the means of the folds' scores, and as `metric` the one to search by."""
        scores = [result["test_scores"] for result in results]
        # A callable scorer that returns a dict has only a number for a fold that failed.
        names = next((list(one) for one in scores if isinstance(one, dict)), [])
        if not names:
            return {self.metric: float(np.mean(scores))}
        several = [one if isinstance(one, dict) else dict.fromkeys(names, one) for one in scores]
        means = {name: float(np.mean([one[name] for one in several])) for name in names}
        return means if self.metric in means else {self.metric: means[names[0]], **means}


def _keep(trial: Trial, error: Exception) -> None:
    """Send the exception to the process that fits, which raises it."""
    kind = next(one.__name__ for one in type(error).__mro__ if one.__module__ == "builtins")
    sent = kind, str(error), "".join(traceback.format_exception(error))
    trial.set_user_attr(RAISED, [storable(text) for text in sent])


def restored_error(sent: Sequence[str]) -> Exception:
    """Return an exception that was sent, of its nearest built-in class, with its traceback as note.

    Attributes come from the database, so nothing in them is executed.
    """
    kind, message, shown = sent
    restored: Exception = RuntimeError(message)
    known = getattr(builtins, kind, None)
    if isinstance(known, type) and issubclass(known, Exception):
        with suppress(TypeError):  # a class that takes other arguments, such as UnicodeDecodeError
            restored = known(message)
    restored.add_note(shown)
    return restored
