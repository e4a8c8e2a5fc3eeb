"""Rows that a detector remembers, in groups, and how far other rows are from them."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

CAPACITY = 512  # rows that are remembered at most
GROUPS = 16
SMALLEST = 3  # rows of a group, if there are as many
ROWS_AT_ONCE = 16_384  # so that memory stays bounded
FLOOR = 1e-2  # of the mean squared difference of a column; keeps the logarithm above rounding


class RememberedRows(nn.Module):
    """Groups of rows, each chosen at random; they share rows where there are too few.

    The distances to the nearest row of each group are an ensemble of nearest neighbours in small
    samples (Sugiyama & Borgwardt 2013; iNNE, Bandaragoda et al. 2018). It is less misled by rows
    with a wrong label than the nearest neighbours of all rows, and needs no sorting.
    """

    rows: Tensor

    def __init__(self, n_rows: int, n_features: int) -> None:
        super().__init__()
        size = min(n_rows, max(SMALLEST, -(-min(CAPACITY, n_rows) // GROUPS)))
        self.register_buffer("rows", torch.zeros(GROUPS, size, n_features))

    def choose(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Draw the numbers of rows to remember, int64 (m,): none comes again before all came."""
        n_places = self.rows.shape[:2].numel()
        n_draws = -(-n_places // n_rows)
        draws = [torch.randperm(n_rows, generator=generator) for _ in range(n_draws)]
        return torch.cat(draws)[:n_places]

    def remember(self, rows: Tensor) -> None:
        """Hold `rows`, float32 (m, d)."""
        self.rows.copy_(rows.view_as(self.rows))

    def forward(
        self, rows: Tensor, own: Tensor | None = None, pull: Tensor | None = None
    ) -> Tensor:
        """Return the log-distances of `rows`, (n, d), to the nearest of each group, (n, groups).

        The distance is the root of the mean squared difference. What a row adds to all its squared
        distances is added to the least of each group only.

        Args:
            rows: float32 (n, d).
            own: numbers of the remembered rows among `rows`, (m,), others being none of a row; none
                is then measured against itself, unless it is the only one.
            pull: float32 (n,); so many times the squared scalar product of a row and its difference
                from a remembered one is added to their squared distance.
        """
        remembered = self.rows.flatten(0, 1)
        lengths = remembered.square().sum(dim=1, keepdim=True)
        squared = torch.addmm(lengths, remembered, rows.T, alpha=-2)
        if pull is not None:
            squared += pull * (rows.square().sum(dim=1) + (squared - lengths) / 2).square()
        if own is not None and self.rows.shape[1] > 1:
            here = ((own >= 0) & (own < len(rows))).nonzero().squeeze(1)
            squared[here, own[here]] = torch.inf
        nearest = squared.unflatten(0, self.rows.shape[:2]).amin(dim=1)
        nearest = (nearest + rows.square().sum(dim=1)).clamp(min=0) / rows.shape[1]
        return 0.5 * torch.log(nearest + FLOOR).T.contiguous()


def batches(rows: Tensor, own: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Split rows, (n, d), and the numbers of the remembered ones among them, (m,)."""
    for first in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[first : first + ROWS_AT_ONCE], own - first


def column_contrast(normals: Tensor, known: Tensor) -> Tensor:
    """Return how far known anomalies stand out in each column, float32 (d,), with mean 1.

    This is the Kolmogorov-Smirnov statistic between normal rows, (n, d), and known anomalies,
    (m, d), relative to its mean over the columns; 1 where they stand out in none.
    """
    pairs = zip(normals.cpu().numpy().T, known.cpu().numpy().T, strict=True)
    statistics = [kolmogorov_smirnov(*pair) for pair in pairs]
    contrast = torch.tensor(statistics, dtype=torch.float32, device=normals.device)
    return contrast / contrast.mean() if contrast.any() else torch.ones_like(contrast)


def kolmogorov_smirnov(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest difference between the distribution functions of two samples, each (n,).

    The second one's is constant between its values: they differ most at one of these or just below.
    SciPy's `ks_2samp` takes ten times as long, since it computes p, too.
    """
    first, second = np.sort(first), np.sort(second)
    differences = [
        np.searchsorted(first, second, side) / len(first)
        - np.searchsorted(second, second, side) / len(second)
        for side in ("left", "right")
    ]
    return float(np.abs(differences).max())
