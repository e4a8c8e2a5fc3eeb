"""Replay: real rows and found rows together, so that retraining forgets nothing."""

import copy

import numpy as np

from detectors.base import Detector, sqrt_balanced_weights


def replay_set(
    X: np.ndarray, y: np.ndarray, bank: np.ndarray, synthetic_weight: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Join real rows and synthetic anomalies: what `Detector.fit` takes, in its order.

    Args:
        X: real rows, float (n, d).
        y: their labels, int (n,).
        bank: synthetic anomalies, float (m, d).
        synthetic_weight: share in [0, 1) of the anomalies' weight that the bank gets; the classes
            weigh what they do without a bank whatever it is. With 0 the bank is left out.
    """
    if synthetic_weight == 0:
        bank = bank[:0]
    weight = sqrt_balanced_weights(y)
    synthetic = np.repeat([False, True], [len(X), len(bank)])
    if len(bank):
        of_bank = synthetic_weight * weight[y == 1].sum()
        weight[y == 1] *= 1 - synthetic_weight
        weight = np.concatenate([weight, np.full(len(bank), of_bank / len(bank))])
    labels = np.concatenate([y, np.ones(len(bank), dtype=y.dtype)])
    return np.concatenate([X, bank]), labels, weight, synthetic


def retrained(
    detector: Detector, X: np.ndarray, y: np.ndarray, bank: np.ndarray, synthetic_weight: float
) -> Detector:
    """Return a copy of `detector` that was retrained on the replay set.

    One that can only be queried is returned as it is.
    """
    if not detector.trainable:
        return detector
    successor = copy.deepcopy(detector)
    return successor.partial_fit(*replay_set(X, y, bank, synthetic_weight))
