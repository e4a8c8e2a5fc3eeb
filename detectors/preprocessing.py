"""In-model preprocessing: robust scale and piecewise-linear bins, held as torch buffers."""

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from common.scaling import RowScaler

MIN_WIDTH = 1e-3  # of a bin, in scaled units


class PiecewiseLinearEncoding(nn.Module):
    """Scaled columns followed by their piecewise-linear encoding (Gorishniy et al. 2022).

    Bin edges are the training quantiles, and unlike the paper's the first and the last bin are
    clipped, too, so the sum over a column's bins is its quantile map times their number.
    Where quantiles coincide, as in columns with few values, bins follow each other by a narrow
    step, so that always one bin is filled after the other.
    """

    edges: Tensor

    def __init__(self, n_features: int, n_bins: int) -> None:
        super().__init__()
        self.scaler = RowScaler(n_features)
        self.register_buffer("edges", torch.zeros(n_features, n_bins + 1))
        self.n_outputs = n_features * (n_bins + 1)

    def fit(self, X: np.ndarray) -> Self:
        """Learn scale and quantiles of `X`, float (n, d)."""
        scaled = self.scaler.fit(X)(X).cpu().numpy()
        steps = MIN_WIDTH * np.arange(self.edges.shape[1])
        quantiles = np.quantile(scaled, np.linspace(0, 1, len(steps)), axis=0).T
        edges = np.maximum.accumulate(quantiles - steps, axis=1) + steps
        self.edges.copy_(torch.from_numpy(edges))
        return self

    def forward(self, scaled: Tensor, *further: Tensor) -> Tensor:
        """Encode scaled rows, float32 (n, d), as float32 (n, d * (n_bins + 1)).

        `further` columns, each float32 (n, m), follow as they are.
        """
        return torch.cat([scaled, self.bins(scaled).flatten(1), *further], dim=1)

    def bins(self, scaled: Tensor) -> Tensor:
        """Return how far each bin is filled, float32 (n, n_bins, d), of scaled rows, (n, d)."""
        low, high = self.edges.T[:-1].contiguous(), self.edges.T[1:].contiguous()
        slope = 1 / (high - low)
        return torch.addcmul(-low * slope, scaled[:, None], slope).clamp_(0, 1)
