"""How novel rows are to a table, for detectors that are no network."""

import numpy as np
import torch

from common.scaling import RowScaler
from detectors.memory import Memory
from detectors.remembered import ROWS_AT_ONCE


class Novelty:
    """A `Memory` of the normal rows of a table, and its scaler.

    Args:
        X: rows, float (n, d).
        y: labels, int (n,): 0, and 1 for a known anomaly.
        seed: of the choice of rows to remember.

    Attributes:
        trust: that of the memory, in [0, 1].
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, seed: int) -> None:
        self.scaler = RowScaler(X.shape[1]).fit(X)
        scaled, normal = self.scaler(X), y == 0
        self.memory = Memory(int(normal.sum()), X.shape[1])
        choice = torch.Generator().manual_seed(seed)
        self.memory.fit(scaled[normal], scaled[~normal], self.scaler.scale, choice)
        self.trust = self.memory.trust.item()

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return the memory's first measure, float64 (n,), of rows, float (n, d).

        It has mean 0 and deviation 1 over the normal rows.
        """
        batches = self.scaler(X).split(ROWS_AT_ONCE)
        return torch.cat([self.memory(batch)[:, 0] for batch in batches]).double().numpy()
