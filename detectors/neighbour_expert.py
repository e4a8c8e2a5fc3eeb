"""A neighbour expert: tells whether a row is nearer to known anomalies than to normal rows."""

import torch
from torch import Tensor, nn

from detectors.remembered import RememberedRows, column_contrast

SHRINKAGE = 0.5  # of the axes' variances, relative to their mean


class NeighbourExpert(nn.Module):
    """Mean log-distance to groups of normal rows, less that to groups of known anomalies.

    It is measured along the principal axes of the standardised columns, each divided by its
    deviation (a shrunken Mahalanobis distance) and multiplied by how far known anomalies stand out
    in it. Nothing else is learned, which suits a handful of labels.
    """

    center: Tensor
    axes: Tensor

    def __init__(self, n_normals: int, n_known: int, n_features: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n_features))
        self.register_buffer("axes", torch.eye(n_features))
        self.normals = RememberedRows(n_normals, n_features)
        self.known = RememberedRows(n_known, n_features)

    def fit(
        self, normals: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Learn the axes, and remember a random choice of the rows.

        Args:
            normals: scaled rows, float32 (n, d).
            known: scaled known anomalies, float32 (m, d).
            generator: of the choice.

        Returns:
            the opinions of `normals` and of `known`, float32 (n,) and (m,), no row being measured
            against itself.
        """
        self.center, self.axes = whitening(torch.cat([normals, known]))
        self.axes *= column_contrast(self.project(normals), self.project(known))
        normals, known = self.project(normals), self.project(known)
        chosen = self.normals.choose(len(normals), generator)
        chosen_known = self.known.choose(len(known), generator)
        self.normals.remember(normals[chosen])
        self.known.remember(known[chosen_known])
        return self.compare(normals, chosen), self.compare(known, own_known=chosen_known)

    def project(self, scaled: Tensor) -> Tensor:
        """Bring scaled rows, (n, d), to the axes."""
        return (scaled - self.center) @ self.axes

    def compare(
        self, projected: Tensor, own: Tensor | None = None, own_known: Tensor | None = None
    ) -> Tensor:
        """Return the opinions of projected rows, (n, d); `own` as in `RememberedRows`."""
        from_normals, from_known = self.normals(projected, own), self.known(projected, own_known)
        return from_normals.mean(dim=1) - from_known.mean(dim=1)

    def forward(self, scaled: Tensor) -> Tensor:
        """Return opinions, float32 (n,), of scaled rows, float32 (n, d)."""
        return self.compare(self.project(scaled))


def whitening(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, (d,), and the axes, (d, d), that make the variances of `rows` alike."""
    exact = rows.double()
    center, deviation = exact.mean(dim=0), exact.std(dim=0, correction=0)
    deviation[deviation < 1e-6] = 1.0
    standardised = (exact - center) / deviation
    variance, axes = torch.linalg.eigh(standardised.T @ standardised / len(rows))
    variance = variance.clamp(min=0)
    shrunk = (variance + SHRINKAGE * variance.mean()).clamp(min=1e-12)
    return center.float(), (axes / deviation[:, None] / shrunk.sqrt()).float()
