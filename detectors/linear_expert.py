"""A linear expert: balanced logistic regression, held as torch buffers."""

from typing import Self

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

MAX_ITERATIONS = 1000


class LinearExpert(nn.Module):
    """Logit of a logistic regression on standardised columns; scikit-learn fits it."""

    slope: Tensor
    bias: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("slope", torch.zeros(n_features))
        self.register_buffer("bias", torch.zeros(()))

    def fit(self, rows: Tensor, y: np.ndarray, weight: np.ndarray) -> Self:
        """Fit on `rows`, float32 (n, d), labels `y`, int (n,), and weights, float (n,)."""
        columns = rows.cpu().double().numpy()
        mean, deviation = columns.mean(axis=0), columns.std(axis=0)
        deviation[deviation < 1e-6] = 1.0
        regression = LogisticRegression(max_iter=MAX_ITERATIONS)
        regression.fit((columns - mean) / deviation, y, sample_weight=weight)
        slope = regression.coef_[0] / deviation
        self.slope.copy_(torch.from_numpy(slope))
        self.bias.fill_(float(regression.intercept_[0] - slope @ mean))
        return self

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits, float32 (n,), of rows, float32 (n, d)."""
        return rows @ self.slope + self.bias
