"""What the estimators share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags


class TwoClassClassifier(ClassifierMixin, BaseEstimator, ABC):
    """A classifier of normal rows and anomalies, by a score and a threshold.

    Attributes after `fit`: `classes_`, the two labels, and `threshold_`.
    """

    classes_: np.ndarray
    threshold_: float

    def __sklearn_tags__(self) -> Tags:
        """Tell scikit-learn that there are two classes."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    @abstractmethod
    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return the log-odds of anomaly of rows `X`, float (n, d), as float64 (n,)."""

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Return the probabilities of normal and of anomaly, float64 (n, 2), 1/2 at `threshold_`.

        Raises what `decision_function` does.
        """
        log_odds = self.decision_function(X) - self.threshold_
        return expit(np.column_stack([-log_odds, log_odds]))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return 1 where the score exceeds `threshold_`, else 0, or the labels in their stead.

        Raises what `decision_function` does.
        """
        anomalous = self.decision_function(X) > self.threshold_
        return self.classes_[anomalous.astype(int)]


@contextmanager
def all_or_nothing(estimator: object) -> Iterator[None]:
    """Give an estimator back what it held before, where the block does not come to its end."""
    before = vars(estimator).copy()
    try:
        yield
    except BaseException:
        estimator.__dict__ = before
        raise
