"""Log-odds of anomaly from what other models say, tamed where these are too sure."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.special import logit
from sklearn.ensemble import ExtraTreesClassifier

from common.divisor import divisor
from common.scaling import WINSOR, compress

CERTAIN = 700.0  # log-odds of a probability that float64 cannot tell from 0 or 1
CONFIDENT = 7.0  # log-odds beyond which they grow with the logarithm
CONTAMINATION = 0.1  # PyOD's default share of training rows that count as anomalies
NO_VOTE = 1e-3  # what stands for a share of no votes


def class_log_odds(logarithm: np.ndarray) -> np.ndarray:
    """Return log-odds, float64 (n,), tamed beyond +-7 but not tied.

    Args:
        logarithm: log-probabilities of normal and of anomaly, float (n, 2); minus infinity for 0.
    """
    log_odds = (logarithm[:, 1] - logarithm[:, 0]).clip(-CERTAIN, CERTAIN)
    return compress(torch.from_numpy(log_odds), CONFIDENT).numpy()


def vote_log_odds(share: np.ndarray) -> np.ndarray:
    """Return log-odds of shares of votes, float64 (n,), kept 0.001 away from 0 and 1."""
    return logit(share.clip(NO_VOTE, 1 - NO_VOTE))


def forest_log_odds(forest: ExtraTreesClassifier, X: np.ndarray) -> np.ndarray:
    """Return the log-odds of the share of trees that call a row an anomaly, float64 (n,).

    The trees are asked without the forest's overhead, which dominates on few rows.

    Args:
        forest: fitted, on two classes.
        X: rows, float (n, d), of values that float32 holds.
    """
    rows = X.astype(np.float32)
    votes = (tree.tree_.predict(rows)[:, 1] for tree in forest.estimators_)
    return vote_log_odds(sum(votes, np.zeros(len(rows))) / len(forest.estimators_))


@dataclass(frozen=True)
class Score:
    """Turns a foreign score, higher where more anomalous, into a stand-in for log-odds.

    0 is the score above which the backend itself calls a row an anomaly, and 1 the deviation of
    the winsorised scores of training rows labelled 0; beyond 3 it grows with the logarithm. The
    ranking is the backend's own.
    """

    zero: float
    unit: float

    @classmethod
    def of(cls, normal: np.ndarray, zero: float | None) -> Self:
        """Take the unit, and where the backend names none the zero, from scores, float (n,)."""
        core = np.clip(normal, *np.quantile(normal, [WINSOR, 1 - WINSOR]))
        if zero is None:
            zero = float(np.quantile(normal, 1 - CONTAMINATION))
        _, exponent = np.frexp(np.abs(core).max())  # squares of large scores would be infinite
        deviation = np.ldexp(np.ldexp(core, -exponent).std(), exponent)
        return cls(float(zero), float(divisor(deviation, core)))

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Convert scores, float (n,), to float64 (n,)."""
        return compress(torch.from_numpy((scores - self.zero) / self.unit)).numpy()
