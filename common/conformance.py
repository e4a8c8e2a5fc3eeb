"""What the conformance checks of detectors and of generators have in common."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

N_NORMAL, N_ANOMALIES, N_FEATURES = 120, 24, 5
T = TypeVar("T")


def faults(check: Callable[[T], Iterator[str]], trial: T) -> list[str]:
    """Run one check; an exception is a fault too, told by the check's docstring."""
    try:
        return list(check(trial))
    except Exception as error:
        return [f"{(check.__doc__ or '').rstrip('.')}, but it raised {error!r}."]


def made_up_rows(n_features: int = N_FEATURES) -> tuple[np.ndarray, np.ndarray]:
    """Draw a round cloud of normal rows and a wider one of anomalies.

    Returns:
        rows, float64 (144, n_features), and labels, int64 (144,).
    """
    rng = np.random.default_rng(0)
    normals = rng.standard_normal((N_NORMAL, n_features))
    anomalies = 3 * rng.standard_normal((N_ANOMALIES, n_features)) + 2
    return np.concatenate([normals, anomalies]), np.repeat([0, 1], [N_NORMAL, N_ANOMALIES])
