"""Robust scaling of columns with logarithmic tails, inside torch, and its inverse."""

from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from common.divisor import divisor
from common.rows import FLOAT32_MAX

LINEAR_RANGE = 3.0
WINSOR = 0.01
QUANTILES = WINSOR, 0.25, 0.5, 0.75, 1 - WINSOR
MAX_SPREAD = 100.0  # quartile distances; a normal column's deviation is 0.74 of one
REACH = 1.0
FAR = 1e30  # deviations; float32 holds them


def compress(u: Tensor, linear_range: float = LINEAR_RANGE) -> Tensor:
    """Identity within +-`linear_range`, logarithmic beyond, with a continuous slope."""
    within = u.clamp(-linear_range, linear_range)
    beyond = u - within
    return within + beyond.sign() * torch.log1p(beyond.abs())


def expand(t: Tensor) -> Tensor:
    """Inverse of `compress`."""
    tail = LINEAR_RANGE - 1 + torch.exp((t.abs() - LINEAR_RANGE).clamp(min=0))
    return torch.where(t.abs() <= LINEAR_RANGE, t, t.sign() * tail)


def center_and_spread(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the deviation of winsorised columns of `X`, (n, d); float64 (d,) each.

    Where these are of few far values, such as 999999 for what is missing, they are the median and
    the distance of the quartiles; not where that is so small that `RowScaler` would clip the far
    values.
    """
    low, first, median, third, high = np.quantile(X, QUANTILES, axis=0)
    core, quartiles = np.clip(X, low, high), third - first
    spread = core.std(axis=0)
    spread = np.where(spread > 1e-12 * np.abs(core).max(axis=0), spread, X.std(axis=0))
    few_far = (quartiles > 1e-12 * np.abs(median)) & (spread > MAX_SPREAD * quartiles)
    few_far &= np.abs(X - median).max(axis=0) < FAR * quartiles
    return np.where(few_far, median, core.mean(axis=0)), np.where(few_far, quartiles, spread)


class RowScaler(nn.Module):
    """Centres columns and scales them by their spread, see `center_and_spread`.

    Rows in the input's units are float64, scaled rows float32. `inverse` clips to the range seen
    in `fit`, widened by one scaled unit unless a column was constant, and rounds columns that held
    whole numbers only: where 1 is rare among 0, a 2 is within that unit.
    """

    center: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor
    whole: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        for name in ("center", "scale", "low", "high"):
            self.register_buffer(name, torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("whole", torch.zeros(n_features, dtype=torch.bool))

    def fit(self, X: np.ndarray) -> Self:
        """Learn the scale of `X`, float (n, d)."""
        center, spread = center_and_spread(X)
        self.center.copy_(torch.from_numpy(center))
        self.scale.copy_(torch.from_numpy(divisor(spread, X)))
        self.whole.copy_(torch.from_numpy((np.round(X) == X).all(axis=0)))
        scaled = self(X).double()
        reach = torch.where(torch.from_numpy(np.ptp(X, axis=0) > 0), REACH, 0.0).to(scaled)
        self.low.copy_(scaled.amin(dim=0) - reach)
        self.high.copy_(scaled.amax(dim=0) + reach)
        return self

    def forward(self, X: ArrayLike | Tensor) -> Tensor:
        """Scale rows, (n, d) in the input's units, to float32."""
        plain = X if isinstance(X, Tensor) else np.require(X, np.float64, ["C", "W"])
        rows = torch.as_tensor(plain, dtype=torch.float64, device=self.center.device)
        return compress(((rows - self.center) / self.scale).clamp(-FAR, FAR).float())

    def inverse(self, scaled: Tensor) -> Tensor:
        """Bring scaled rows back to the input's units, float64 (n, d).

        The gradient passes rounding by (the straight-through estimator of Bengio et al. 2013).
        """
        clipped = torch.minimum(torch.maximum(scaled.double(), self.low), self.high)
        rows = (expand(clipped) * self.scale + self.center).clamp(-FLOAT32_MAX, FLOAT32_MAX)
        return torch.where(self.whole, rows.round() + (rows - rows.detach()), rows)
