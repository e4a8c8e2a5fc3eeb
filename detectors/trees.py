"""Tree ensembles as black boxes: they are refitted, and only their probability is seen."""

from typing import Any

import numpy as np
from catboost import CatBoostClassifier
from sklearn.ensemble import ExtraTreesClassifier

from detectors.memory import synthetic_trust
from detectors.refitted import RefittedDetector, probability_log_odds


class TreesDetector(RefittedDetector):
    """A classifier of rows, of which only the probability is used.

    Where there are synthetic rows, a second one learns from all rows, and the log-odds are the mean
    of both, weighted 1 and the root of the trust in synthetic rows (`Memory.fit`): a few real
    anomalies keep their say among thousands of synthetic ones.
    """

    random_state: int

    def make_classifier(self) -> Any:
        """Return an unfitted classifier with `fit(X, y, sample_weight)` and `predict_proba`."""
        raise NotImplementedError

    def _refit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        real = ~synthetic
        self.classifiers_ = [
            self.make_classifier().fit(X[real], y[real], sample_weight=weight[real])
        ]
        self.shares_ = [1.0]
        if synthetic.any():
            self.classifiers_.append(self.make_classifier().fit(X, y, sample_weight=weight))
            self.shares_.append(synthetic_trust(X[real], y[real], self.random_state) ** 0.5)

    def _log_odds(self, X: np.ndarray) -> np.ndarray:
        # CatBoost marks the array that it is given as read-only; a view takes the mark.
        opinions = [
            probability_log_odds(classifier.predict_proba(X.view())[:, 1])
            for classifier in self.classifiers_
        ]
        return np.average(opinions, axis=0, weights=self.shares_)


class ExtraTreesDetector(TreesDetector):
    """scikit-learn's `ExtraTreesClassifier`; arguments are that class's own."""

    def __init__(
        self, n_estimators: int = 200, n_jobs: int | None = None, random_state: int = 0
    ) -> None:
        self.n_estimators = n_estimators
        self.n_jobs = n_jobs
        self.random_state = random_state

    def make_classifier(self) -> ExtraTreesClassifier:
        """Return the unfitted forest."""
        return ExtraTreesClassifier(**self.get_params())


class CatBoostDetector(TreesDetector):
    """`catboost.CatBoostClassifier`; arguments are that class's own."""

    def __init__(
        self, iterations: int = 500, n_jobs: int | None = None, random_state: int = 0
    ) -> None:
        self.iterations = iterations
        self.n_jobs = n_jobs
        self.random_state = random_state

    def make_classifier(self) -> CatBoostClassifier:
        """Return the unfitted boosted trees."""
        return CatBoostClassifier(
            iterations=self.iterations,
            thread_count=self.n_jobs or -1,
            random_seed=self.random_state,
            verbose=False,
            allow_writing_files=False,
        )
