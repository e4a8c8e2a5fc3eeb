"""Two plain networks to compare speeds with: a length-1 Transformer and a perceptron."""

from abc import ABC, abstractmethod
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.randomness import torch_seed
from detectors.mamba_expert import MambaExpert
from detectors.mamba_moe import MambaMoEDetector
from generators.cvae import perceptron

BATCH = 256
STEPS = 100
SCORING_BATCH = 1024


class NetworkClassifier(ABC):
    """A network of standardised rows, float32 (n, d), to one logit a row, behind `fit`.

    AdamW on balanced batches; what is measured is the time to score, so training is short.

    Args:
        random_state: seed of weights and batches.
    """

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    @abstractmethod
    def build(self, n_features: int) -> nn.Module:
        """Return the network."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Learn from standardised rows, float (n, d), and labels, int (n,) in {0, 1}."""
        rows, labels = torch.as_tensor(X, dtype=torch.float32), torch.as_tensor(y).float()
        odds = torch.from_numpy(1 / np.bincount(y)[y])
        with torch_seed(self.random_state) as generator:
            self.network_ = self.build(X.shape[1])
            optimizer = torch.optim.AdamW(self.network_.parameters(), lr=1e-3)
            for _ in range(STEPS):
                batch = torch.multinomial(odds, BATCH, replacement=True, generator=generator)
                logits = self.network_(rows[batch])[:, 0]
                optimizer.zero_grad()
                F.binary_cross_entropy_with_logits(logits, labels[batch]).backward()
                optimizer.step()
        self.network_.eval()
        return self

    @torch.inference_mode()
    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return logits, float64 (n,)."""
        blocks = torch.as_tensor(X, dtype=torch.float32).split(SCORING_BATCH)
        return torch.cat([self.network_(block)[:, 0] for block in blocks]).double().numpy()


class LengthOneTransformer(nn.Module):
    """A row as one token: two encoder layers of width 128, 8 heads, feed-forward 256."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.tokenizer = nn.Linear(n_features, 128)
        layer = nn.TransformerEncoderLayer(128, 8, 256, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(128, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows, float32 (n, d), to logits, (n, 1)."""
        return self.head(self.encoder(self.tokenizer(rows)[:, None])[:, 0])


class TransformerClassifier(NetworkClassifier):
    """The length-1 Transformer that stands in for Mamba in the reference's public code."""

    def build(self, n_features: int) -> nn.Module:
        """Return the Transformer."""
        return LengthOneTransformer(n_features)


class PerceptronClassifier(NetworkClassifier):
    """Two hidden layers, as many parameters as the Mamba experts that score a row."""

    def build(self, n_features: int) -> nn.Module:
        """Return the perceptron."""
        hidden = perceptron_width(n_features, active_parameters())
        return perceptron(n_features, hidden, 1)


def active_parameters() -> int:
    """Count the parameters of the flagship's `top_k` experts, at its default sizes."""
    sizes = MambaMoEDetector().get_params()
    expert = MambaExpert(sizes["d_model"], sizes["depth"], torch.device("cpu"))
    return sizes["top_k"] * sum(parameter.numel() for parameter in expert.parameters())


def perceptron_width(n_features: int, n_parameters: int) -> int:
    """Solve h^2 + (d + 3) h + 1 = `n_parameters` for the width h of two hidden layers."""
    linear = n_features + 3
    return round((-linear + (linear**2 + 4 * (n_parameters - 1)) ** 0.5) / 2)
