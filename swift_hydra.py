"""The estimator: hardening behind scikit-learn's `fit` and `decision_function`."""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted, validate_data

import detectors
from agents.calibration import held_out_scores
from agents.hardening import harden
from agents.settings import HardeningSettings
from common.errors import InputError
from common.estimators import TwoClassClassifier, all_or_nothing
from common.labels import encode_labels
from common.seeds import RandomState, as_seed
from detectors.base import check_contamination


class SwiftHydra(TwoClassClassifier):
    """A detector hardened against anomalies that it has not seen.

    Args:
        detector: id of a detector backend, see `detectors.ids()`.
        generator: id of a generator, see `generators.ids()`.
        agent: a key of `agents.algorithms.ALGORITHMS`, or `module:Class`.
        rounds: rounds of search and retraining.
        timesteps: env steps a round at least; a rollout is finished.
        synthetic_weight: share in [0, 1) of the anomalies' training weight that found rows get.
        contamination: share of new rows labelled 0 that `predict` shall call anomalies; by default
            the threshold is the detector's own. `mamba-moe` and `mamba` see to it themselves. With
            the others `threshold_` is a quantile of the scores that the training rows labelled 0
            get from ten further fits, each of which leaves out a tenth of them.
        random_state: seed of everything drawn.
        progress: show a progress bar.

    Attributes:
        detector_: the hardened detector.
        unhardened_: the same backend fitted on the given rows alone.
        bank_: synthetic anomalies, drawn and found, float64 (m, d), in the units of the rows given
            to `fit`. The detector was trained on them, unless they have no weight, it can only be
            queried, or it has no trust in them (see the method's page).
        history_: one dict a round: queries, bypasses, successes, bank size and more.
        classes_: the two labels.
        threshold_: score above which `predict` returns 1.
        decision_scores_: scores of the given rows, float64 (n,), as in PyOD; the flagship measures
            none of them against itself.
        labels_: 1 for each given row whose score exceeds the threshold, int (n,), as in PyOD.
        feature_names_in_: column names, where the rows were a data frame.
    """

    def __init__(
        self,
        detector: str = "mamba-moe",
        generator: str = "cvae",
        agent: str = "ppo",
        rounds: int = 4,
        timesteps: int = 10_000,
        synthetic_weight: float = 0.1,
        contamination: float | None = None,
        random_state: RandomState = 0,
        progress: bool = False,
    ) -> None:
        self.detector = detector
        self.generator = generator
        self.agent = agent
        self.rounds = rounds
        self.timesteps = timesteps
        self.synthetic_weight = synthetic_weight
        self.contamination = contamination
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train and harden on rows `X`, float (n, d), and labels `y`, int (n,).

        Labels are 1 for a known anomaly and 0 for everything else; both must occur. Of any other
        two labels the higher one is the anomaly. A `fit` that ends in an error changes nothing.

        Raises:
            ValueError: values that are not finite or beyond float32, mismatched lengths, or other
                than two labels.
            InputError: a name is unknown, a setting is out of range, a part refuses the rows or
                fails, or one row only is labelled 0 where `contamination` needs some held out.
        """
        with all_or_nothing(self):
            rows, given = validate_data(self, X, y, dtype=np.float64, force_writeable=True)
            self.classes_, labels = encode_labels(given)
            return self._harden(rows, labels)

    def _harden(self, X: np.ndarray, y: np.ndarray) -> Self:
        calibrated = self._detector_is_calibrated(y)
        settings = HardeningSettings(
            detector=self.detector,
            generator=self.generator,
            algo=self.agent,
            rounds=self.rounds,
            timesteps=self.timesteps,
            synthetic_weight=self.synthetic_weight,
            contamination=self.contamination if calibrated else None,
        )
        seed = as_seed(self.random_state)
        hardened = harden(X, y, settings, seed, self.progress)
        self.detector_, self.unhardened_ = hardened.scenario.detector, hardened.unhardened
        self.bank_, self.history_ = hardened.scenario.bank, hardened.history
        self.decision_scores_ = self.detector_.decision_scores_[: len(X)]
        self.threshold_ = self.detector_.threshold_
        if self.contamination is not None and not calibrated:
            n_found = sum(int(record["added"]) for record in self.history_)
            found = self.bank_[len(self.bank_) - n_found :]
            held_out = held_out_scores(X, y, found, settings, seed)
            self.threshold_ = float(np.quantile(held_out, 1 - self.contamination))
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)
        return self

    def _detector_is_calibrated(self, y: np.ndarray) -> bool:
        """Tell whether the detector itself sees to the contamination, if there is one.

        Raises:
            InputError: it does not, and too few rows are labelled 0 to hold some of them out.
        """
        if self.contamination is None:
            return False
        check_contamination(self.contamination)
        calibrated = "contamination" in detectors.make(self.detector).get_params()
        if not calibrated and (y == 0).sum() < 2:
            raise InputError("One row only is labelled 0; add others, or leave out contamination.")
        return calibrated

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return the log-odds of anomaly of rows `X`, float (n, d), as float64 (n,).

        Raises:
            NotFittedError: there was no `fit`.
            ValueError: values that are not finite, or another number of columns than in `fit`.
        """
        check_is_fitted(self, "detector_")
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return self.detector_.decision_function(X)
