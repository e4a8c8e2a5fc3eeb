"""Seeds for whatever draws."""

from numbers import Integral

import numpy as np
from sklearn.utils import check_random_state

from common.errors import InputError

RandomState = int | np.random.RandomState | None  # what scikit-learn takes as `random_state`


def as_seed(random_state: RandomState) -> int:
    """Return an integer itself; otherwise draw a seed, from a `RandomState` or from NumPy's own.

    Raises:
        InputError: the integer is negative, or not below 2**32.
    """
    if isinstance(random_state, Integral):
        if not 0 <= random_state < 2**32:
            raise InputError(f"random_state is {random_state}; give at least 0 and below 2**32.")
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def draw_seed(rng: np.random.Generator) -> int:
    """Draw a seed for a component that takes an integer."""
    return int(rng.integers(2**31))
