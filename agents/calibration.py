"""Scores of normal rows by detectors that have not learned them."""

import numpy as np

from agents.hardening import make_detector
from agents.settings import HardeningSettings
from detectors.replay import replay_set

FOLDS = 5


def held_out_scores(
    X: np.ndarray, y: np.ndarray, bank: np.ndarray, settings: HardeningSettings, seed: int
) -> np.ndarray:
    """Score rows labelled 0, float64 (m,), a fifth of them at a time being left out of a fit.

    Args:
        X: rows, float64 (n, d).
        y: labels, int (n,), m of them 0.
        bank: synthetic anomalies that every fit learns from, float64 (k, d).
        settings: which detector, and how much the bank weighs.
        seed: of the folds and of the fits.

    Raises:
        ValueError: there is one row labelled 0 only.
    """
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
    scores = []
    for held_out in np.array_split(normal, min(FOLDS, len(normal))):
        rest = np.delete(np.arange(len(X)), held_out)
        learned = replay_set(X[rest], y[rest], bank, settings.synthetic_weight)
        scores.append(make_detector(settings, seed).fit(*learned).decision_function(X[held_out]))
    return np.concatenate(scores)
