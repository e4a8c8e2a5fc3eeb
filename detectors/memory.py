"""A one-class expert: the distance to remembered normal rows."""

from typing import Self

import numpy as np
import torch
from scipy.stats import ks_2samp
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

CAPACITY = 256  # rows that a detector remembers at most
NEIGHBOURS = 5
FLOOR = 1e-3  # of the mean squared difference of a column; keeps the logarithm above rounding


class Memory(nn.Module):
    """Log-odds of novelty from the distance to the five nearest remembered normal rows.

    The log-odds are affine in the logarithm of the root mean square distance; `calibrate` fits
    both coefficients by logistic regression of synthetic against normal rows. A column counts in
    the distance as much as known anomalies stand out in it: a kind not seen yet is likelier to show
    where seen kinds do than in columns that no anomaly touched.
    """

    rows: Tensor
    column_scale: Tensor
    slope: Tensor
    offset: Tensor

    def __init__(self, n_rows: int, n_features: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(n_rows, n_features))
        self.register_buffer("column_scale", torch.ones(n_features))
        self.register_buffer("slope", torch.zeros(()))
        self.register_buffer("offset", torch.zeros(()))

    def fit(self, normals: Tensor, known: Tensor, generator: torch.Generator) -> Self:
        """Weigh the columns and remember a random choice of scaled normal rows.

        Differences are weighted by the column's Kolmogorov-Smirnov statistic between `normals`,
        float32 (n, d), and `known` anomalies, float32 (m, d), in mean 1.
        """
        pairs = zip(normals.cpu().numpy().T, known.cpu().numpy().T, strict=True)
        weight = torch.tensor([ks_2samp(*pair).statistic for pair in pairs])
        if weight.any():
            self.column_scale.copy_(weight / weight.mean())
        chosen = torch.randperm(len(normals), generator=generator)[: len(self.rows)]
        self.rows.copy_(normals[chosen])
        return self

    def calibrate(self, synthetic: Tensor) -> None:
        """Fit the log-odds on scaled synthetic rows, float32 (m, d), and the remembered ones."""
        apart = self.squared_distances(self.rows)
        if len(self.rows) > 1:
            apart.fill_diagonal_(torch.inf)
        distance = torch.cat([log_distance(apart), self.log_distance(synthetic)]).cpu().numpy()
        label = np.repeat([0, 1], [len(self.rows), len(synthetic)])
        fitted = LogisticRegression(class_weight="balanced").fit(distance[:, None], label)
        self.slope.fill_(max(fitted.coef_.item(), 0.0))
        self.offset.fill_(fitted.intercept_.item())

    def log_distance(self, scaled: Tensor) -> Tensor:
        """Logarithm of the distance to the nearest remembered rows, float32 (n,)."""
        return log_distance(self.squared_distances(scaled))

    def squared_distances(self, scaled: Tensor) -> Tensor:
        """Weighted mean squared difference from each remembered row, float32 (n, rows)."""
        rows, remembered = scaled * self.column_scale, self.rows * self.column_scale
        squares = rows.square().sum(dim=1, keepdim=True) + remembered.square().sum(dim=1)
        return ((squares - 2 * rows @ remembered.T) / scaled.shape[1]).clamp(min=0)

    def forward(self, scaled: Tensor) -> Tensor:
        """Return the log-odds of novelty, float32 (n,), of scaled rows, float32 (n, d)."""
        return self.slope * self.log_distance(scaled) + self.offset


def log_distance(squared: Tensor) -> Tensor:
    """Logarithm of the root mean of each row's five smallest finite entries, of (n, m)."""
    k = min(NEIGHBOURS, max(squared.shape[1] - 1, 1))
    return 0.5 * torch.log(squared.topk(k, largest=False).values.mean(dim=1) + FLOOR)
