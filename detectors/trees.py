"""Tree ensembles as black boxes: they are refitted, and only their log-odds are seen."""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from catboost import CatBoostClassifier
from sklearn.ensemble import ExtraTreesClassifier

from common.errors import InputError
from common.randomness import RandomState
from detectors.base import real_weights
from detectors.log_odds import class_log_odds, vote_log_odds
from detectors.memory import synthetic_trust
from detectors.refitted import RefittedDetector

TRUST_WEIGHT = 4.0
FAST_LEARNING = 0.1
FAR = 1000  # deviations between 0 and a column's mean, from which on float32 blurs it


class TreesDetector(RefittedDetector):
    """A classifier of rows, of which only the log-odds are used.

    Where there are synthetic rows and they are trusted, a second one learns from all rows, and the
    log-odds are the mean of both, weighted 1 and 4 times the trust in synthetic rows
    (`Memory.fit`): a few real anomalies keep their say among thousands of synthetic ones.

    Trees see float32, so columns that lie far from 0, such as Unix seconds, are centred before.
    """

    def check_rows(self, X: np.ndarray) -> None:
        """Raise `InputError` where the classifier cannot learn from real rows `X`, (n, d)."""

    @abstractmethod
    def make_classifier(self) -> Any:
        """Return an unfitted classifier with `fit(X, y, sample_weight)`."""

    def make_synthetic_learner(self) -> Any:
        """Return the unfitted classifier that learns from synthetic rows, too."""
        return self.make_classifier()

    @abstractmethod
    def ask(self, classifier: Any, X: np.ndarray) -> np.ndarray:
        """Return a fitted classifier's log-odds of anomaly, float64 (n,), of rows (n, d)."""

    def _refit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        X_real, y_real, real_weight = real_rows(self.training_rows_)
        origin = far_means(X_real)
        centred = X_real - origin
        self.check_rows(centred)
        self.fitted_with_, self.origin_ = self._params_with_seed(), origin
        self.of_real_ = self.make_classifier().fit(centred, y_real, sample_weight=real_weight)
        self._learn_synthetic(X, y, weight, synthetic)

    def _partial_fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        """Fit anew, but for the classifier of the real rows while these and the settings stay."""
        before = real_rows(self.training_rows_)
        self._keep(X, y, weight, synthetic)
        same_rows = all(map(np.array_equal, before, real_rows(self.training_rows_)))
        if same_rows and self._params_with_seed() == self.fitted_with_:
            self._learn_synthetic(X, y, weight, synthetic)
        else:
            self._refit(X, y, weight, synthetic)

    def _learn_synthetic(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        self.of_all_, self.share_ = None, 0.0
        if synthetic.any():
            trust = synthetic_trust(X[~synthetic], y[~synthetic], self.seed_)
            self.share_ = TRUST_WEIGHT * trust
        if self.share_:
            self.of_all_ = self.make_synthetic_learner().fit(
                X - self.origin_, y, sample_weight=weight
            )

    def _log_odds(self, X: np.ndarray) -> np.ndarray:
        X = X - self.origin_
        of_real = self.ask(self.of_real_, X)
        if self.of_all_ is None:
            return of_real
        return (of_real + self.share_ * self.ask(self.of_all_, X)) / (1 + self.share_)


def real_rows(rows: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what is real of a detector's training rows: rows, labels and weights."""
    y, synthetic = rows["y"], rows["synthetic"]
    return rows["X"][~synthetic], y[~synthetic], real_weights(y, rows["weight"], synthetic)


def far_means(X: np.ndarray) -> np.ndarray:
    """Return the means of the columns of `X`, float (n, d), that lie far from 0, and 0 for others.

    A deviation of such a column is less than 2 ** 14 steps of float32.
    """
    mean = X.mean(axis=0)
    return np.where(np.abs(mean) > FAR * X.std(axis=0), mean, 0.0)


class ExtraTreesDetector(TreesDetector):
    """scikit-learn's `ExtraTreesClassifier`; `n_jobs` counts in `fit` only."""

    def __init__(
        self, n_estimators: int = 200, n_jobs: int | None = None, random_state: RandomState = 0
    ) -> None:
        self.n_estimators = n_estimators
        self.n_jobs = n_jobs
        self.random_state = random_state

    def make_classifier(self) -> ExtraTreesClassifier:
        """Return the unfitted forest."""
        return ExtraTreesClassifier(**self._params_with_seed())

    def ask(self, classifier: ExtraTreesClassifier, X: np.ndarray) -> np.ndarray:
        """Average the trees' votes without the forest's overhead, which dominates on few rows."""
        with np.errstate(over="ignore"):
            rows = X.astype(np.float32)
        votes = (tree.tree_.predict(rows)[:, 1] for tree in classifier.estimators_)
        return vote_log_odds(sum(votes, np.zeros(len(rows))) / len(classifier.estimators_))


class CatBoostDetector(TreesDetector):
    """`catboost.CatBoostClassifier`; `n_jobs` is its `thread_count`, by default torch's threads."""

    def __init__(
        self, iterations: int = 500, n_jobs: int | None = None, random_state: RandomState = 0
    ) -> None:
        self.iterations = iterations
        self.n_jobs = n_jobs
        self.random_state = random_state

    def check_rows(self, X: np.ndarray) -> None:
        """Raise `InputError` where no column varies in float32."""
        if not np.ptp(X.astype(np.float32), axis=0).any():
            raise InputError("No column of X varies, which CatBoost needs; take another detector.")

    def make_classifier(self) -> CatBoostClassifier:
        """Return the unfitted boosted trees."""
        return CatBoostClassifier(
            iterations=self.iterations,
            thread_count=self._n_threads(),
            random_seed=self.seed_,
            verbose=False,
            allow_writing_files=False,
        )

    def make_synthetic_learner(self) -> CatBoostClassifier:
        """Learn faster than CatBoost suggests, which is .02 to .045 for 1,000 to 7,000 rows.

        Where anomalies may lie all around the normal rows, 500 slow trees do not fit the boundary.
        """
        return self.make_classifier().set_params(learning_rate=FAST_LEARNING)

    def ask(self, classifier: CatBoostClassifier, X: np.ndarray) -> np.ndarray:
        """Ask CatBoost, which leaves the array that it is given read-only."""
        log_probability = classifier.predict_log_proba(X, thread_count=self._n_threads())
        return class_log_odds(log_probability)

    def _n_threads(self) -> int:
        return self.n_jobs or torch.get_num_threads()
