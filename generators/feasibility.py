"""The feasibility gate: a synthetic anomaly must lie outside the normal rows' own support."""

from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from common.scaling import RowScaler

MAX_REFERENCES = 2000
PERCENTILE = 95.0
BLOCK = 1024  # rows whose distances are held at once


class FeasibilityGate:
    """Nearest-neighbour support of the normal rows, in scaled units.

    A row is feasible when its distance to the nearest normal row exceeds the 95th percentile of
    the normal rows' own nearest-neighbour distances (`radius`). At most 2,000 distinct normal rows,
    drawn with `rng`, serve as references, so that a query's cost does not grow with the data.
    """

    references: Tensor
    radius: float

    def __init__(self, scaler: RowScaler) -> None:
        self.scaler = scaler

    def fit(self, X: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Self:
        """Learn the support of the rows of `X`, float (n, d), whose label `y` is 0."""
        normals = pd.DataFrame(X[y == 0]).drop_duplicates().to_numpy()
        chosen = rng.permutation(len(normals))[:MAX_REFERENCES]
        return self.refer_to(self.scaler(normals[chosen]))

    def refer_to(self, references: Tensor) -> Self:
        """Take scaled normal rows, float32 (m, d), as the support, and set the radius.

        Raises:
            ValueError: there are none, they have other columns than the scaler, or are not finite.
        """
        if references.shape[1:] != self.scaler.center.shape or not len(references):
            raise ValueError(f"References have the shape {tuple(references.shape)}.")
        if references.dtype != torch.float32 or not references.isfinite().all():
            raise ValueError("References are not finite numbers of 32 bits.")
        self.references = references
        nearest = nearest_other(references)
        finite = nearest[nearest.isfinite()]
        radius = np.percentile(finite.numpy(), PERCENTILE) if len(finite) else 0.0
        self.radius = max(float(radius), 1e-6)
        return self

    def margin(self, scaled: Tensor) -> Tensor:
        """Return how far scaled rows, float32 (n, d), are from the nearest normal one.

        Returns:
            the distance in units of the radius, less one, float32 (n,): above 0 is feasible.
        """
        return nearest_distance(scaled, self.references) / self.radius - 1

    def feasible(self, X: np.ndarray) -> np.ndarray:
        """Tell which rows of `X`, float (n, d) in the input's units, are feasible; bool (n,)."""
        return (self.margin(self.scaler(X)) > 0).numpy()


def nearest_other(rows: Tensor) -> Tensor:
    """Euclidean distance of each row, float32 (n, d), to the nearest other one; inf for one row."""
    least = []
    for own in torch.arange(len(rows)).split(MAX_REFERENCES):
        apart = torch.cdist(rows[own], rows)
        apart[torch.arange(len(own)), own] = torch.inf
        least.append(apart.amin(dim=1))
    return torch.cat(least)


def farthest(rows: Tensor, references: Tensor, n: int) -> Tensor:
    """Choose up to `n` rows that lie apart: the farthest-point traversal (Gonzalez 1985).

    Each is the one farthest from the references, float32 (m, d), and from those chosen before it;
    the first one where there is no reference.

    Returns:
        the numbers of the chosen ones of `rows`, float32 (k, d), in ascending order.
    """
    if len(rows) <= n:
        return torch.arange(len(rows))
    distance, chosen = nearest_distance(rows, references), []
    for _ in range(n):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (rows - rows[chosen[-1]]).norm(dim=1))
        distance[chosen[-1]] = -torch.inf  # another row may repeat it
    return torch.tensor(sorted(chosen))


def nearest_distance(rows: Tensor, references: Tensor) -> Tensor:
    """Euclidean distance of each row (n, d) to the nearest of the references (m, d); inf for none.

    What a row adds to all its squared distances is added to the least of them only.
    """
    if not len(references):
        return rows.new_full((len(rows),), torch.inf)
    squares = references.square().sum(dim=1)
    least = [
        torch.addmm(squares, block, references.T, alpha=-2).amin(dim=1)
        for block in rows.split(BLOCK)
    ]
    return (torch.cat(least) + rows.square().sum(dim=1)).clamp(min=0).sqrt()
