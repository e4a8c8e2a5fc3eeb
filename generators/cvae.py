"""A conditional variational autoencoder (Sohn et al. 2015) with the anomaly label as condition."""

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.randomness import torch_seed
from common.scaling import RowScaler
from generators.base import Generator


class ConditionalVAE(Generator):
    """Gaussian CVAE on scaled rows.

    Args:
        latent_dim: length of a latent vector.
        hidden: width of the two hidden layers of encoder and decoder.
        steps: Adam steps; each sees 256 rows, half of them known anomalies where there are any.
        beta: weight of the Kullback-Leibler term against the summed squared error.
        random_state: seed of weights, batches and noise.
        progress: show a progress bar.
    """

    def __init__(
        self,
        latent_dim: int = 8,
        hidden: int = 128,
        steps: int = 1000,
        beta: float = 0.5,
        random_state: int = 0,
        progress: bool = False,
    ) -> None:
        super().__init__(
            latent_dim=latent_dim, hidden=hidden, steps=steps, beta=beta, random_state=random_state
        )
        self.latent_dim, self.hidden, self.steps = latent_dim, hidden, steps
        self.beta, self.random_state, self.progress = beta, random_state, progress

    def build(self, n_features: int) -> None:
        """Create scaler, encoder and decoder."""
        self.scaler = RowScaler(n_features)
        self.encoder = perceptron(n_features + 1, self.hidden, 2 * self.latent_dim)
        self.decoder = perceptron(self.latent_dim + 1, self.hidden, n_features)

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Fit on rows `X`, float (n, d), and labels `y`, int (n,), with a cosine-decayed rate."""
        with torch_seed(self.random_state) as noise:
            self.build(X.shape[1])
            rows, labels = self.scaler.fit(X)(X), torch.as_tensor(y, dtype=torch.float32)
            odds = torch.from_numpy(1 / np.bincount(y, minlength=2)[y])
            parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
            optimizer = torch.optim.Adam(parameters, lr=2e-3)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
            bar = tqdm(range(self.steps), "cvae", unit="step", disable=not self.progress)
            for step in bar:
                batch = torch.multinomial(odds, 256, replacement=True, generator=noise)
                loss = self.loss(rows[batch], labels[batch], noise)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                if step % 100 == 0:
                    bar.set_postfix(loss=f"{loss.item():.3f}")
        return self.eval()

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
