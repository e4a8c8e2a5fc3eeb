"""The interface of a detector."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data


class Detector(ClassifierMixin, BaseEstimator, ABC):
    """Scores rows of a table: the higher the score, the more anomalous.

    The score is the log-odds that a row is an anomaly, so `predict_proba` is its logistic function
    and `threshold_` is 0, where both classes are equally likely. Labels are 1 for a known anomaly
    and 0 for everything else. Constructor arguments are the settings, as in scikit-learn.

    Attributes after `fit`: `classes_` ([0, 1]), `n_features_in_`, `threshold_`.
    """

    threshold_: float
    n_features_in_: int

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        sample_weight: np.ndarray | None = None,
        synthetic: np.ndarray | None = None,
    ) -> Self:
        """Learn from scratch.

        Args:
            X: rows, float (n, d).
            y: labels, int (n,) in {0, 1}, both present.
            sample_weight: weights, float (n,); by default both classes weigh the same in sum.
            synthetic: which rows were generated, bool (n,); by default none. Backends may use it.

        Raises:
            ValueError: non-finite values, mismatched lengths, labels other than 0 and 1.
        """
        checked = self._check_training(X, y, sample_weight, synthetic, reset=True)
        self.classes_ = np.array([0, 1])
        self.threshold_ = 0.0
        self._fit(*checked)
        return self

    def partial_fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        sample_weight: np.ndarray | None = None,
        synthetic: np.ndarray | None = None,
    ) -> Self:
        """Go on training on all rows that shall count, old and new; arguments as in `fit`."""
        check_is_fitted(self)
        self._partial_fit(*self._check_training(X, y, sample_weight, synthetic, reset=False))
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return the log-odds of anomaly of rows `X`, float (n, d), as float64 (n,)."""
        check_is_fitted(self)
        return self._log_odds(validate_data(self, X, reset=False, dtype=np.float64))

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the probabilities of normal and of anomaly, float64 (n, 2)."""
        anomaly = 1 / (1 + np.exp(-np.clip(self.decision_function(X), -500, 500)))
        return np.column_stack([1 - anomaly, anomaly])

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return 1 where the score exceeds `threshold_`, else 0; int (n,)."""
        return (self.decision_function(X) > self.threshold_).astype(int)

    @abstractmethod
    def save(self, folder: Path | str) -> None:
        """Write the fitted detector into `folder`, as JSON and safetensors."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what `save` wrote; raise `InputError` where it is missing or broken."""

    @abstractmethod
    def _fit(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray) -> None:
        """Learn from checked arrays."""

    @abstractmethod
    def _partial_fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        """Go on learning from checked arrays."""

    @abstractmethod
    def _log_odds(self, X: np.ndarray) -> np.ndarray:
        """Score checked rows."""

    def _check_training(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray | None,
        synthetic: np.ndarray | None,
        reset: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        X, y = validate_data(self, X, y, reset=reset, dtype=np.float64)
        y = y.astype(int)
        if set(np.unique(y)) != {0, 1}:
            raise ValueError(
                f"A detector learns from labels 0 and 1, both present; got {np.unique(y).tolist()}."
            )
        weight = balanced_weights(y) if weight is None else np.asarray(weight, np.float64)
        synthetic = np.zeros(len(y), bool) if synthetic is None else np.asarray(synthetic, bool)
        check_consistent_length(X, weight, synthetic)
        return X, y, weight, synthetic


def balanced_weights(y: np.ndarray) -> np.ndarray:
    """Weights, float64 (n,), under which both classes of `y` weigh n / 2 in sum."""
    counts = np.bincount(y, minlength=2)
    return len(y) / 2 / counts[y]
