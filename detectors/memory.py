"""A one-class expert: how far a row is from remembered normal rows."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from detectors.remembered import RememberedRows, column_contrast
from detectors.standardised import Standardised

N_MEASURES = 2
DOUBTED = 10  # known anomalies that are half trusted
MARGIN = 0.05  # of trust, for which other axes than the scaled columns are taken
PRINCIPAL = 2  # number of the principal axes among those to choose from
ROWS_A_COLUMN = 1.5  # normal rows: from fewer, principal axes learn what no new row has
SHRINKAGE = 0.1  # of the principal axes' variances, relative to their mean
LEAST, MOST = 1e-30, 1e6  # deviation that axes are divided by, and what then stays finite


class Memory(Standardised):
    """Two measures of novelty: mean and least log-distance to groups of remembered normal rows.

    The distance is taken in the scaled columns or, if known anomalies stand out much more there, in
    the columns' own units or, unless most columns have two values or the rows are too few for it,
    along the principal axes of normal rows. A column counts partly as much as known anomalies stand
    out in it: a kind not seen yet is likelier to show where seen kinds do than in columns that no
    anomaly touched. Measures have mean 0 and standard deviation 1 over the normal rows.
    """

    axes: Tensor
    trust: Tensor

    def __init__(self, n_normals: int, n_features: int) -> None:
        super().__init__(N_MEASURES)
        self.normals = RememberedRows(n_normals, n_features)
        self.register_buffer("axes", torch.eye(n_features))
        self.register_buffer("trust", torch.zeros(()))

    def fit(
        self, normals: Tensor, known: Tensor, unit: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Remember a random choice of normal rows, choose the axes, and set the trust.

        A column's weight is half 1 and half its `column_contrast`; principal axes have none. The
        trust is that of the scaled columns, unweighted; see `trust`.

        Args:
            normals: scaled rows, float32 (n, d).
            known: scaled known anomalies, float32 (m, d).
            unit: a scaled unit of each column in the input's units, float64 (d,).
            generator: of the choice.

        Returns:
            the measures of `normals`, float32 (n, 2), no row being measured against itself.
        """
        chosen = self.normals.choose(len(normals), generator)
        own_units = (unit / unit.max()).diag()
        choices = [torch.eye(len(unit), device=unit.device), level(own_units, normals)]
        enough = len(normals) >= ROWS_A_COLUMN * len(unit)
        if enough and is_continuous(torch.cat([normals, known])):
            choices.append(level(principal_axes(normals), normals))
        trusts = [trust(*self.novelty(axes, normals, known, chosen)) for axes in choices]
        self.trust.fill_(trusts[0])
        best = preferred(trusts)
        self.axes.copy_(choices[best])
        if best < PRINCIPAL:
            self.axes.mul_((1 + column_contrast(normals, known)) / 2)
        return self._remember(normals, chosen)

    def novelty(
        self, axes: Tensor, normals: Tensor, known: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the first measure along `axes`, float32 (d, d), of normal and of known rows.

        `chosen` numbers the normal rows that are remembered, (m,); other arguments as in `fit`.
        """
        self.axes.copy_(axes)
        own = self._remember(normals, chosen)
        return own[:, 0], self(known)[:, 0]

    def _remember(self, normals: Tensor, chosen: Tensor) -> Tensor:
        """Store the `chosen` rows and standardise; return the measures of `normals`, (n, 2)."""
        self.normals.remember(normals[chosen] @ self.axes)
        measures = self.measures(normals, chosen)
        self.learn_spread(measures, 1e-3)
        return self.standardise(measures)

    def forward(self, scaled: Tensor) -> Tensor:
        """Return the measures, float32 (n, 2), of scaled rows, float32 (n, d)."""
        return self.standardise(self.measures(scaled))

    def measures(self, scaled: Tensor, own: Tensor | None = None) -> Tensor:
        """Mean and least log-distance, (n, 2), of scaled rows; `own` as in `RememberedRows`."""
        log_distance = self.normals(scaled @ self.axes, own)
        return torch.stack([log_distance.mean(dim=1), log_distance.amin(dim=1)], dim=1)


def is_continuous(rows: Tensor) -> bool:
    """Tell whether half of the columns of `rows`, (n, d), that vary have more than two values."""
    low, high = rows.amin(dim=0), rows.amax(dim=0)
    between = ((rows > low) & (rows < high)).any(dim=0)
    return 2 * int(between.sum()) >= int((low < high).sum())


def level(axes: Tensor, normals: Tensor) -> Tensor:
    """Return float64 axes, (d, d), as float32 ones in which normal rows' mean variance is 1."""
    variance = (normals.double() @ axes).var(dim=0, correction=0)
    return (axes / variance.mean().sqrt().clamp(min=LEAST)).clamp(-MOST, MOST).float()


def principal_axes(normals: Tensor) -> Tensor:
    """Return the axes, float64 (d, d), that make the variances of normal rows, (n, d), alike."""
    exact = normals.double()
    centred = exact - exact.mean(dim=0)
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(normals))
    variance = variance.clamp(min=0)
    return axes / (variance + SHRINKAGE * variance.mean()).sqrt().clamp(min=LEAST)


def trust(normal: Tensor, known: Tensor) -> float:
    """Say from novelty, float32 (n,) each, how far anomalies of a table are unlike its normal rows.

    This is (2 AUROC - 1)^2 n / (n + 10) on n known anomalies, in [0, 1], and 0 where AUROC is below
    1/2.
    """
    label = np.repeat([0, 1], [len(normal), len(known)])
    auroc = roc_auc_score(label, torch.cat([normal, known]).cpu().numpy())
    return max(2 * auroc - 1, 0.0) ** 2 * len(known) / (len(known) + DOUBTED)


def preferred(trusts: Sequence[float]) -> int:
    """Return the number of the axes to take: the first, unless others are trusted much more."""
    best = int(np.argmax(trusts))
    return best if trusts[best] - trusts[0] > MARGIN else 0
