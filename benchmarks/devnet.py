"""DevNet (Pang, Shen & van den Hengel 2019, "Deep Anomaly Detection with Deviation Networks").

PyOD's own, as of 3.6, hands outputs and labels to its loss in exchanged places.
"""

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from common.randomness import torch_seed

MARGIN = 5.0
PRIOR_DRAWS = 5000


class DevNet:
    """The paper's network with one hidden layer, DevNet-Def, and its settings (section 4.3).

    The authors' code keeps the weights of the epoch with the least loss and draws one prior for
    all; here the last ones are kept, and each step draws its own.

    Args:
        hidden: units of the hidden layer.
        epochs: each is of `batches` batches.
        batches: batches an epoch.
        batch_size: rows a batch, half of them labelled anomalies, drawn with replacement.
        learning_rate: RMSprop's.
        weight_decay: weight of the hidden layer's squared norm in the loss.
        random_state: seed of weights, batches and the prior.
    """

    def __init__(
        self,
        hidden: int = 20,
        epochs: int = 50,
        batches: int = 20,
        batch_size: int = 512,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        random_state: int = 0,
    ) -> None:
        self.hidden, self.epochs, self.batches = hidden, epochs, batches
        self.batch_size, self.learning_rate = batch_size, learning_rate
        self.weight_decay, self.random_state = weight_decay, random_state

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Learn from standardised rows, float (n, d), and labels, int (n,), both present."""
        rows = torch.as_tensor(X, dtype=torch.float32)
        pools = [torch.from_numpy(np.flatnonzero(y == label)) for label in (0, 1)]
        half = self.batch_size // 2
        label = torch.arange(2).repeat_interleave(half).float()
        with torch_seed(self.random_state) as generator:
            self.network_ = ScoringNetwork(rows.shape[1], self.hidden)
            optimizer = torch.optim.RMSprop(
                self.network_.parameters(), self.learning_rate, alpha=0.9, eps=1e-7
            )
            for _ in range(self.epochs * self.batches):
                batch = torch.cat(
                    [pool[torch.randint(len(pool), (half,), generator=generator)] for pool in pools]
                )
                prior = torch.randn(PRIOR_DRAWS, generator=generator)
                scores = self.network_(rows[batch])
                penalty = self.weight_decay * self.network_.hidden.weight.square().sum()
                loss = deviation_loss(scores, label, prior) + penalty
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.network_.parameters(), 1.0)
                optimizer.step()
        return self

    @torch.inference_mode()
    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return anomaly scores, float64 (n,)."""
        rows = torch.as_tensor(X, dtype=torch.float32)
        return self.network_(rows).double().numpy()


class ScoringNetwork(nn.Module):
    """One hidden ReLU layer and a linear score, initialised as the paper's code is (Glorot)."""

    def __init__(self, n_features: int, hidden: int) -> None:
        super().__init__()
        self.hidden, self.score = nn.Linear(n_features, hidden), nn.Linear(hidden, 1)
        for layer in (self.hidden, self.score):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Return scores, float32 (n,), of rows, float32 (n, d)."""
        return self.score(self.hidden(rows).relu()).squeeze(1)


def deviation_loss(scores: Tensor, y: Tensor, prior: Tensor) -> Tensor:
    """Return the mean deviation loss (equations 5 to 7).

    Args:
        scores: float32 (n,).
        y: labels, float32 (n,), the same shape: (n, 1) against (n,) would pair all with all.
        prior: reference scores drawn from the standard normal, float32 (l,).
    """
    if scores.shape != y.shape:
        raise ValueError(
            f"scores {tuple(scores.shape)} and labels {tuple(y.shape)} differ in shape"
        )
    deviation = (scores - prior.mean()) / prior.std()
    return ((1 - y) * deviation.abs() + y * (MARGIN - deviation).clamp(min=0)).mean()
