"""The interface of a detector."""

from abc import abstractmethod
from numbers import Real
from pathlib import Path
from typing import Any, Self, TypeGuard

import joblib
import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from common.errors import InputError, one_line
from common.estimators import TwoClassClassifier, all_or_nothing
from common.labels import encode_labels
from common.plain_torch import plain_torch
from common.rows import FLOAT32_MAX, FLOAT32_TINY, check_float32
from common.seeds import RandomState, as_seed


class Detector(TwoClassClassifier):
    """Scores rows of a table: the higher the score, the more anomalous.

    The score is on the scale of log-odds: `predict_proba` is its logistic function, and
    `threshold_`, above which a row is called an anomaly, is 0. It ranks rows; how often anomalies
    come is not known, so that the probabilities are not calibrated. Labels are 1 for a known
    anomaly and 0 for everything else; of any other two labels the higher one is the anomaly.
    Constructor arguments are the settings, as in scikit-learn.

    Attributes after `fit`: `classes_` (the two labels), `n_features_in_`, `feature_names_in_` where
    the rows were a data frame, `threshold_`, and as in PyOD `decision_scores_` and `labels_`, the
    scores of the training rows and whether they exceed `threshold_`. After `load` the labels are 0
    and 1, the names are not known, and the training rows' scores are there only where they are
    fitted again.

    Every backend takes `random_state`, of which training takes the integer `seed_`. What is saved
    are the settings that the last training had, `fitted_with_`. `trainable` is False where a
    backend can be queried but not retrained.
    """

    trainable = True
    random_state: RandomState
    seed_: int
    fitted_with_: dict[str, Any]
    n_features_in_: int
    key_of_real_: str | None = None

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        synthetic: ArrayLike | None = None,
    ) -> Self:
        """Learn from scratch; a detector that refuses the rows, or is interrupted, stays as it was.

        Args:
            X: rows, float (n, d).
            y: labels (n,), 0 and 1, both present.
            sample_weight: weights, float (n,); by default `sqrt_balanced_weights`.
            synthetic: which rows were generated, bool (n,); by default none. Backends may use it.

        Raises:
            ValueError: values or weights beyond float32, mismatched lengths, other than two
                labels, or for the rows of one of them no weight where the synthetic rows are left
                out.
            InputError: a setting is out of range, or the backend refuses the rows.
        """
        with all_or_nothing(self), plain_torch():
            classes, *checked = self._check_training(X, y, sample_weight, synthetic, reset=True)
            self.threshold_, self.key_of_real_ = 0.0, None
            self._fit(*checked)
            self.classes_, self.fitted_with_ = classes, self._params_with_seed()
            return self._score_training_rows(checked[0])

    def __sklearn_is_fitted__(self) -> bool:
        """Tell whether a `fit` came to its end."""
        return hasattr(self, "classes_")

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        synthetic: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Learn from all rows that shall count, old and new; arguments as in `fit`.

        Before the first `fit` this is `fit`. `classes` is there for scikit-learn; both labels are
        in `y`.

        A detector that refuses the rows, or is interrupted, stays as it was.

        Raises:
            ValueError: as in `fit`, or the labels are not those of the first one.
            InputError: as in `fit`, or the backend is not `trainable`.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(X, y, sample_weight, synthetic)
        with all_or_nothing(self), plain_torch():
            _, *checked = self._check_training(X, y, sample_weight, synthetic, reset=False)
            self._partial_fit(*checked)
            self.fitted_with_ = self._params_with_seed()
            return self._score_training_rows(checked[0])

    def _score_training_rows(self, X: np.ndarray) -> Self:
        self.decision_scores_ = checked_scores(
            self._training_log_odds(X), len(X), type(self).__name__
        )
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)
        return self

    def _training_log_odds(self, X: np.ndarray) -> np.ndarray:
        """Score the rows just learned from; by default as any others."""
        return self._log_odds(X)

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return the log-odds of anomaly of rows `X`, float (n, d), as float64 (n,).

        Raises:
            NotFittedError: there was no `fit`.
            ValueError: values that are not finite, or another number of columns than in `fit`.
            InputError: the backend does not give one finite number a row.
        """
        check_is_fitted(self)
        if self._is_plain(X):
            rows = X
        else:
            rows = validate_data(self, X, reset=False, dtype=np.float64, force_writeable=True)
        return checked_scores(self._log_odds(rows), len(rows), type(self).__name__)

    def _is_plain(self, X: ArrayLike) -> TypeGuard[np.ndarray]:
        """Tell that scikit-learn's checks, ten times as slow, would find nothing to do or say."""
        return (
            type(X) is np.ndarray
            and X.dtype == np.float64
            and X.ndim == 2
            and len(X) > 0
            and X.shape[1] == self.n_features_in_
            and X.flags.writeable
            and not hasattr(self, "feature_names_in_")
            and bool(np.isfinite(X).all())
        )

    @abstractmethod
    def save(self, folder: Path | str) -> None:
        """Write the fitted detector into `folder`, which is made, as JSON and safetensors.

        Raises:
            NotFittedError: there was no `fit`.
        """

    @classmethod
    @abstractmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what `save` wrote; raise `InputError` where it is missing or broken."""

    @abstractmethod
    def _fit(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray) -> None:
        """Learn from checked arrays."""

    def _partial_fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        """Learn from checked arrays, old and new; by default, from scratch."""
        self._fit(X, y, weight, synthetic)

    @abstractmethod
    def _log_odds(self, X: np.ndarray) -> np.ndarray:
        """Score checked rows."""

    def _params_with_seed(self) -> dict[str, Any]:
        """Return the settings with the seed that was taken of `random_state`."""
        return {**self.get_params(deep=False), "random_state": self.seed_}

    def _knows_real(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> bool:
        """Note settings and real rows; tell whether they were the same in the training before.

        What learned from the real rows alone is then kept; `fit` forgets them. Arguments are its.
        """
        key = joblib.hash([*real_rows(X, y, weight, synthetic), self._params_with_seed()])
        before, self.key_of_real_ = self.key_of_real_, key
        return key == before

    def _check_training(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        synthetic: ArrayLike | None,
        reset: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        rows, labels = validate_data(
            self, X, y, reset=reset, dtype=np.float64, force_writeable=True
        )
        check_float32(rows)
        classes, encoded = encode_labels(labels)
        if not reset and not np.array_equal(classes, self.classes_):
            raise ValueError(f"The labels were {self.classes_} in fit, but now are {classes}.")
        weight = (
            sqrt_balanced_weights(encoded)
            if sample_weight is None
            else _check_sample_weight(sample_weight, rows, ensure_non_negative=True)
        )
        generated = np.zeros(len(rows), bool) if synthetic is None else np.asarray(synthetic, bool)
        check_consistent_length(rows, generated)
        if len(np.unique(encoded[~generated])) < 2:
            raise ValueError("The rows that are not synthetic have one class; both are needed.")
        if (np.bincount(encoded[~generated], weight[~generated]) == 0).any():
            raise ValueError("All real rows of one class have the weight 0; both are needed.")
        if weight[weight > 0].min() < FLOAT32_TINY or weight.sum() > FLOAT32_MAX:
            raise ValueError("sample_weight or its sum is beyond float32; divide it by its mean.")
        self.seed_ = as_seed(self.random_state)
        return classes, rows, encoded, weight, generated


def check_contamination(contamination: float) -> None:
    """Raise `InputError` where a share of rows is not in (0, 1)."""
    if not isinstance(contamination, Real) or not 0 < contamination < 1:
        raise InputError(f"contamination is {contamination!r}; give more than 0 and less than 1.")


def checked_scores(scores: ArrayLike, n_rows: int, detector: str) -> np.ndarray:
    """Return a copy, float64 (n_rows,), of the scores that a detector of that name gave.

    Raises:
        InputError: they are not one finite number a row.
    """
    try:
        scores = np.array(scores, np.float64)
    except (TypeError, ValueError) as error:
        reason = one_line(error).rstrip(".")
        raise InputError(f"{detector} gives scores that are no numbers: {reason}.") from error
    if scores.shape != (n_rows,):
        raise InputError(
            f"{detector} gives scores of the shape {scores.shape} for {n_rows} rows; it must"
            " give one number a row."
        )
    if not np.isfinite(scores).all():
        row = int(np.isfinite(scores).argmin())
        raise InputError(
            f"{detector} scores a row as {scores[row]} ({row + 1} of {n_rows}); it must give finite"
            " numbers: mend it, drop constant columns, or take another."
        )
    return scores


def sqrt_balanced_weights(y: np.ndarray) -> np.ndarray:
    """Weights, float64 (n,): the root of those of balanced classes, and 1 for label 0.

    Half-way between rows that count alike and classes that do, as in CatBoost's `SqrtBalanced`.
    """
    normals, anomalies = np.bincount(y, minlength=2)
    return np.where(y == 1, np.sqrt(normals / anomalies), 1.0)


def real_weights(y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """Weights, float32, of the rows that are not synthetic.

    Known anomalies take over what the synthetic ones weigh, so that a model of the real rows is the
    same with and without them; in float32, which forgets the rounding of the sums. Arguments are
    those of `Detector.fit`, each (n,).
    """
    real, anomaly = ~synthetic, y == 1
    taken_over = weight[anomaly].sum() / weight[anomaly & real].sum()
    return (np.where(anomaly, taken_over, 1.0)[real] * weight[real]).astype(np.float32)


def real_rows(
    X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, labels and `real_weights` of what is not synthetic; arguments as in `fit`."""
    return X[~synthetic], y[~synthetic], real_weights(y, weight, synthetic)


def relative_weights(y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weights, float (n,), of which those of rows labelled 0, where not 0, are about 1 in the mean.

    CatBoost's sampling fails on small numbers, such as weights that sum to 1. They are divided by a
    power of two, which rounds none.
    """
    mean = weight[(y == 0) & (weight > 0)].mean()
    return weight / 2 ** np.round(np.log2(mean))
