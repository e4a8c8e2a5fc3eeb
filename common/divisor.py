"""What columns are divided by when they are standardised."""

import numpy as np


def divisor(spread: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the spreads of columns of `rows`, (n, d), but 1 for constant ones.

    The deviation of a constant that is no binary fraction is a rounding error above 0.
    """
    return np.where((np.ptp(rows, axis=0) > 0) & (spread > 0), spread, 1.0)
