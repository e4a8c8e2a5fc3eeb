"""A linear layer after a piecewise-linear encoding, as a table that is looked up."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.preprocessing import PiecewiseLinearEncoding


class PiecewiseLinearLookup:
    """Computes `layer(encoding(scaled, further))` without the encoding's many columns.

    What a column's bins add to the layer's outputs is a piecewise-linear function of the column:
    its values at the edges are tabulated, and a row takes the mean of the two that it is between.
    An eighth of the multiplications of the matrix product remains.
    """

    @torch.no_grad()
    def __init__(self, encoding: PiecewiseLinearEncoding, weight: Tensor, bias: Tensor) -> None:
        """Tabulate a layer of `weight`, (m, encoding's columns + further ones), and `bias`, (m,)."""
        d, n_edges = encoding.edges.shape
        scaled, bins, further = weight.split(
            [d, d * (n_edges - 1), weight.shape[1] - d * n_edges], dim=1
        )
        values = bins.T.unflatten(0, (d, n_edges - 1)).cumsum(dim=1)
        self.encoding = encoding
        self.table = F.pad(values, (0, 0, 1, 0)).flatten(0, 1)
        self.starts = torch.arange(0, d * n_edges, n_edges, device=weight.device)
        self.weight, self.bias = torch.cat([scaled, further], dim=1), bias.clone()

    def __call__(self, scaled: Tensor, further: Tensor) -> Tensor:
        """Return the layer's outputs, float32 (n, m).

        Args:
            scaled: scaled rows, float32 (n, d).
            further: further columns of the layer's input, float32 (n, f).
        """
        position = self.encoding.position(scaled)
        below = position.detach().floor().clamp_(max=self.encoding.edges.shape[1] - 2)
        share, edge = position - below, self.starts + below.long()
        outputs = F.linear(torch.cat([scaled, further], dim=1), self.weight, self.bias)
        return outputs + F.embedding_bag(
            torch.cat([edge, edge + 1], dim=1),
            self.table,
            mode="sum",
            per_sample_weights=torch.cat([1 - share, share], dim=1),
        )
