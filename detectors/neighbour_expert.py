"""A neighbour expert: tells whether a row is nearer to known anomalies than to normal rows."""

from typing import NamedTuple

import torch
from torch import Tensor

from detectors.remembered import RememberedRows, auroc, column_contrast, preferred
from detectors.standardised import Standardised

SHRINKAGE = 0.5  # of the axes' variances, relative to their mean
NULL = 1e-6  # of the mean variance; an axis with less is a rounding error
FOLDS = 5
MARGIN = 0.01  # of AUROC, for which columns are stretched


class NeighbourExpert(Standardised):
    """Mean log-distance to groups of normal rows, less that to groups of known anomalies.

    It is measured along the principal axes of the standardised and then stretched columns, each
    divided by its deviation (a shrunken Mahalanobis distance) and multiplied by how far known
    anomalies stand out in it. Opinions have mean 0 and standard deviation 1 over the normal rows.
    """

    origin: Tensor
    axes: Tensor

    def __init__(self, n_normals: int, n_known: int, n_features: int) -> None:
        super().__init__()
        self.register_buffer("origin", torch.zeros(n_features))
        self.register_buffer("axes", torch.eye(n_features))
        self.normals = RememberedRows(n_normals, n_features)
        self.known = RememberedRows(n_known, n_features)

    def fit(
        self, normals: Tensor, known: Tensor, stretch: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Learn the axes, and remember a random choice of the rows.

        Args:
            normals: scaled rows, float32 (n, d).
            known: scaled known anomalies, float32 (m, d).
            stretch: what standardised columns are multiplied by, float64 (d,).
            generator: of the choice.

        Returns:
            the opinions of `normals`, float32 (n,), no row being measured against itself.
        """
        origin, axes = whitening(torch.cat([normals, known]), stretch)
        self.origin.copy_(origin)
        self.axes.copy_(axes)
        contrast = column_contrast(self.project(normals), self.project(known))
        self.axes.mul_(contrast)
        projected, chosen = self.project(normals), self.normals.choose(len(normals), generator)
        self.normals.remember(projected[chosen])
        self.known.remember(self.project(known)[self.known.choose(len(known), generator)])
        opinions = self.compare(projected, chosen)
        self.learn_spread(opinions, 1e-4)
        return self.standardise(opinions)

    def project(self, scaled: Tensor) -> Tensor:
        """Bring scaled rows, (n, d), to the axes."""
        return (scaled - self.origin) @ self.axes

    def compare(self, projected: Tensor, own: Tensor | None = None) -> Tensor:
        """Return the difference of the distances, (n,), of projected rows, (n, d).

        `own` numbers the normal rows that are remembered, as in `RememberedRows`.
        """
        return self.normals(projected, own).mean(dim=1) - self.known(projected).mean(dim=1)

    def forward(self, scaled: Tensor) -> Tensor:
        """Return opinions, float32 (n,), of scaled rows, float32 (n, d)."""
        return self.standardise(self.compare(self.project(scaled)))


class Neighbours(NamedTuple):
    """A fitted expert, and the opinions, float32 (n,) and (m,), of the rows that it was fitted on.

    No row is measured against itself.
    """

    expert: NeighbourExpert
    of_normals: Tensor
    of_known: Tensor


def fit_neighbours(
    normals: Tensor, known: Tensor, unit: Tensor, generator: torch.Generator
) -> Neighbours:
    """Fit an expert whose columns are stretched if known anomalies are told better by it.

    These are known anomalies that it has not seen. A column is stretched by the root of its `unit`:
    what spreads more in the input's units then counts more, but less than in these.

    Args:
        normals: scaled rows, float32 (n, d).
        known: scaled known anomalies, float32 (m, d).
        unit: a scaled unit of each column in the input's units, float64 (d,).
        generator: of the rows that are remembered; it draws alike for both.
    """
    fits = []
    for stretch in (torch.ones_like(unit), unit.sqrt()):
        draws = generator.clone_state()
        expert = NeighbourExpert(len(normals), len(known), len(unit)).to(unit.device)
        of_normals = expert.fit(normals, known, stretch, draws)
        of_known = opinions_of_known(normals, known, stretch, draws)
        fits.append(Neighbours(expert, of_normals, of_known))
    aurocs = [auroc(fit.of_normals, fit.of_known) for fit in fits]
    return fits[preferred(aurocs, MARGIN)]


def opinions_of_known(
    normals: Tensor, known: Tensor, stretch: Tensor, generator: torch.Generator
) -> Tensor:
    """Return opinions of known anomalies, (m,), each of an expert that has not seen it.

    The only known anomaly is taken for an average normal row. Arguments as in
    `NeighbourExpert.fit`.
    """
    opinions = known.new_zeros(len(known))
    if len(known) > 1:
        for fold in torch.arange(len(known)).chunk(FOLDS):
            first, last = fold[0], fold[-1]
            others = torch.cat([known[:first], known[last + 1 :]])
            expert = NeighbourExpert(len(normals), len(others), known.shape[1]).to(known.device)
            expert.fit(normals, others, stretch, generator)
            opinions[fold] = expert(known[fold])
    return opinions


def whitening(rows: Tensor, stretch: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, (d,), and the axes, (d, d), that make the variances of `rows` alike.

    Shrunken variances are those of the standardised columns times `stretch`, (d,).
    """
    exact = rows.double()
    origin, deviation = exact.mean(dim=0), exact.std(dim=0, correction=0)
    deviation[deviation < 1e-6] = 1.0
    factor = stretch / deviation
    stretched = (exact - origin) * factor
    variance, axes = torch.linalg.eigh(stretched.T @ stretched / len(rows))
    shrunk = variance + SHRINKAGE * variance.mean()
    shrunk[variance <= NULL * variance.mean()] = torch.inf
    return origin, factor[:, None] * axes / shrunk.sqrt()
