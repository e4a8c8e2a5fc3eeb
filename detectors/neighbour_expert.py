"""A neighbour expert: tells whether a row is nearer to known anomalies than to normal rows."""

import torch
from torch import Tensor

from detectors.remembered import RememberedRows, batches, column_contrast
from detectors.standardised import Standardised

SHRINKAGE = 0.5  # of the axes' variances, relative to their mean
NULL = 1e-6  # of the mean variance; an axis with less is a rounding error
FOLDS = 5


class NeighbourExpert(Standardised):
    """Mean log-distance to groups of normal rows, less that to groups of known anomalies.

    It is measured along the principal axes of the standardised columns, each divided by its
    deviation (a shrunken Mahalanobis distance) and multiplied by how far known anomalies stand out
    in it. Opinions have mean 0 and standard deviation 1 over the normal rows.
    """

    origin: Tensor
    axes: Tensor

    def __init__(self, n_normals: int, n_known: int, n_features: int) -> None:
        super().__init__()
        self.register_buffer("origin", torch.zeros(n_features))
        self.register_buffer("axes", torch.eye(n_features))
        self.normals = RememberedRows(n_normals, n_features)
        self.known = RememberedRows(n_known, n_features)

    def fit(self, normals: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
        """Learn the axes, and remember a random choice of the rows.

        Args:
            normals: scaled rows, float32 (n, d).
            known: scaled known anomalies, float32 (m, d).
            generator: of the choice.

        Returns:
            the opinions of `normals`, float32 (n,), no row being measured against itself.
        """
        origin, axes = whitening(torch.cat([normals, known]))
        self.origin.copy_(origin)
        self.axes.copy_(axes)
        contrast = column_contrast(self.project(normals), self.project(known))
        self.axes.mul_(contrast)
        projected, chosen = self.project(normals), self.normals.choose(len(normals), generator)
        self.normals.remember(projected[chosen])
        self.known.remember(self.project(known)[self.known.choose(len(known), generator)])
        opinions = torch.cat([self.compare(*batch) for batch in batches(projected, chosen)])
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


def opinions_of_known(normals: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
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
            expert.fit(normals, others, generator)
            opinions[fold] = expert(known[fold])
    return opinions


def whitening(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, (d,), and the axes, (d, d), that make the variances of `rows` alike."""
    exact = rows.double()
    origin, deviation = exact.mean(dim=0), exact.std(dim=0, correction=0)
    deviation[deviation < 1e-6] = 1.0
    standardised = (exact - origin) / deviation
    variance, axes = torch.linalg.eigh(standardised.T @ standardised / len(rows))
    shrunk = (variance + SHRINKAGE * variance.mean()).clamp(min=NULL)
    shrunk[variance <= NULL * variance.mean()] = torch.inf
    return origin, axes / deviation[:, None] / shrunk.sqrt()
