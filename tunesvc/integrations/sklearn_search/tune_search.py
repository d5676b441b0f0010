"""`TuneSearchCV`: an estimator that searches by a study, in place of `RandomizedSearchCV`.

The study has a name and is stored, so that `tune ls` and the dashboard show it, and a fit that was
interrupted continues. With `n_jobs=None` the folds are computed in this process, without Ray.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import joblib
import numpy as np
from optuna.trial import FrozenTrial, TrialState
from sklearn.base import clone, is_classifier
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state, indexable

from tunesvc import api
from tunesvc.errors import StudyExists, StudyNotFound
from tunesvc.execution.inline_executor import InlineExecutor, work_beside
from tunesvc.integrations.sklearn_search import sklearn_internals as internals
from tunesvc.integrations.sklearn_search.cross_validation import (
    FOLDS,
    RAISED,
    CrossValidation,
    FoldResult,
    restored_error,
)
from tunesvc.integrations.sklearn_search.param_space import ParamSpace
from tunesvc.integrations.sklearn_search.training_steps import check_steps, train_in_steps
from tunesvc.spec import StudySpec
from tunesvc.spec.yaml.document import spec_from_dict

if TYPE_CHECKING:
    from tunesvc.study import Study

STEPS = 10
"""Steps of training if `early_stopping` is True."""
_NEEDS_RAY = {"agents", "cluster", "environment", "limits", "resources"}
"""Keys of a study about workers."""
_DIGEST = "fitted_to"
"""Constant of a named study: what its trials were fitted to."""


class TuneSearchCV(internals.BaseSearchCV):
    """Cross-validated search over hyperparameters, by Bayesian optimisation and pruning.

    Used as `RandomizedSearchCV`, with the same attributes, and `study_name_`. Each trial computes
    one fold after the other, and stops after a fold if its chance to become the best is small. Such
    a trial is in `cv_results_` too: its other folds are NaN, its rank is the last. For each row of
    `cv_results_`, `trial_numbers_` has the number of its trial, and `pruned_` whether it stopped.

    scikit-learn's callbacks (`set_callbacks`) are not called; `verbose` shows the progress.

    Args:
        estimator: the estimator to tune, perhaps a pipeline.
        param_distributions: name -> `Float`, `Int`, `Choice`, a list, or a distribution of
            scipy.stats, of which only the range counts; or a list of such dicts.
        n_trials: number of candidates.
        timeout: seconds after which no more candidates are begun.
        scoring: as in `RandomizedSearchCV`. Of several metrics, the search is for the one that
            `refit` names, else for the first.
        n_jobs: number of candidates at a time. None or 1: in this process, and reproducible with a
            `random_state`. More, or -1 for all cores: in Ray's workers.
        refit: as in `RandomizedSearchCV`.
        cv: as in `RandomizedSearchCV`.
        verbose: above 0, show the study's progress; above 1, also scikit-learn's messages.
        random_state: seeds the search.
        error_score: as in `RandomizedSearchCV`.
        return_train_score: as in `RandomizedSearchCV`.
        early_stopping: True or a number of steps, 10 by default: train all folds of a candidate
            side by side, and stop it after poor steps. A step is an epoch of `partial_fit`, or an
            equal share of the trees of an ensemble with `warm_start`.
        name: the study's name. Another fit with the same name and data continues it. By default
            each fit has a new one.
        options: other keys of study.yaml, such as `sampler`, `pruner`, `resources` and `cluster`;
            and `database_url`.
    """

    _parameter_constraints: Mapping[str, Any] = {  # as scikit-learn has it
        **{
            name: allowed
            for name, allowed in internals.BaseSearchCV._parameter_constraints.items()
            if name != "pre_dispatch"
        },
        "param_distributions": [dict, list],
        "n_trials": [internals.Interval(internals.Integral, 1, None, closed="left")],
        "timeout": [internals.Interval(internals.Real, 0, None, closed="neither"), None],
        "random_state": ["random_state"],
        "early_stopping": [
            "boolean",
            internals.Interval(internals.Integral, 1, None, closed="left"),
        ],
        "name": [str, None],
        "options": [dict, None],
    }

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_trials: int = 50,
        timeout: float | None = None,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        early_stopping: bool | int = False,
        name: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            estimator=estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_distributions = param_distributions
        self.n_trials = n_trials
        self.timeout = timeout
        self.random_state = random_state
        self.early_stopping = early_stopping
        self.name = name
        self.options = options

    @property
    def study_(self) -> Study:
        """The study of the last fit."""
        database_url = (self.options or {}).get("database_url")
        return api.load_study(self.study_name_, database_url=database_url)

    @internals.fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, **params: Any) -> TuneSearchCV:  # noqa: N803
        """Search, then fit the best candidate to all data.

        Args:
            X: training data.
            y: target.
            params: passed to the estimator's `fit`, to scorers and to the splitter, such as
                `groups`. What is as long as X is split with it.

        Raises:
            ValueError: a parameter is invalid, or all fits failed.
            StudyExists: the named study was fitted to something else.
        """
        scorers, refit_metric = self._get_scorers()
        X, y = indexable(X, y)  # noqa: N806
        params = internals.check_method_params(X, params=params)
        routed = self._get_routed_params_for_fit(params)
        evaluation = self._evaluation(X, y, scorers, routed)
        self.n_splits_ = len(evaluation.splits)
        trials = self._search(evaluation)
        results, first_score = self._results(trials, evaluation)
        self.multimetric_ = isinstance(first_score, dict)
        if callable(self.scoring) and self.multimetric_:
            self._check_refit_for_multimetric(first_score)
            refit_metric = self.refit
        if self.refit or not self.multimetric_:
            self._select(refit_metric, results)
        if self.refit:
            self._refit(evaluation)
        self.scorer_ = getattr(scorers, "_scorers", scorers)
        self.cv_results_ = results
        return self

    # --- before the study -------------------------------------------------------------------------

    def _evaluation(self, X: Any, y: Any, scorers: Any, routed: Any) -> CrossValidation:  # noqa: N803
        cv = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        splits = list(cv.split(X, y, **routed.splitter.split))
        expected = cv.get_n_splits(X, y, **routed.splitter.split)
        if len(splits) != expected:
            raise ValueError(
                "cv.split and cv.get_n_splits return inconsistent results. "
                f"Expected {expected} splits, got {len(splits)}"
            )
        if not splits:
            raise ValueError(
                "No fits were performed. Was the CV iterator empty? Were there no candidates?"
            )
        return CrossValidation(
            clone(self.estimator),
            ParamSpace.of(self.param_distributions),
            X,
            y,
            splits,
            scorers,
            self._metric(scorers),
            routed.estimator.fit,
            {
                "score_params": routed.scorer.score,
                "return_train_score": self.return_train_score,
                "error_score": self.error_score,
                "verbose": self.verbose,
            },
            self._steps(),
        )

    def _metric(self, scorers: Any) -> str:
        """Return the name of the score to search by."""
        if isinstance(self.refit, str):
            return self.refit
        several = getattr(scorers, "_scorers", None)
        if several:
            return str(next(iter(several)))
        return self.scoring if isinstance(self.scoring, str) else "score"

    def _steps(self) -> int:
        if not self.early_stopping:
            return 0
        check_steps(self.estimator)
        return STEPS if self.early_stopping is True else int(self.early_stopping)

    def _spec(self, evaluation: CrossValidation, jobs: int) -> StudySpec:
        options = {
            key: value for key, value in (self.options or {}).items() if key != "database_url"
        }
        kind = type(self.estimator).__name__
        seed = None
        if self.random_state is not None:
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        data = {
            "name": self.name or f"{kind.lower()}-{uuid4().hex[:8]}",
            "description": f"{type(self).__name__}: {kind}, {len(evaluation.splits)} folds",
            "metric": {"name": evaluation.metric, "goal": "maximize"},
            "parameters": evaluation.space.parameters,
            "budget": {"trials": self.n_trials},
            "pruner": {"name": "auto", "resume": False},
            "seed": seed,
            "parallelism": jobs,
            **options,
        }
        if self.timeout is not None:
            data["budget"] = {**data["budget"], "wall": self.timeout}
        if self.name is not None:
            data["constants"] = {_DIGEST: self._digest(evaluation)}
        return spec_from_dict(data, function=evaluation)

    def _digest(self, evaluation: CrossValidation) -> str:
        """Return a digest of what makes trials comparable."""
        parts = evaluation.X, evaluation.y, evaluation.splits, dict(evaluation.fit_params)
        text = repr((self.estimator, self.scoring, evaluation.metric, evaluation.steps))
        return str(joblib.hash((*parts, text)))

    # --- the study --------------------------------------------------------------------------------

    def _search(self, evaluation: CrossValidation) -> list[FrozenTrial]:
        """Run the study, and return its trials."""
        jobs = joblib.effective_n_jobs(self.n_jobs)
        spec = self._spec(evaluation, jobs)
        database_url = (self.options or {}).get("database_url")
        self._check_comparable(spec, database_url)
        run = partial(
            api.run,
            spec,
            database_url=database_url,
            resume=self.name is not None,
            check=False,
            progress=self.verbose > 0,
        )
        if jobs > 1 or _NEEDS_RAY & (self.options or {}).keys():
            study = _on_workers(run, evaluation)
        else:
            executor = InlineExecutor(evaluation, (evaluation.metric,), raises=True)
            inline = partial(run, function=_computed_here, make_executor=lambda job, spec: executor)
            study = work_beside(executor, lambda interrupt: inline(interrupt=interrupt))
        self.study_name_ = study.name
        trials: list[FrozenTrial] = study.optuna().trials
        if not any(FOLDS in trial.user_attrs for trial in trials) and study.failure is not None:
            raise study.failure
        return trials

    def _check_comparable(self, spec: StudySpec, database_url: str | None) -> None:
        if self.name is None:
            return
        try:
            stored = api.load_study(self.name, database_url=database_url).view.spec
        except StudyNotFound:
            return
        if stored is None or stored.constants.get(_DIGEST) != spec.constants[_DIGEST]:
            raise StudyExists(
                f"the study {self.name!r} was fitted to other data, folds, scoring or another "
                f"estimator: give this one another name, or delete that one with "
                f"`tune rm {self.name}`"
            )

    # --- after the study --------------------------------------------------------------------------

    def _results(
        self, trials: list[FrozenTrial], evaluation: CrossValidation
    ) -> tuple[dict[str, Any], Any]:
        """Return `cv_results_`, and the scores of a fold."""
        evaluated = [trial for trial in trials if trial.user_attrs.get(FOLDS)]
        if not evaluated:
            raise ValueError("No fits were performed: the study ended before its first fold.")
        folds: list[list[FoldResult]] = [list(trial.user_attrs[FOLDS]) for trial in evaluated]
        done = [result for one in folds for result in one]
        internals.warn_or_raise_about_fit_failures(done, self.error_score)
        if callable(self.scoring):
            internals.insert_error_scores(done, self.error_score)
        first_score = done[0]["test_scores"]
        padded = [one + [_missing(done[0])] * (self.n_splits_ - len(one)) for one in folds]
        self.trial_numbers_ = np.array([trial.number for trial in evaluated])
        self.pruned_ = np.array([trial.state == TrialState.PRUNED for trial in evaluated])
        with warnings.catch_warnings():
            if all(_is_finite(result) for result in done):
                # Only folds that pruned trials have left out are not.
                warnings.filterwarnings("ignore", "One or more of the", UserWarning)
            results = self._format_results(
                [evaluation.space.decode(trial.params) for trial in evaluated],
                self.n_splits_,
                [result for one in padded for result in one],
            )
        return results, first_score

    def _select(self, refit_metric: Any, results: dict[str, Any]) -> None:
        self.best_index_ = self._select_best_index(self.refit, refit_metric, results)
        if not callable(self.refit):
            self.best_score_ = results[f"mean_test_{refit_metric}"][self.best_index_]
        self.best_params_ = results["params"][self.best_index_]

    def _refit(self, evaluation: CrossValidation) -> None:
        best = clone(evaluation.estimator).set_params(**clone(self.best_params_, safe=False))
        began_s = time.perf_counter()
        if evaluation.steps:
            fit_params = dict(evaluation.fit_params)
            train_in_steps(best, evaluation.steps, evaluation.X, evaluation.y, fit_params)
        elif evaluation.y is not None:
            best.fit(evaluation.X, evaluation.y, **evaluation.fit_params)
        else:
            best.fit(evaluation.X, **evaluation.fit_params)
        self.refit_time_ = time.perf_counter() - began_s
        self.best_estimator_ = best
        if hasattr(best, "feature_names_in_"):
            self.feature_names_in_ = best.feature_names_in_


def _computed_here(config: dict[str, Any]) -> None:
    """The objective as workers would get it, if there were any."""


def _on_workers(run: Callable[..., Study], evaluation: CrossValidation) -> Study:
    """Run the study on Ray's workers.

    Raises:
        Exception: a worker raised it; the study has been stopped.
    """
    errors: list[Exception] = []

    def stop_at_error(study: Any, trial: FrozenTrial) -> None:
        if RAISED in trial.user_attrs:
            errors.append(restored_error(trial.user_attrs[RAISED]))
            study.stop()

    study = run(function=evaluation, callbacks=[stop_at_error])
    if errors:
        raise errors[0]
    return study


def _missing(example: FoldResult) -> FoldResult:
    """Return the result of a fold that was not computed."""
    missing: FoldResult = {}
    for name, value in example.items():
        nan = dict.fromkeys(value, np.nan) if isinstance(value, dict) else np.nan
        missing[name] = nan
    return missing


def _is_finite(result: FoldResult) -> bool:
    scores = result["test_scores"]
    return bool(np.all(np.isfinite(list(scores.values()) if isinstance(scores, dict) else scores)))
