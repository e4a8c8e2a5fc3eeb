"""A one-class expert: how far a row is from remembered normal rows."""

import numpy as np
import torch
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from common.scaling import RowScaler

CAPACITY = 512  # rows that a detector remembers at most
GROUPS = 16
N_MEASURES = 2
DOUBTED = 10  # known anomalies that are half trusted
FLOOR = 1e-3  # of the mean squared difference of a column; keeps the logarithm above rounding


class Memory(nn.Module):
    """Two measures of novelty from the distances to the nearest remembered normal rows.

    The remembered rows are a random choice, parted into groups; the first measure is the mean over
    the groups of the logarithm of the distance to a group's nearest row, the second the least of
    these. An ensemble of nearest neighbours in small samples (Sugiyama & Borgwardt 2013; iNNE,
    Bandaragoda et al. 2018) is less misled by anomalies among the rows labelled 0 than the nearest
    neighbours of all rows, and needs no sorting.

    A column counts in the distance partly as much as known anomalies stand out in it: a kind not
    seen yet is likelier to show where seen kinds do than in columns that no anomaly touched.
    Measures have mean 0 and standard deviation 1 over the normal rows.
    """

    rows: Tensor
    column_scale: Tensor
    center: Tensor
    spread: Tensor
    trust: Tensor

    def __init__(self, n_normals: int, n_features: int) -> None:
        super().__init__()
        n_groups = max(1, min(GROUPS, n_normals // 2))
        size = min(CAPACITY, n_normals) // n_groups
        self.register_buffer("rows", torch.zeros(n_groups, size, n_features))
        self.register_buffer("column_scale", torch.ones(n_features))
        self.register_buffer("center", torch.zeros(N_MEASURES))
        self.register_buffer("spread", torch.ones(N_MEASURES))
        self.register_buffer("trust", torch.zeros(()))

    def fit(self, normals: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
        """Remember a random choice of normal rows, weigh the columns, and set the trust.

        A column's weight is half 1 and half the Kolmogorov-Smirnov statistic between normal rows
        and known anomalies, relative to its mean over the columns. `trust`, in [0, 1], says how far
        anomalies of this table are rows unlike the normal ones: (2 AUROC - 1)^2 n / (n + 10) of the
        unweighted measure on the n known anomalies, and 0 where AUROC is below 1/2.

        Args:
            normals: scaled rows, float32 (n, d).
            known: scaled known anomalies, float32 (m, d).
            generator: of the choice.

        Returns:
            the measures of `normals`, float32 (n, 2), no row being measured against itself.
        """
        n_rows = self.rows.shape[0] * self.rows.shape[1]
        chosen = torch.randperm(len(normals), generator=generator)[:n_rows]
        own = self._remember(normals, chosen)
        self.trust.fill_(trust(own[:, 0], self(known)[:, 0]))
        pairs = zip(normals.cpu().numpy().T, known.cpu().numpy().T, strict=True)
        weight = torch.tensor([ks_2samp(*pair).statistic for pair in pairs])
        if weight.any():
            self.column_scale.copy_((1 + weight / weight.mean()) / 2)
        return self._remember(normals, chosen)

    def _remember(self, normals: Tensor, chosen: Tensor) -> Tensor:
        """Store the `chosen` rows and standardise; return the measures of `normals`, (n, 2)."""
        self.rows.copy_((normals[chosen] * self.column_scale).view_as(self.rows))
        itself = (chosen, torch.arange(len(chosen))) if self.rows.shape[1] > 1 else None
        measures = self.measures(normals, itself)
        self.center.copy_(measures.mean(dim=0))
        self.spread.copy_(measures.std(dim=0, correction=0).clamp(min=1e-3))
        return (measures - self.center) / self.spread

    def forward(self, scaled: Tensor) -> Tensor:
        """Return the measures, float32 (n, 2), of scaled rows, float32 (n, d)."""
        return (self.measures(scaled) - self.center) / self.spread

    def measures(self, scaled: Tensor, without: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Mean and least log-distance to the groups, (n, 2), of scaled rows, (n, d).

        The distance is the weighted mean squared difference; `without` counts pairs of a row and a
        remembered row, by number, as infinitely far. What a row adds to all its distances is added
        to the least of each group only.
        """
        rows, remembered = scaled * self.column_scale, self.rows.flatten(0, 1)
        lengths = remembered.square().sum(dim=1, keepdim=True)
        squared = torch.addmm(lengths, remembered, rows.T, alpha=-2)
        if without is not None:
            squared[without[::-1]] = torch.inf
        nearest = squared.unflatten(0, self.rows.shape[:2]).amin(dim=1)
        nearest = (nearest + rows.square().sum(dim=1)).clamp(min=0) / scaled.shape[1]
        log_distance = 0.5 * torch.log(nearest + FLOOR).T.contiguous()
        return torch.stack([log_distance.mean(dim=1), log_distance.amin(dim=1)], dim=1)


def trust(normal: Tensor, known: Tensor) -> float:
    """Say from novelty, float32 (n,) each, how far known anomalies are novel; see `Memory.fit`."""
    label = np.repeat([0, 1], [len(normal), len(known)])
    auroc = roc_auc_score(label, torch.cat([normal, known]).cpu().numpy())
    return max(2 * auroc - 1, 0.0) ** 2 * len(known) / (len(known) + DOUBTED)


def synthetic_trust(X: np.ndarray, y: np.ndarray, seed: int) -> float:
    """Return the trust that a `Memory` of rows `X`, float (n, d), with labels `y`, (n,), sets."""
    scaled, normal = RowScaler(X.shape[1]).fit(X)(X), y == 0
    memory = Memory(int(normal.sum()), X.shape[1])
    memory.fit(scaled[normal], scaled[~normal], torch.Generator().manual_seed(seed))
    return float(memory.trust)
