"""Rows and labels that come from a caller in Python."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_X_y

FLOAT32_MAX = float(np.finfo(np.float32).max)  # what detectors take at most
FLOAT32_TINY = float(np.finfo(np.float32).tiny)  # the least number that it holds in full


def check_float32(X: np.ndarray) -> None:
    """Raise `ValueError` where rows, float (n, d), hold a value that float32 does not."""
    if np.abs(X).max() > FLOAT32_MAX:
        raise ValueError("X holds a value beyond float32; replace it or drop its column.")


def checked_rows(X: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return rows as float64 (n, d), and labels that are 0 or 1 as int64 (n,).

    Raises:
        ValueError: values that are not finite, mismatched lengths, or other labels.
    """
    rows, labels = check_X_y(X, y, dtype=np.float64)
    if not np.isin(labels, [0, 1]).all():
        raise ValueError(f"Labels are 0, and 1 for an anomaly; y holds {np.unique(labels)[:5]}.")
    return rows, labels.astype(np.int64)
