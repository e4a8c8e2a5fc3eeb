"""A one-class expert: how far a row is from remembered normal rows."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from common.scaling import RowScaler
from detectors.remembered import RememberedRows, column_contrast
from detectors.standardised import Standardised

N_MEASURES = 2
DOUBTED = 10  # known anomalies that are half trusted


class Memory(Standardised):
    """Two measures of novelty: mean and least log-distance to groups of remembered normal rows.

    A column counts in the distance partly as much as known anomalies stand out in it: a kind not
    seen yet is likelier to show where seen kinds do than in columns that no anomaly touched.
    Measures have mean 0 and standard deviation 1 over the normal rows.
    """

    column_scale: Tensor
    trust: Tensor

    def __init__(self, n_normals: int, n_features: int) -> None:
        super().__init__(N_MEASURES)
        self.normals = RememberedRows(n_normals, n_features)
        self.register_buffer("column_scale", torch.ones(n_features))
        self.register_buffer("trust", torch.zeros(()))

    def fit(self, normals: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
        """Remember a random choice of normal rows, weigh the columns, and set the trust.

        A column's weight is half 1 and half its `column_contrast`. `trust`, in [0, 1], says how far
        anomalies of this table are rows unlike the normal ones: (2 AUROC - 1)^2 n / (n + 10) of the
        unweighted measure on the n known anomalies, and 0 where AUROC is below 1/2.

        Args:
            normals: scaled rows, float32 (n, d).
            known: scaled known anomalies, float32 (m, d).
            generator: of the choice.

        Returns:
            the measures of `normals`, float32 (n, 2), no row being measured against itself.
        """
        chosen = self.normals.choose(len(normals), generator)
        own = self._remember(normals, chosen)
        self.trust.fill_(trust(own[:, 0], self(known)[:, 0]))
        self.column_scale.copy_((1 + column_contrast(normals, known)) / 2)
        return self._remember(normals, chosen)

    def _remember(self, normals: Tensor, chosen: Tensor) -> Tensor:
        """Store the `chosen` rows and standardise; return the measures of `normals`, (n, 2)."""
        self.normals.remember(normals[chosen] * self.column_scale)
        measures = self.measures(normals, chosen)
        self.learn_spread(measures, 1e-3)
        return self.standardise(measures)

    def forward(self, scaled: Tensor) -> Tensor:
        """Return the measures, float32 (n, 2), of scaled rows, float32 (n, d)."""
        return self.standardise(self.measures(scaled))

    def measures(self, scaled: Tensor, own: Tensor | None = None) -> Tensor:
        """Mean and least log-distance, (n, 2), of scaled rows; `own` as in `RememberedRows`."""
        log_distance = self.normals(scaled * self.column_scale, own)
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
