"""In-model preprocessing: robust scale and piecewise-linear bins, held as torch buffers."""

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from common.scaling import RowScaler


class PiecewiseLinearEncoding(nn.Module):
    """Scaled columns followed by their piecewise-linear encoding (Gorishniy et al. 2022).

    Bin edges are the training quantiles, so the sum over a column's bins is its quantile map.
    Columns with few values have bins of no width; these encode a step.
    """

    edges: Tensor

    def __init__(self, n_features: int, n_bins: int) -> None:
        super().__init__()
        self.scaler = RowScaler(n_features)
        self.register_buffer("edges", torch.zeros(n_features, n_bins + 1))
        self.n_outputs = n_features * (n_bins + 1)

    def fit(self, X: np.ndarray) -> Self:
        """Learn scale and quantiles of `X`, float (n, d)."""
        scaled = self.scaler.fit(X)(X).numpy()
        quantiles = np.linspace(0, 1, self.edges.shape[1])
        self.edges.copy_(torch.from_numpy(np.quantile(scaled, quantiles, axis=0).T))
        return self

    def forward(self, scaled: Tensor, *further: Tensor) -> Tensor:
        """Encode scaled rows, float32 (n, d), as float32 (n, d * (n_bins + 1)).

        `further` columns, each float32 (n, m), follow as they are.
        """
        low, high = self.edges[:, :-1], self.edges[:, 1:]
        slope = 1 / (high - low).clamp(min=1e-3)
        bins = torch.addcmul(-low * slope, scaled[..., None], slope).clamp_(0, 1)
        return torch.cat([scaled, bins.flatten(1), *further], dim=1)
