"""The labelled table that every source is read into."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np


@dataclass(frozen=True, eq=False)
class Table:
    """Rows with labels.

    Attributes:
        X: rows, float64 (n, d).
        y: labels, int64 (n,); 1 is an anomaly, 0 a normal row.
        feature_names: the d column names.
        name: the source that `data.load` reads the same table from.
        kind: the true kind of each anomaly from 1 up, 0 for normal rows, int64 (n,); None where
            kinds are not known.
    """

    X: np.ndarray
    y: np.ndarray
    feature_names: list[str]
    name: str
    kind: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Self:
        """Return the table of these rows, int (m,), in their order."""
        kind = None if self.kind is None else self.kind[rows]
        return replace(self, X=self.X[rows], y=self.y[rows], kind=kind)
