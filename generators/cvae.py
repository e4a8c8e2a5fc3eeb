"""A conditional variational autoencoder (Sohn et al. 2015) with the anomaly label as condition."""

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.errors import check_at_least, check_positive
from common.plain_torch import plain_torch
from common.randomness import torch_seed
from common.rows import checked_rows
from common.scaling import RowScaler
from common.seeds import RandomState
from generators.base import Generator, float_tensor

BATCH = 256


class ConditionalVAE(Generator):
    """Gaussian CVAE on scaled rows.

    Args:
        latent_dim: length of a latent vector.
        hidden: width of the two hidden layers of encoder and decoder.
        steps: Adam steps; each sees 256 rows, half of which on average have label 1 where any do.
        beta: weight of the Kullback-Leibler term against the summed squared error.
        random_state: seed of weights, batches and noise.
        progress: show a progress bar.

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(
        self,
        latent_dim: int = 8,
        hidden: int = 128,
        steps: int = 600,
        beta: float = 0.5,
        random_state: RandomState = 0,
        progress: bool = False,
    ) -> None:
        super().__init__(
            random_state, progress, latent_dim=latent_dim, hidden=hidden, steps=steps, beta=beta
        )
        self.latent_dim, self.hidden, self.steps, self.beta = latent_dim, hidden, steps, beta
        check_at_least(self, latent_dim=1, hidden=1, steps=1)
        check_positive("beta", beta)

    def build(self, n_features: int) -> None:
        """Create scaler, encoder and decoder."""
        self.scaler = RowScaler(n_features)
        self.encoder = perceptron(n_features + 1, self.hidden, 2 * self.latent_dim)
        self.decoder = perceptron(self.latent_dim + 1, self.hidden, n_features)

    @plain_torch()
    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Fit on rows `X`, float (n, d), and labels `y`, int (n,), with a cosine-decayed rate."""
        X, y = checked_rows(X, y)
        with torch_seed(self.random_state) as noise:
            self.build(X.shape[1])
            self.scaler.fit(X)
            self._train(X, y, self.steps, noise)
        return self.eval()

    @plain_torch()
    def partial_fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Train a third as many steps on `X` and `y`; the scaler stays."""
        X, y = checked_rows(X, y)
        with torch_seed(self.random_state + 1) as noise:
            self._train(X, y, self.steps // 3, noise)
        return self.eval()

    def _train(self, X: np.ndarray, y: np.ndarray, steps: int, noise: torch.Generator) -> None:
        rows, labels = self.scaler(X), float_tensor(y)
        odds = torch.from_numpy(1 / np.bincount(y, minlength=2)[y])
        optimizer = torch.optim.Adam(self.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        bar = tqdm(range(steps), "cvae", unit="step", leave=False, disable=not self.progress)
        for step in bar:
            batch = torch.multinomial(odds, BATCH, replacement=True, generator=noise)
            loss = self.loss(rows[batch], labels[batch], noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 100 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")

    def loss(self, rows: Tensor, labels: Tensor, noise: torch.Generator) -> Tensor:
        """Negative evidence lower bound of scaled rows, (n, d), up to constants; a scalar."""
        mean, log_variance = self.posterior(rows, labels)
        epsilon = torch.randn(mean.shape, generator=noise)
        decoded = self.decode_scaled(mean + epsilon * (log_variance / 2).exp(), labels)
        error = (decoded - rows).square().sum(dim=1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return (error + self.beta * divergence).mean()

    def posterior(self, scaled: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x, y), each (n, latent_dim)."""
        mean, log_variance = self.encoder(torch.cat([scaled, y[:, None]], dim=1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-8, 4)

    def encode_scaled(self, scaled: Tensor, y: Tensor) -> Tensor:
        """Return the posterior's mean."""
        return self.posterior(scaled, y)[0]

    def decode_scaled(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the decoder's mean."""
        return self.decoder(torch.cat([z, y[:, None]], dim=1))

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Decode draws from the prior under the anomaly label."""
        return self.decode(rng.standard_normal((n, self.latent_dim)), np.ones(n))


def perceptron(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    """Two hidden layers with SiLU."""
    return nn.Sequential(
        nn.Linear(n_in, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        nn.Linear(hidden, n_out),
    )
