"""`TuneSearchCV` with scikit-learn's own estimators, on a real Postgres."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GroupKFold, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import check_estimator

from tests.support.integrations_page import run_snippet
from tunesvc import Choice, Float, Int
from tunesvc.db.engine.database import Database
from tunesvc.errors import StudyExists
from tunesvc.integrations import TuneSearchCV

X, Y = make_classification(150, 6, class_sep=1.5, flip_y=0.1, random_state=0)
PIPELINE = make_pipeline(StandardScaler(), SVC())
SPACE = {"svc__C": loguniform(1e-3, 1e3), "svc__gamma": Float(1e-4, 1e1, log=True)}


@pytest.fixture
def search(shared_database: Database) -> Callable[..., Any]:
    """Make a search on the tests' database."""
    url = shared_database.engine.url.render_as_string(hide_password=False)

    def make(estimator: Any, space: Any, **keywords: Any) -> Any:
        options = {"database_url": url, **keywords.pop("options", {})}
        keywords = {"n_trials": 4, "cv": 3, "random_state": 0} | keywords
        return TuneSearchCV(estimator, space, options=options, **keywords)

    return make


class Counting(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Counts fits, and fails or is interrupted by request."""

    fits = 0
    interrupted_at = -1

    def __init__(self, shift: float = 0.0, mode: str = "") -> None:
        self.shift = shift
        self.mode = mode

    def fit(self, X: Any, y: Any) -> Counting:  # noqa: N803
        Counting.fits += 1
        if Counting.fits == Counting.interrupted_at:
            raise KeyboardInterrupt
        if self.mode == "fails" or (self.mode == "sometimes" and self.shift > 0.5):
            raise RuntimeError(f"broken at {self.shift > 0.5} \0")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:  # noqa: N803
        return (X[:, 0] + self.shift > 0).astype(int)


@pytest.fixture
def counting() -> type[Counting]:
    Counting.fits, Counting.interrupted_at = 0, -1
    return Counting


def test_it_replaces_a_randomized_search(search: Callable[..., Any]) -> None:
    """Same attributes and columns; pruned trials miss folds, and are ranked last."""
    tuned = search(PIPELINE, SPACE, n_trials=14, cv=5, return_train_score=True).fit(X, Y)
    other = RandomizedSearchCV(
        PIPELINE, {"svc__C": [1.0], "svc__gamma": [0.1]}, n_iter=1, cv=5, return_train_score=True
    ).fit(X, Y)
    assert tuned.cv_results_.keys() == other.cv_results_.keys()
    public = {name for name in vars(other) if name.endswith("_")}
    assert public <= vars(tuned).keys()
    assert tuned.score(X, Y) == tuned.best_estimator_.score(X, Y) > 0.8
    assert tuned.best_estimator_.get_params()["svc__C"] == tuned.best_params_["svc__C"]
    missing = np.isnan(tuned.cv_results_["split4_test_score"])
    assert 0 < missing.sum() < 14
    assert missing.tolist() == tuned.pruned_.tolist()
    assert not np.isnan(tuned.cv_results_["split0_test_score"]).any()
    ranks = tuned.cv_results_["rank_test_score"]
    assert ranks[missing].min() > ranks[~missing].max()
    assert tuned.study_.view.counts.pruned == missing.sum()
    assert len(tuned.trial_numbers_) == 14


def test_a_random_state_repeats_a_search(search: Callable[..., Any]) -> None:
    first, second = (search(PIPELINE, SPACE, n_trials=12).fit(X, Y) for _ in range(2))
    assert first.study_name_ != second.study_name_
    assert first.cv_results_["params"] == second.cv_results_["params"]
    assert first.pruned_.tolist() == second.pruned_.tolist()


def test_a_name_continues_a_search_of_the_same_data(
    search: Callable[..., Any], counting: type[Counting]
) -> None:
    space = {"shift": Float(-1.0, 1.0)}
    first = search(counting(), space, name="named", n_trials=3, refit=False).fit(X, Y)
    assert counting.fits == 9
    again = search(counting(), space, name="named", n_trials=3, refit=False).fit(X, Y)
    assert counting.fits == 9
    np.testing.assert_equal(again.cv_results_, first.cv_results_)
    more = search(counting(), space, name="named", n_trials=4, refit=False).fit(X, Y)
    assert 9 < counting.fits <= 12
    assert more.cv_results_["params"][:3] == first.cv_results_["params"]
    with pytest.raises(StudyExists, match="other data.*`tune rm named`"):
        search(counting(), space, name="named").fit(X[:100], Y[:100])


def test_ctrl_c_ends_a_search_that_continues_later(
    search: Callable[..., Any], counting: type[Counting]
) -> None:
    space, unpruned = {"shift": Float(-1.0, 1.0)}, {"pruner": "none"}
    interrupted = search(counting(), space, name="broken off", refit=False, options=unpruned)
    counting.interrupted_at = 8
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(X, Y)
    assert "coordinator" not in {thread.name for thread in threading.enumerate()}
    assert not hasattr(interrupted, "cv_results_")
    counting.interrupted_at, done = -1, counting.fits
    continued = search(counting(), space, name="broken off", refit=False, options=unpruned).fit(
        X, Y
    )
    assert counting.fits == done + 12 - 6  # two trials were complete
    whole = search(counting(), space, refit=False, options=unpruned).fit(X, Y)
    assert continued.cv_results_["params"] == whole.cv_results_["params"]


def test_fits_that_fail_are_scored_or_raised(
    search: Callable[..., Any], counting: type[Counting]
) -> None:
    space = {"shift": [0.0, 1.0]}
    with pytest.warns(FitFailedWarning, match="3 fits failed(.|\n)*broken at True"):
        some = search(counting(mode="sometimes"), space, n_trials=2, error_score=-1).fit(X, Y)
    scores = some.cv_results_["mean_test_score"]
    assert scores.min() == -1
    assert some.best_params_ == {"shift": 0.0}
    with pytest.raises(ValueError, match="All the 6 fits failed(.|\n)*broken at"):
        search(counting(mode="fails"), space, n_trials=2).fit(X, Y)
    counting.fits = 0
    with pytest.raises(RuntimeError, match="^broken at"):
        search(counting(mode="fails"), space, n_trials=2, error_score="raise").fit(X, Y)
    assert counting.fits == 1
    with pytest.raises(ValueError, match="Invalid parameter 'unknown'"):
        search(counting(), {"unknown": [1, 2]}).fit(X, Y)


def test_early_stopping_counts_epochs(search: Callable[..., Any]) -> None:
    """The best estimator is trained by the same epochs."""
    pipeline = make_pipeline(StandardScaler(), SGDClassifier(random_state=0))
    space = {"sgdclassifier__alpha": Float(1e-6, 10.0, log=True)}
    tuned = search(pipeline, space, n_trials=12, early_stopping=4).fit(X, Y)
    assert tuned.pruned_.any()
    assert tuned.best_estimator_[-1].t_ == 4 * len(X) + 1
    curves = tuned.study_.curves()
    assert len(curves) == 3  # the fourth step is the result
    assert not np.isnan(tuned.cv_results_["mean_test_score"][~tuned.pruned_]).any()


def test_early_stopping_grows_ensembles(search: Callable[..., Any]) -> None:
    forest = GradientBoostingClassifier(n_estimators=12, random_state=0)
    space = {"learning_rate": Float(0.01, 1.0, log=True), "n_estimators": Int(8, 12)}
    grown = search(forest, space, n_trials=2, early_stopping=3).fit(X, Y)
    plain = search(forest, space, n_trials=2, options={"pruner": "none"}).fit(X, Y)
    best = grown.best_estimator_
    assert best.n_estimators == best.n_estimators_ == grown.best_params_["n_estimators"]
    assert grown.cv_results_["params"] == plain.cv_results_["params"]
    scores = [one.cv_results_["mean_test_score"] for one in (grown, plain)]
    np.testing.assert_allclose(*scores)
    with pytest.raises(ValueError, match="early_stopping needs .*: SVC has neither"):
        search(SVC(), {"C": [1.0]}, early_stopping=True).fit(X, Y)


def test_several_metrics_groups_weights_and_objects(search: Callable[..., Any]) -> None:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    space = {
        "standardscaler": [StandardScaler(), "passthrough", None],
        "logisticregression__C": [1],
    }
    groups = np.arange(len(X)) % 4
    tuned = search(
        pipeline,
        space,
        scoring=["accuracy", "roc_auc"],
        refit="roc_auc",
        cv=GroupKFold(4),
        options={"pruner": "none"},
    )
    tuned.fit(X, Y, groups=groups, logisticregression__sample_weight=np.ones(len(X)))
    assert tuned.n_splits_ == 4
    assert tuned.study_.view.objectives[0].name == "roc_auc"
    steps = {repr(params["standardscaler"]) for params in tuned.cv_results_["params"]}
    assert steps == {"StandardScaler()", "'passthrough'", "None"}  # all there are, then it ends
    assert {"mean_test_accuracy", "split3_test_roc_auc"} <= tuned.cv_results_.keys()


def test_it_can_be_cloned_and_a_fitted_one_pickled(search: Callable[..., Any]) -> None:
    tuned = search(Ridge(), {"alpha": Choice(0.1, 1.0)}, n_trials=2)
    assert clone(tuned).get_params()["param_distributions"] == {"alpha": Choice(0.1, 1.0)}
    tuned.fit(X, X[:, 0])
    copy = pickle.loads(pickle.dumps(tuned))  # noqa: S301
    np.testing.assert_array_equal(copy.predict(X), tuned.predict(X))
    assert copy.study_.view.state == "finished"


@pytest.mark.slow
def test_the_snippet_of_its_page(
    shared_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = shared_database.engine.url.render_as_string(hide_password=False)
    monkeypatch.setenv("TUNE_DATABASE_URL", url)
    search = run_snippet("RandomizedSearchCV", tmp_path / "snippet.py")["search"]
    assert search.best_score_ > 0.95
    assert search.pruned_.any()
    assert search.study_.view.state == "finished"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "space", "failing"),
    [
        (LogisticRegression(), {"C": [0.1, 1.0]}, set()),
        (Ridge(), {"alpha": [0.1, 1.0]}, {"check_supervised_y_2d"}),  # as RandomizedSearchCV
    ],
    ids=["classifier", "regressor"],
)
@pytest.mark.filterwarnings("ignore")
def test_it_passes_scikit_learns_checks(
    search: Callable[..., Any], estimator: Any, space: Any, failing: set[str]
) -> None:
    checked = search(estimator, space, n_trials=2, cv=2, error_score="raise")
    results = check_estimator(checked, on_fail=None)
    assert {one["check_name"] for one in results if one["status"] == "failed"} == failing
    assert len(results) > 60


@pytest.mark.slow
def test_rays_workers_find_what_this_process_finds(
    search: Callable[..., Any], local_ray: None
) -> None:
    options = {"sampler": "random", "pruner": "none"}
    here = search(PIPELINE, SPACE, n_trials=6, options=options).fit(X, Y)
    there = search(PIPELINE, SPACE, n_trials=6, options=options, n_jobs=2).fit(X, Y)
    assert there.cv_results_["params"] == here.cv_results_["params"]
    names = [f"split{fold}_test_score" for fold in range(3)]
    for name in names:
        np.testing.assert_array_equal(there.cv_results_[name], here.cv_results_[name])
    with pytest.raises(ValueError, match="Invalid parameter 'unknown'"):
        search(SVC(), {"unknown": [1, 2]}, n_jobs=2).fit(X, Y)
