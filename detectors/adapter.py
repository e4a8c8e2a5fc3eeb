"""Makes a `Detector` of any class that has `fit` and `decision_function`."""

import copy
import warnings
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

import detectors
from common.errors import InputError, reason, refused_by
from common.randomness import global_seed
from common.rows import FLOAT32_MAX
from common.seeds import RandomState
from detectors.base import checked_scores
from detectors.foreign import (
    fit,
    is_pyod_outlier,
    is_scikit_outlier,
    own_threshold,
    parameters,
    raw_scores,
    takes_labels,
    unshared,
)
from detectors.log_odds import Score, forest_log_odds
from detectors.refitted import RefittedDetector

HEAD_TREES = 200
N_ALONE = 3  # training rows, and new rows between two of them, that are scored alone


class AdaptedDetector(RefittedDetector):
    """A registered class that is no `Detector` itself.

    What it needs is `fit(X, y)` and `decision_function(X)`, float (n,), higher where more
    anomalous; `predict_proba` serves as well. `sample_weight` is passed on where `fit` takes it.
    Members of the `pyod:` and `sklearn:` families get columns standardised on the training rows.

    An outlier detector (PyOD's, and scikit-learn's, whose sign is turned) is fitted on the rows
    labelled 0, and without synthetic rows its ranking is its own. It cannot learn from an anomaly,
    so it is hardened as in XGBOD (Zhao & Hryniewicki 2018): its score becomes one more column of
    the rows, and extra trees learn labelled and synthetic anomalies from both.

    Args:
        backend: the registered id, or `family:member`.
        settings: keyword arguments of its class.
        random_state: seed of the class, where it takes one and was registered with none, and of
            the extra trees.
    """

    def __init__(
        self, backend: str, settings: dict[str, Any] | None = None, random_state: RandomState = 0
    ) -> None:
        self.backend = backend
        self.settings = settings
        self.random_state = random_state

    def _refit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        self.estimator_ = self._make_estimator()
        standardise = self.backend not in detectors.registry.specs  # but of a family
        scaler = StandardScaler(with_mean=standardise, with_std=standardise)
        self.scaler_ = scaler.set_output(transform="default")
        counts = weight > 0
        scaled = self.scaler_.fit(X[~synthetic & counts]).transform(X)
        self.head_ = None
        normal = (y == 0) & counts
        one_class = is_pyod_outlier(self.estimator_) or is_scikit_outlier(self.estimator_)
        with global_seed(self.seed_), refused_by(self.backend, "detector"):
            if one_class:
                fit(self.estimator_, scaled[normal], None, weight[normal])
            else:
                fit(self.estimator_, scaled.copy(), y.copy(), weight)
        asked = self._ask(scaled)
        self._ask_alone(scaled, asked)
        own = asked.copy()
        if is_pyod_outlier(self.estimator_):  # its own scores leave each row out
            own[normal] = self.estimator_.decision_scores_
        with refused_by(self.backend, "detector"):
            zero = own_threshold(self.estimator_, self.backend)
        self.score_ = Score.of(own[normal], zero)
        self.decision_scores_ = self.score_(own)
        if one_class and weight[synthetic].any():
            head = ExtraTreesClassifier(HEAD_TREES, random_state=self.seed_)
            augmented = augment(scaled, self.decision_scores_)
            self.head_ = head.fit(augmented, y, sample_weight=weight)
            self.decision_scores_ = self._convert(scaled, asked)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Share the fitted estimator, which need not be copyable: a retraining makes another."""
        twin = type(self).__new__(type(self))
        shared = self.__dict__.get("estimator_")
        memo |= {id(self): twin, id(shared): shared}
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        return twin

    def save(self, folder: Path | str) -> None:
        """Write settings and training rows; raise `InputError` where JSON does not hold a setting.

        Those that `register` was given are not saved: `load` takes them from the registry.
        """
        check_is_fitted(self)
        for name, value in (self.fitted_with_["settings"] or {}).items():
            if not is_plain(value):
                raise InputError(
                    f"{self.backend} cannot be saved with {name}={value!r}, which JSON does not"
                    f" hold; give {name} to detectors.register with an id of its own."
                )
        super().save(folder)

    def _ask(self, scaled: np.ndarray) -> np.ndarray:
        """Return the class's own scores, float64 (n,), of scaled rows, (n, d).

        Raises:
            InputError: it refuses the rows, fails, or does not give one finite number a row.
        """
        with refused_by(self.backend, "detector"):
            own = raw_scores(self.estimator_, scaled.copy())
        return checked_scores(own, len(scaled), self.backend)

    def _ask_alone(self, scaled: np.ndarray, own: np.ndarray) -> None:
        """Score some rows and new ones between them, each alone, as an env asks for, and compare.

        Args:
            scaled: scaled rows, (n, d).
            own: their scores, (n,).

        Raises:
            InputError: a row has no score of its own.
        """
        first, new = scaled[:N_ALONE], (scaled[:N_ALONE] + scaled[-N_ALONE:]) / 2
        try:
            alone = np.concatenate([self._ask(row[None]) for row in (*first, *new)])
            among_others = np.concatenate([own[:N_ALONE], self._ask(new)])
        except InputError as error:
            raise InputError(f"{self.backend} cannot score a row alone: {error}") from error
        if not np.allclose(alone, among_others, rtol=1e-3, atol=1e-3 * np.ptp(among_others)):
            warnings.warn(
                f"{self.backend} scores a row otherwise alone than among others, so single envs,"
                " vector envs and held-out rows differ; prefer another detector.",
                stacklevel=2,
            )

    def _make_estimator(self) -> Any:
        spec = detectors.registry.spec(self.backend)
        backend = detectors.registry.load(self.backend)
        arguments = {**spec.kwargs, **(self.settings or {})}
        if "random_state" in parameters(backend):
            arguments.setdefault("random_state", self.seed_)
        if issubclass(backend, LocalOutlierFactor):  # which scores new rows only so
            arguments.setdefault("novelty", True)
        try:
            estimator = backend(**{name: unshared(value) for name, value in arguments.items()})
        except Exception as error:
            told = reason(error).rstrip(".")
            raise InputError(
                f"{self.backend} cannot be made ({told}); mend it, or give what it lacks to"
                " detectors.register with an id of its own."
            ) from error
        if not takes_labels(estimator):
            raise InputError(f"{self.backend} has no method fit(X, y) of rows and labels; add it.")
        if not any(hasattr(estimator, name) for name in ("decision_function", "predict_proba")):
            raise InputError(
                f"{self.backend} has neither decision_function nor predict_proba; take a classifier"
                " or an outlier detector."
            )
        return estimator

    def _training_log_odds(self, X: np.ndarray) -> np.ndarray:
        """Return the scores that `_refit` kept."""
        return self.decision_scores_

    def _log_odds(self, X: np.ndarray) -> np.ndarray:
        scaled = self.scaler_.transform(X)
        return self._convert(scaled, self._ask(scaled))

    def _convert(self, scaled: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """Turn the class's scores, (n,), of scaled rows, (n, d), into log-odds, float64 (n,)."""
        score = self.score_(asked)
        return score if self.head_ is None else forest_log_odds(self.head_, augment(scaled, score))


def augment(scaled: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Add a score, (n,), to scaled rows, (n, d), as a column; far values as far as float32 goes."""
    return np.column_stack([scaled, score]).clip(-FLOAT32_MAX, FLOAT32_MAX)


def is_plain(value: Any) -> bool:
    """Tell whether a setting comes back from JSON as it was, but for a tuple, which is a list."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(held) for key, held in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, str | int | float | np.bool_ | np.number)
