"""Twenty searches as scikit-learn's users make them: real training, conditional parameters.

A training takes 2 to 40 ms on one thread. Data come with scikit-learn or are made by it from fixed
seeds. `HELD_OUT` tasks are half of all, by a checksum of their names: nothing may be tuned on them.
"""

from __future__ import annotations

import functools
import math
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from sklearn import datasets, metrics
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import Lasso, LogisticRegression, Ridge, SGDClassifier, SGDRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    MinMaxScaler,
    PolynomialFeatures,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier

Params = Mapping[str, Any]
Parameters = Mapping[str, Mapping[str, Any]]
Loss = Callable[[BaseEstimator, np.ndarray, np.ndarray], float]


@dataclass(frozen=True)
class Task:
    """A model to be tuned on data."""

    name: str
    family: str
    data: Callable[[], tuple[np.ndarray, np.ndarray]]
    trained: int
    """Rows for training; the rest of the data is for testing."""
    loss: Loss
    parameters: Parameters
    """Space, as `parameters` of a study file."""
    build: Callable[[Params, int], BaseEstimator]
    """Makes a model from parameters and a seed."""
    redrawn: bool = False
    """True if each trial splits the data by itself, as without `random_state`; else all trials of
    a study have the same split."""

    @property
    def held_out(self) -> bool:
        """True if nothing may be tuned on this task."""
        return zlib.crc32(self.name.encode()) % 2 == 1

    def train(self, params: Params, split: int, seed: int) -> float:
        """Return the loss on test data; NaN if the training fails."""
        features, target = self.data()
        order = np.random.default_rng([split, 5]).permutation(len(target))
        train, test = order[: self.trained], order[self.trained :]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            with sklearn.config_context(skip_parameter_validation=True):
                try:
                    model = self.build(params, seed).fit(features[train], target[train])
                    return float(self.loss(model, features[test], target[test]))
                except (ValueError, OverflowError, FloatingPointError, np.linalg.LinAlgError):
                    return math.nan


# --- losses -------------------------------------------------------------------------------------


def _error(model: Any, features: np.ndarray, target: np.ndarray) -> float:
    return float((model.predict(features) != target).mean())


def _log_loss(model: Any, features: np.ndarray, target: np.ndarray) -> float:
    return float(metrics.log_loss(target, model.predict_proba(features), labels=model.classes_))


def _rms(model: Any, features: np.ndarray, target: np.ndarray) -> float:
    return float(np.sqrt(((model.predict(features) - target) ** 2).mean()))


def _unexplained(model: Any, features: np.ndarray, target: np.ndarray) -> float:
    """1 - R²: it grows to 1e20 and more where a training diverges."""
    return float(((model.predict(features) - target) ** 2).mean() / target.var())


# --- data ---------------------------------------------------------------------------------------


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    features, target = datasets.load_digits(return_X_y=True)
    return features[:1000] / 16.0, target[:1000]


@functools.cache
def _cancer() -> tuple[np.ndarray, np.ndarray]:
    return datasets.load_breast_cancer(return_X_y=True)  # type: ignore[no-any-return]


@functools.cache
def _wine() -> tuple[np.ndarray, np.ndarray]:
    return datasets.load_wine(return_X_y=True)  # type: ignore[no-any-return]


@functools.cache
def _diabetes() -> tuple[np.ndarray, np.ndarray]:
    features, target = datasets.load_diabetes(return_X_y=True, scaled=False)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    return features, (target - target.mean()) / target.std()


@functools.cache
def _friedman() -> tuple[np.ndarray, np.ndarray]:
    return datasets.make_friedman1(1200, 10, noise=1.0, random_state=3)  # type: ignore[no-any-return]


@functools.cache
def _friedman_scaled() -> tuple[np.ndarray, np.ndarray]:
    features, target = datasets.make_friedman2(1000, noise=50.0, random_state=4)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    return features, (target - target.mean()) / target.std()


@functools.cache
def _clusters() -> tuple[np.ndarray, np.ndarray]:
    return datasets.make_classification(  # type: ignore[no-any-return]
        1500,
        16,
        n_informative=6,
        n_redundant=2,
        n_classes=3,
        n_clusters_per_class=3,
        flip_y=0.03,
        class_sep=1.2,
        random_state=5,
    )


@functools.cache
def _moons() -> tuple[np.ndarray, np.ndarray]:
    features, target = datasets.make_moons(1200, noise=0.25, random_state=6)
    noise = np.random.default_rng(6).normal(size=(len(target), 3))
    return np.hstack([features, noise]), target


# --- parameters ---------------------------------------------------------------------------------


def _number(
    kind: str, low: float, high: float, *, log: bool = False, **when: Any
) -> dict[str, Any]:
    found = {"type": kind, "min": low, "max": high, "log": log}
    return {**found, "when": when} if when else found


def _real(low: float, high: float, **when: Any) -> dict[str, Any]:
    return _number("float", low, high, **when)


def _log(low: float, high: float, **when: Any) -> dict[str, Any]:
    return _number("float", low, high, log=True, **when)


def _int(low: int, high: int, **when: Any) -> dict[str, Any]:
    return _number("int", low, high, **when)


def _log_int(low: int, high: int, **when: Any) -> dict[str, Any]:
    return _number("int", low, high, log=True, **when)


def _choice(*values: Any, **when: Any) -> dict[str, Any]:
    found = {"type": "categorical", "values": list(values)}
    return {**found, "when": when} if when else found


def _taken(params: Params, *names: str) -> dict[str, Any]:
    """Return those of some parameters that exist."""
    return {name: params[name] for name in names if name in params}


# --- support vectors ----------------------------------------------------------------------------

_KERNEL: Parameters = {
    "kernel": _choice("linear", "poly", "rbf", "sigmoid"),
    "C": _log(1e-3, 1e3),
    "gamma": _log(1e-5, 10.0, kernel=["poly", "rbf", "sigmoid"]),
    "degree": _int(2, 5, kernel="poly"),
    "coef0": _real(-1.0, 1.0, kernel=["poly", "sigmoid"]),
}
_KERNEL_NAMES = ("kernel", "C", "gamma", "degree", "coef0")


def _svc(params: Params, seed: int) -> BaseEstimator:
    return SVC(**_taken(params, *_KERNEL_NAMES, "class_weight"), max_iter=3000, cache_size=20)


def _svr(params: Params, seed: int) -> BaseEstimator:
    return SVR(**_taken(params, *_KERNEL_NAMES, "epsilon"), max_iter=3000, cache_size=20)


def _scaled_svc(params: Params, seed: int) -> BaseEstimator:
    return Pipeline([("scale", StandardScaler()), ("model", _svc(params, seed))])


def _support_vectors() -> list[Task]:
    return [
        Task("svc-digits", "support vectors", _digits, 300, _error, _KERNEL, _svc),
        Task("svc-cancer", "support vectors", _cancer, 200, _error, _KERNEL, _scaled_svc, True),
        Task("svc-clusters", "support vectors", _clusters, 350, _error, _KERNEL, _svc),
        Task(
            "svr-diabetes",
            "support vectors",
            _diabetes,
            220,
            _rms,
            {**_KERNEL, "epsilon": _log(1e-3, 1.0)},
            _svr,
        ),
        Task(
            "svr-friedman",
            "support vectors",
            _friedman,
            250,
            _rms,
            {**_KERNEL, "epsilon": _log(1e-2, 3.0)},
            _svr,
        ),
    ]


# --- trees --------------------------------------------------------------------------------------


def _tree(params: Params, seed: int) -> BaseEstimator:
    return DecisionTreeClassifier(**params, random_state=seed)


def _forest(params: Params, seed: int) -> BaseEstimator:
    return RandomForestClassifier(**params, random_state=seed)


def _extra(params: Params, seed: int) -> BaseEstimator:
    return ExtraTreesRegressor(**params, random_state=seed)


def _boosting(params: Params, seed: int) -> BaseEstimator:
    return GradientBoostingClassifier(**params, random_state=seed)


def _histograms(params: Params, seed: int) -> BaseEstimator:
    return HistGradientBoostingRegressor(**params, early_stopping=False, random_state=seed)


def _trees() -> list[Task]:
    return [
        Task(
            "tree-clusters",
            "trees",
            _clusters,
            500,
            _error,
            {
                "criterion": _choice("gini", "entropy"),
                "splitter": _choice("best", "random"),
                "max_depth": _int(1, 30),
                "min_samples_split": _int(2, 40),
                "min_samples_leaf": _int(1, 40),
                "max_features": _real(0.1, 1.0),
                "ccp_alpha": _log(1e-5, 0.1),
            },
            _tree,
            redrawn=True,
        ),
        Task(
            "forest-digits",
            "trees",
            _digits,
            300,
            _log_loss,
            {
                "n_estimators": _log_int(4, 32),
                "criterion": _choice("gini", "entropy"),
                "max_depth": _int(2, 20),
                "max_features": _real(0.02, 1.0),
                "min_samples_leaf": _log_int(1, 30),
                "bootstrap": _choice(True, False),
                "max_samples": _real(0.1, 1.0, bootstrap=True),
            },
            _forest,
        ),
        Task(
            "extra-trees-friedman",
            "trees",
            _friedman,
            300,
            _rms,
            {
                "n_estimators": _log_int(4, 32),
                "max_depth": _int(2, 20),
                "max_features": _real(0.1, 1.0),
                "min_samples_leaf": _log_int(1, 30),
                "bootstrap": _choice(True, False),
                "max_samples": _real(0.1, 1.0, bootstrap=True),
            },
            _extra,
            redrawn=True,
        ),
        Task(
            "boosting-cancer",
            "trees",
            _cancer,
            200,
            _log_loss,
            {
                "n_estimators": _log_int(5, 50),
                "learning_rate": _log(1e-3, 1.0),
                "max_depth": _int(1, 8),
                "subsample": _real(0.3, 1.0),
                "max_features": _real(0.05, 1.0),
                "min_samples_leaf": _log_int(1, 40),
            },
            _boosting,
        ),
        Task(
            "histograms-friedman",
            "trees",
            _friedman,
            400,
            _rms,
            {
                "loss": _choice("squared_error", "absolute_error"),
                "max_iter": _log_int(5, 40),
                "learning_rate": _log(1e-3, 1.0),
                "max_leaf_nodes": _log_int(2, 32),
                "min_samples_leaf": _log_int(2, 60),
                "l2_regularization": _log(1e-6, 100.0),
                "max_features": _real(0.2, 1.0),
            },
            _histograms,
        ),
    ]


# --- linear models, neighbours, networks --------------------------------------------------------

_SGD: Parameters = {
    "penalty": _choice("l2", "l1", "elasticnet"),
    "l1_ratio": _real(0.0, 1.0, penalty="elasticnet"),
    "alpha": _log(1e-7, 1.0),
    "learning_rate": _choice("optimal", "constant", "invscaling", "adaptive"),
    "eta0": _log(1e-5, 10.0, learning_rate=["constant", "invscaling", "adaptive"]),
    "power_t": _real(0.05, 1.0, learning_rate="invscaling"),
    "average": _choice(False, True),
}


def _sgd_classifier(params: Params, seed: int) -> BaseEstimator:
    return SGDClassifier(**params, max_iter=12, tol=None, random_state=seed)


def _sgd_regressor(params: Params, seed: int) -> BaseEstimator:
    return SGDRegressor(**params, max_iter=15, tol=None, random_state=seed)


def _logistic(params: Params, seed: int) -> BaseEstimator:
    chosen = dict(params)
    scaler = {"standard": StandardScaler(), "minmax": MinMaxScaler()}[chosen.pop("scaler")]
    penalty = chosen.pop("penalty", "l2")
    chosen["l1_ratio"] = {"l1": 1.0, "l2": 0.0}.get(penalty, chosen.get("l1_ratio", 0.0))
    return Pipeline([("scale", scaler), ("model", LogisticRegression(**chosen, random_state=seed))])


def _knn(params: Params, seed: int) -> BaseEstimator:
    return KNeighborsClassifier(
        **params, algorithm="brute" if params["metric"] == "cosine" else "auto"
    )


def _mlp_params(params: Params, seed: int) -> dict[str, Any]:
    chosen = dict(params)
    layers = [chosen.pop(name) for name in ("width1", "width2") if name in chosen]
    chosen.pop("layers")
    return {**chosen, "hidden_layer_sizes": layers, "tol": 0.0, "random_state": seed}


def _mlp_classifier(params: Params, seed: int) -> BaseEstimator:
    return MLPClassifier(**_mlp_params(params, seed), max_iter=12)


def _mlp_regressor(params: Params, seed: int) -> BaseEstimator:
    return MLPRegressor(**_mlp_params(params, seed), max_iter=20)


_MLP: Parameters = {
    "layers": _choice(1, 2),
    "width1": _log_int(4, 64),
    "width2": _log_int(4, 64, layers=2),
    "activation": _choice("relu", "tanh", "logistic"),
    "solver": _choice("adam", "sgd"),
    "learning_rate_init": _log(1e-4, 1.0),
    "beta_1": _real(0.5, 0.99, solver="adam"),
    "momentum": _real(0.0, 0.99, solver="sgd"),
    "alpha": _log(1e-6, 1.0),
    "batch_size": _log_int(16, 128),
}


def _others() -> list[Task]:
    return [
        Task(
            "sgd-digits",
            "linear models",
            _digits,
            400,
            _error,
            {"loss": _choice("hinge", "log_loss", "modified_huber"), **_SGD},
            _sgd_classifier,
            redrawn=True,
        ),
        Task(
            "sgd-diabetes",
            "linear models",
            _diabetes,
            220,
            _unexplained,
            {
                "loss": _choice("squared_error", "huber", "epsilon_insensitive"),
                "epsilon": _log(1e-3, 1.0, loss=["huber", "epsilon_insensitive"]),
                **_SGD,
            },
            _sgd_regressor,
        ),
        Task(
            "logistic-cancer",
            "linear models",
            _cancer,
            200,
            _log_loss,
            {
                "scaler": _choice("standard", "minmax"),
                "solver": _choice("lbfgs", "liblinear", "saga"),
                "penalty": _choice("l1", "l2", "elasticnet", solver="saga"),
                "l1_ratio": _real(0.0, 1.0, penalty="elasticnet"),
                "C": _log(1e-4, 1e3),
                "max_iter": _log_int(5, 200),
                "class_weight": _choice("none", "balanced"),
            },
            lambda params, seed: _logistic(_without_none(params), seed),
        ),
        Task(
            "neighbours-clusters",
            "neighbours",
            _clusters,
            500,
            _error,
            {
                "n_neighbors": _log_int(1, 100),
                "weights": _choice("uniform", "distance"),
                "metric": _choice("minkowski", "chebyshev", "cosine"),
                "p": _choice(1, 2, metric="minkowski"),
            },
            _knn,
        ),
        Task("mlp-digits", "networks", _digits, 250, _log_loss, _MLP, _mlp_classifier),
        Task(
            "mlp-friedman",
            "networks",
            _friedman_scaled,
            250,
            _unexplained,
            _MLP,
            _mlp_regressor,
            redrawn=True,
        ),
    ]


def _without_none(params: Params) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value != "none"}


# --- pipelines ----------------------------------------------------------------------------------

_SCALERS: Mapping[str, Callable[[], Any]] = {
    "none": lambda: "passthrough",
    "standard": StandardScaler,
    "minmax": MinMaxScaler,
    "robust": RobustScaler,
    "quantile": lambda: QuantileTransformer(n_quantiles=30),
}
_SVM_STEP: Parameters = {
    "svm_C": _log(1e-2, 1e3, model="svm"),
    "svm_kernel": _choice("linear", "rbf", "poly", model="svm"),
    "svm_gamma": _log(1e-5, 10.0, svm_kernel=["rbf", "poly"]),
    "svm_degree": _int(2, 4, svm_kernel="poly"),
}
_KNN_STEP: Parameters = {
    "knn_n_neighbors": _log_int(1, 40, model="knn"),
    "knn_weights": _choice("uniform", "distance", model="knn"),
}
_FOREST_STEP: Parameters = {
    "forest_n_estimators": _log_int(4, 24, model="forest"),
    "forest_max_features": _real(0.05, 1.0, model="forest"),
    "forest_min_samples_leaf": _log_int(1, 30, model="forest"),
}


def _model_of(params: Params, models: Mapping[str, Callable[..., Any]]) -> Any:
    """Make the chosen model from the parameters with its name in them."""
    prefix = f"{params['model']}_"
    chosen = {name.removeprefix(prefix): params[name] for name in params if name.startswith(prefix)}
    return models[params["model"]](**chosen)


def _reduction(params: Params, seed: int) -> Any:
    if params["reduce"] == "pca":
        return PCA(params["pca_n"], whiten=params["pca_whiten"], random_state=seed)
    return SelectKBest(k=params["best_k"]) if params["reduce"] == "best" else "passthrough"


def _classifier_pipeline(params: Params, seed: int) -> BaseEstimator:
    models = {
        "svm": lambda **chosen: SVC(**chosen, max_iter=3000, cache_size=20),
        "knn": KNeighborsClassifier,
        "forest": lambda **chosen: RandomForestClassifier(**chosen, random_state=seed),
        "logistic": lambda **chosen: LogisticRegression(**chosen, max_iter=60),
        "lda": lambda **chosen: LinearDiscriminantAnalysis(**chosen, solver="lsqr"),
    }
    return Pipeline(
        [
            ("scale", _SCALERS[params["scaler"]]()),
            ("reduce", _reduction(params, seed)),
            ("model", _model_of(params, models)),
        ]
    )


def _regressor_pipeline(params: Params, seed: int) -> BaseEstimator:
    models = {
        "svm": lambda **chosen: SVR(**chosen, max_iter=3000, cache_size=20),
        "knn": KNeighborsRegressor,
        "forest": lambda **chosen: RandomForestRegressor(**chosen, random_state=seed),
        "ridge": Ridge,
        "lasso": lambda **chosen: Lasso(**chosen, max_iter=300),
    }
    terms = params.get("degree", 1)
    return Pipeline(
        [
            ("scale", _SCALERS[params["scaler"]]()),
            ("terms", PolynomialFeatures(terms) if terms > 1 else "passthrough"),
            ("model", _model_of(params, models)),
        ]
    )


def _reduced(features: int) -> Parameters:
    return {
        "reduce": _choice("none", "pca", "best"),
        "pca_n": _log_int(2, features, reduce="pca"),
        "pca_whiten": _choice(False, True, reduce="pca"),
        "best_k": _log_int(2, features, reduce="best"),
    }


def _pipelines() -> list[Task]:
    scaler = _choice("none", "standard", "minmax", "robust")
    logistic = {"logistic_C": _log(1e-4, 1e3, model="logistic")}
    lda = {"lda_shrinkage": _real(0.0, 1.0, model="lda")}
    return [
        Task(
            "pipeline-wine",
            "pipelines",
            _wine,
            45,
            _error,
            {
                "scaler": scaler,
                **_reduced(13),
                "model": _choice("svm", "knn", "forest", "logistic"),
                **_SVM_STEP,
                **_KNN_STEP,
                **_FOREST_STEP,
                **logistic,
            },
            _classifier_pipeline,
            redrawn=True,
        ),
        Task(
            "pipeline-digits",
            "pipelines",
            _digits,
            250,
            _error,
            {
                "scaler": _choice("none", "standard", "robust"),
                **_reduced(50),
                "model": _choice("svm", "knn", "lda"),
                **_SVM_STEP,
                **_KNN_STEP,
                **lda,
            },
            _classifier_pipeline,
        ),
        Task(
            "pipeline-moons",
            "pipelines",
            _moons,
            300,
            _error,
            {
                "scaler": _choice("none", "standard", "quantile"),
                **_reduced(5),
                "model": _choice("svm", "knn", "forest", "logistic", "lda"),
                **_SVM_STEP,
                **_KNN_STEP,
                **_FOREST_STEP,
                **logistic,
                **lda,
            },
            _classifier_pipeline,
        ),
        Task(
            "pipeline-friedman",
            "pipelines",
            _friedman,
            300,
            _rms,
            {
                "scaler": _choice("none", "standard", "quantile"),
                "model": _choice("svm", "knn", "forest", "ridge", "lasso"),
                "degree": _int(1, 3, model=["ridge", "lasso"]),
                "ridge_alpha": _log(1e-4, 1e4, model="ridge"),
                "lasso_alpha": _log(1e-5, 10.0, model="lasso"),
                **_SVM_STEP,
                **_KNN_STEP,
                **_FOREST_STEP,
            },
            _regressor_pipeline,
        ),
    ]


TASKS: Mapping[str, Task] = {
    task.name: task for task in (*_support_vectors(), *_trees(), *_others(), *_pipelines())
}
