"""Log-odds of anomaly from what classifiers say, tamed where these are too sure."""

import numpy as np
import torch
from scipy.special import logit

from common.scaling import compress

CERTAIN = 700.0  # log-odds of a probability that float64 cannot tell from 0 or 1
CONFIDENT = 7.0  # log-odds beyond which they grow with the logarithm
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
