"""Tree ensembles as black boxes: they are refitted, and only their log-odds are seen."""

from abc import abstractmethod
from numbers import Integral
from typing import Any

import joblib
import numpy as np
import torch
from catboost import CatBoostClassifier
from sklearn.ensemble import ExtraTreesClassifier

from common.divisor import divisor
from common.errors import InputError, check_at_least
from common.rows import FLOAT32_MAX
from common.seeds import RandomState
from detectors.base import real_rows, relative_weights
from detectors.log_odds import class_log_odds, forest_log_odds
from detectors.novelty import Novelty
from detectors.refitted import RefittedDetector

TRUST_WEIGHT = 2.0
FAST_LEARNING = 0.1
FAR = 1000  # spreads between 0 and a column's median, from which on float32 blurs it
TINY = 1e-3  # a spread; scikit-learn's trees do not part values within 1e-7


class TreesDetector(RefittedDetector):
    """A classifier of rows, of which only the log-odds are used.

    Where there are synthetic rows and they are trusted, a second one learns from all rows, and the
    log-odds are the mean of both, weighted 1 and twice the trust in synthetic rows (`Novelty`): a
    few real anomalies keep their say among thousands of synthetic ones. To these comes the row's
    novelty, times twice the trust: synthetic rows are near the normal ones, and farther out trees
    go on as they end.

    Trees see float32 and its steps: columns that lie far from 0, such as Unix seconds, are centred
    before, and those of tiny numbers divided by their spread.
    """

    n_jobs: int | None
    novelty_: Novelty | None  # of the real rows; from the first synthetic ones on

    def check_settings(self) -> None:
        """Raise `InputError` where a setting is out of range."""
        if self.n_jobs is not None and not (isinstance(self.n_jobs, Integral) and self.n_jobs):
            raise InputError(f"n_jobs is {self.n_jobs!r}; give None, or a whole number but 0.")

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
        """Fit anew, but for the classifier of the real rows while these and the settings stay."""
        self.check_settings()
        if not self._knows_real(X, y, weight, synthetic):
            self._learn_real(*real_rows(X, y, weight, synthetic))
        self._learn_synthetic(X, y, weight, synthetic)

    def _learn_real(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray) -> None:
        self.origin_, self.unit_ = origin_and_unit(X)
        seen = self._as_seen(X)
        self.check_rows(seen)
        relative = relative_weights(y, weight)
        self.of_real_ = self.make_classifier().fit(seen, y, sample_weight=relative)
        self.novelty_ = None

    def _learn_synthetic(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        self.of_all_ = None
        if not weight[synthetic].any():
            return
        if self.novelty_ is None:
            counts = ~synthetic & (weight > 0)
            self.novelty_ = Novelty(X[counts], y[counts], self.seed_)
        if self.novelty_.trust:
            learner, weight = self.make_synthetic_learner(), relative_weights(y, weight)
            self.of_all_ = learner.fit(self._as_seen(X), y, sample_weight=weight)

    def _as_seen(self, X: np.ndarray) -> np.ndarray:
        """Bring rows, (n, d), to where float32 tells them apart."""
        with np.errstate(over="ignore"):
            return ((X - self.origin_) / self.unit_).clip(-FLOAT32_MAX, FLOAT32_MAX)

    def _log_odds(self, X: np.ndarray) -> np.ndarray:
        seen = self._as_seen(X)
        of_real = self.ask(self.of_real_, seen)
        if self.of_all_ is None:
            return of_real
        assert self.novelty_ is not None
        weight = TRUST_WEIGHT * self.novelty_.trust
        of_both = (of_real + weight * self.ask(self.of_all_, seen)) / (1 + weight)
        return of_both + weight * self.novelty_(X)


def origin_and_unit(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what is subtracted from columns, and what they are then divided by, float64 (d,) each.

    These are the medians of the columns of `X`, float (n, d), that lie far from 0, and the spreads
    of those that hardly spread; 0 and 1 for the others. A spread is the distance of the quartiles,
    which few odd values do not move, or where that is 0 the standard deviation.
    """
    low, median, high = np.quantile(X, [0.25, 0.5, 0.75], axis=0)
    spread = divisor(np.where(high > low, high - low, X.std(axis=0)), X)
    origin = np.where(np.abs(median) > FAR * spread, median, 0.0)
    return origin, np.where(spread < TINY, spread, 1.0)


class ExtraTreesDetector(TreesDetector):
    """scikit-learn's `ExtraTreesClassifier`; `n_jobs` counts in `fit` only."""

    def __init__(
        self, n_estimators: int = 200, n_jobs: int | None = None, random_state: RandomState = 0
    ) -> None:
        self.n_estimators = n_estimators
        self.n_jobs = n_jobs
        self.random_state = random_state

    def check_settings(self) -> None:
        """Raise `InputError` where there is no tree, or a setting is out of range."""
        super().check_settings()
        check_at_least(self, n_estimators=1)

    def make_classifier(self) -> ExtraTreesClassifier:
        """Return the unfitted forest."""
        return ExtraTreesClassifier(**self._params_with_seed())

    def ask(self, classifier: ExtraTreesClassifier, X: np.ndarray) -> np.ndarray:
        """Average the trees' votes."""
        return forest_log_odds(classifier, X)


class CatBoostDetector(TreesDetector):
    """`catboost.CatBoostClassifier`; `n_jobs` is by default the number of torch's threads."""

    def __init__(
        self, iterations: int = 500, n_jobs: int | None = None, random_state: RandomState = 0
    ) -> None:
        self.iterations = iterations
        self.n_jobs = n_jobs
        self.random_state = random_state

    def check_settings(self) -> None:
        """Raise `InputError` where there is no tree, or a setting is out of range."""
        super().check_settings()
        check_at_least(self, iterations=1)

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
        return joblib.effective_n_jobs(self.n_jobs) if self.n_jobs else torch.get_num_threads()
