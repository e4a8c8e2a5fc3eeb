"""What estimators of other packages are asked: what they take, what they are, how they score."""

import inspect
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, OutlierMixin, clone
from sklearn.utils import get_tags

from common.errors import InputError
from detectors.log_odds import class_log_odds

SUPERVISED_PYOD = {"XGBOD", "DevNet"}


def parameters(function: Any) -> set[str]:
    """Return the names of the parameters of a function or a constructor; none where not told."""
    try:
        return set(inspect.signature(function).parameters)
    except ValueError:  # a compiled one
        return set()


def is_pyod_outlier(estimator: Any) -> bool:
    """Tell whether an estimator is an unsupervised one of PyOD's, without importing PyOD."""
    return is_of_pyod(estimator) and type(estimator).__name__ not in SUPERVISED_PYOD


def is_of_pyod(estimator: Any) -> bool:
    """Tell whether the class of an estimator is derived from PyOD's."""
    return any(base.__module__ == "pyod.models.base" for base in type(estimator).__mro__)


def is_scikit_outlier(estimator: Any) -> bool:
    """Tell whether an estimator is an outlier detector in scikit-learn's manner."""
    of_scikit = isinstance(estimator, OutlierMixin) or kind(estimator) == "outlier_detector"
    return of_scikit and not is_of_pyod(estimator)


def kind(estimator: Any) -> str | None:
    """Return what scikit-learn's tags call an estimator; a pipeline is what its last step is."""
    return get_tags(estimator).estimator_type if isinstance(estimator, BaseEstimator) else None


def unshared(setting: Any) -> Any:
    """Return a setting with unfitted copies of the estimators that it is or holds in a list."""
    if isinstance(setting, list | tuple):
        return type(setting)(map(unshared, setting))
    is_estimator = hasattr(setting, "get_params") and not isinstance(setting, type)
    return clone(setting) if is_estimator else setting


def own_threshold(estimator: Any, backend: str) -> float | None:
    """Return the score above which a fitted estimator itself calls a row an anomaly, if any.

    Raises:
        InputError: its `threshold_` is no finite number, or no probability where those are scores.
    """
    probabilities = not hasattr(estimator, "decision_function")
    if is_scikit_outlier(estimator):
        return 0.0
    if not hasattr(estimator, "threshold_"):  # classifiers' decision functions change sign at 0
        classifier = isinstance(estimator, ClassifierMixin) or kind(estimator) == "classifier"
        return 0.0 if probabilities or classifier else None
    try:
        own = float(estimator.threshold_)
    except (TypeError, ValueError):
        own = np.nan
    low, high = (0, 1) if probabilities else (-np.inf, np.inf)
    if not low < own < high:
        raise InputError(
            f"{backend} has the threshold_ {estimator.threshold_!r}; make it a number between {low}"
            f" and {high}."
        )
    return class_log_odds(np.log([[1 - own, own]])).item() if probabilities else own


def takes_labels(estimator: Any) -> bool:
    """Tell whether an estimator has a `fit` that can be called with rows and labels."""
    try:
        signature = inspect.signature(estimator.fit)
        weights = {"sample_weight"} & set(signature.parameters)
        signature.bind([], [], **dict.fromkeys(weights))
    except (AttributeError, TypeError):
        return False
    return True


def fit(estimator: Any, X: np.ndarray, y: np.ndarray | None, weight: np.ndarray) -> None:
    """Fit on rows, float (n, d), and labels, int (n,) or None; weights where `fit` takes them."""
    accepted = parameters(estimator.fit)
    if "sample_weight" in accepted:
        estimator.fit(X, y, sample_weight=weight)
    else:
        estimator.fit(X, y)


def raw_scores(estimator: Any, X: np.ndarray) -> np.ndarray:
    """Return what an estimator answers, float64, higher where more anomalous.

    Raises:
        InputError: it answers with other than two probabilities a row.
    """
    if hasattr(estimator, "decision_function"):
        sign = -1.0 if is_scikit_outlier(estimator) else 1.0
        return sign * np.asarray(estimator.decision_function(X), np.float64)
    with np.errstate(divide="ignore"):
        if hasattr(estimator, "predict_log_proba"):
            logarithm = np.asarray(estimator.predict_log_proba(X), np.float64)
        else:
            logarithm = np.log(np.asarray(estimator.predict_proba(X), np.float64))
    if logarithm.shape != (len(X), 2):
        raise InputError(
            f"{type(estimator).__name__} gives probabilities of the shape {logarithm.shape} for"
            f" {len(X)} rows; it must give two a row, of normal and of anomaly."
        )
    return class_log_odds(logarithm)
