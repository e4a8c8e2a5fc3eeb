"""Scores of normal rows by detectors that have not learned them."""

import numpy as np

from agents.hardening import background_bank, make_detector
from agents.settings import HardeningSettings
from common.scaling import RowScaler
from detectors.replay import replay_set
from generators.feasibility import FeasibilityGate

FOLDS = 10


def held_out_scores(
    X: np.ndarray, y: np.ndarray, found: np.ndarray, settings: HardeningSettings, seed: int
) -> np.ndarray:
    """Score rows labelled 0, float64 (m,), a tenth of them at a time being left out of a fit.

    Background rows are drawn anew for each fit: new rows do not meet rows that were made of them.

    Args:
        X: rows, float64 (n, d).
        y: labels, int (n,), m of them 0 and m at least 2.
        found: rows that the search found, of which every fit learns, too, float64 (k, d).
        settings: which detector, how many background rows, and how much all these weigh.
        seed: of the folds, of the background rows and of the fits.
    """
    rng = np.random.default_rng(seed)
    normal, scores = rng.permutation(np.flatnonzero(y == 0)), []
    for held_out in np.array_split(normal, min(FOLDS, len(normal))):
        rest = np.delete(np.arange(len(X)), held_out)
        gate = FeasibilityGate(RowScaler(X.shape[1]).fit(X[rest])).fit(X[rest], y[rest], rng)
        background = background_bank(X[rest], y[rest], gate, settings.n_background, rng)
        bank = np.concatenate([background, found])
        learned = replay_set(X[rest], y[rest], bank, settings.synthetic_weight)
        scores.append(make_detector(settings, seed).fit(*learned).decision_function(X[held_out]))
    return np.concatenate(scores)
