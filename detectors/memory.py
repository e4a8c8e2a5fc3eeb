"""A one-class expert: how far a row is from remembered normal rows."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from detectors.remembered import ROWS_AT_ONCE, RememberedRows, batches, column_contrast
from detectors.standardised import Standardised

N_MEASURES = 2
DOUBTED = 10  # known anomalies that are half trusted
MARGIN = 0.05  # of trust, for which other axes than the scaled columns are taken
DECORRELATED = 2  # number of the decorrelated axes among those to choose from
SHRINKAGE = 0.1  # added to the columns' variances before their correlations are undone, of the mean
LEAST, MOST = 1e-30, 1e6  # deviation that axes are divided by, and what then stays finite


class Memory(Standardised):
    """Two measures of novelty: mean and least log-distance to groups of remembered normal rows.

    The distance is taken in the scaled columns or, if known anomalies stand out much more there, in
    the columns' own units or, unless most columns have two values, along axes in which normal rows
    are uncorrelated. A column counts partly as much as known anomalies stand out in it: a kind not
    seen yet is likelier to show where seen kinds do than in columns that no anomaly touched.
    Measures have mean 0 and standard deviation 1 over the normal rows.
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

        A column's weight is half 1 and half its `column_contrast`; decorrelated axes have none. The
        trust is that of the scaled columns, unweighted; see `trust`.

        Args:
            normals: scaled rows, float32 (n, d).
            known: scaled known anomalies, float32 (m, d).
            unit: a scaled unit of each column in the input's units, float64 (d,).
            generator: of the choice.

        Returns:
            the measures of `normals`, float32 (n, 2), no row being measured against itself, nor
            along axes that were fitted to it.
        """
        chosen = self.normals.choose(len(normals), generator)
        own_units = unit / unit.max()
        level = own_units / mean_deviation(normals.double() * own_units)
        scales = [torch.ones_like(own_units).float(), level.clamp(max=MOST).float()]
        trusts = [
            self._trust(self._remember(scale.diag(), normals, chosen), known) for scale in scales
        ]
        self.trust.fill_(trusts[0])
        if len(normals) > 1 and is_continuous(torch.cat([normals, known])):
            measures = self._remember_decorrelated(normals, chosen)
            trusts.append(self._trust(measures, known))
        best = preferred(trusts)
        if best < DECORRELATED:
            weight = (1 + column_contrast(normals, known)) / 2
            measures = self._remember((scales[best] * weight).diag(), normals, chosen)
        return measures

    def _trust(self, own: Tensor, known: Tensor) -> float:
        """Return the trust told by the measures of normal rows, (n, 2), and known rows, (m, d)."""
        of_known = torch.cat([self(batch) for batch in known.split(ROWS_AT_ONCE)])
        return trust(own[:, 0], of_known[:, 0])

    def _remember(self, axes: Tensor, normals: Tensor, chosen: Tensor) -> Tensor:
        """Store the `chosen` rows and standardise; return the measures of `normals`, (n, 2)."""
        self._store(axes, normals[chosen])
        own = [self.measures(*batch) for batch in batches(normals, chosen)]
        return self._standardise(torch.cat(own))

    def _remember_decorrelated(self, normals: Tensor, chosen: Tensor) -> Tensor:
        """Do so along decorrelated axes, measuring each row along those of the others.

        On many columns axes fit their own rows closer than new ones.
        """
        axes, bound = decorrelated(normals)
        centred = normals - normals.mean(dim=0)
        self._store(axes, centred[chosen])
        own = [self.measures(*batch, bound) for batch in batches(centred, chosen)]
        self._store(axes, normals[chosen])
        return self._standardise(torch.cat(own))

    def _store(self, axes: Tensor, rows: Tensor) -> None:
        self.axes.copy_(axes)
        self.normals.remember(rows @ self.axes)

    def _standardise(self, own: Tensor) -> Tensor:
        self.learn_spread(own, 1e-3)
        return self.standardise(own)

    def forward(self, scaled: Tensor) -> Tensor:
        """Return the measures, float32 (n, 2), of scaled rows, float32 (n, d)."""
        return self.standardise(self.measures(scaled))

    def measures(
        self, scaled: Tensor, own: Tensor | None = None, bound: float | None = None
    ) -> Tensor:
        """Return mean and least log-distance, float32 (n, 2), of scaled rows, float32 (n, d).

        Args:
            scaled: the rows; centred, if there is a `bound`.
            own: as in `RememberedRows`.
            bound: that of `decorrelated`; measure each row as if it had been left out there, by the
                formula of Sherman & Morrison (1950).
        """
        along = scaled @ self.axes
        pull = None if bound is None else 1 / (bound - along.square().sum(dim=1))
        log_distance = self.normals(along, own, pull)
        return torch.stack([log_distance.mean(dim=1), log_distance.amin(dim=1)], dim=1)


def is_continuous(rows: Tensor) -> bool:
    """Tell whether half of the columns of `rows`, (n, d), that vary have more than two values."""
    low, high = rows.amin(dim=0), rows.amax(dim=0)
    between = ((rows > low) & (rows < high)).any(dim=0)
    return 2 * int(between.sum()) >= int((low < high).sum())


def mean_deviation(along: Tensor) -> Tensor:
    """Return the root of the mean variance of rows along axes, float64 (n, d), but no 0."""
    return along.var(dim=0, correction=0).mean().sqrt().clamp(min=LEAST)


def decorrelated(normals: Tensor) -> tuple[Tensor, float]:
    """Return axes, (d, d), along which normal rows, float32 (n, d), are uncorrelated and alike.

    The distance along them is Mahalanobis's, with a covariance matrix that is shrunk.

    Returns:
        axes; what the squared length along them of every centred normal row is below.
    """
    exact = normals.double()
    covariance = torch.cov(exact.T, correction=0).reshape(exact.shape[1], -1)
    unit = torch.eye(len(covariance)).to(covariance)
    added = SHRINKAGE * covariance.diagonal().mean() + LEAST
    factor = torch.linalg.cholesky(covariance + added * unit)
    axes = torch.linalg.solve_triangular(factor, unit, upper=False).T
    deviation = mean_deviation(exact @ axes)
    bound = (len(normals) - 1) / float(deviation) ** 2
    return (axes / deviation).clamp(-MOST, MOST), bound


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
