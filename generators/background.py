"""Feature-space negatives around the normal rows; they reach what a decoder cannot draw."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from common.rows import checked_rows
from common.scaling import RowScaler
from common.seeds import RandomState
from generators.base import Generator

NOISE_SCALES = (0.1, 0.25, 0.5, 1.0, 2.0)


class Background(Generator):
    """Normal rows corrupted by noise, by redrawn features and by features shuffled across rows.

    The latent space is the scaled row itself, so `encode` and `decode` are the scaler and its
    inverse, and an agent that acts on it perturbs features directly.
    """

    normals: Tensor

    def __init__(self, random_state: RandomState = 0, progress: bool = False) -> None:
        super().__init__(random_state, progress)

    def build(self, n_features: int) -> None:
        """Create the scaler and the store of normal rows."""
        self.latent_dim = n_features
        self.scaler = RowScaler(n_features)
        self.register_buffer("normals", torch.zeros(0, n_features))

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Keep the rows of `X`, float (n, d), whose label `y` is 0."""
        X, y = checked_rows(X, y)
        self.build(X.shape[1])
        self.scaler.fit(X)
        self.normals = self.scaler(X[y == 0])
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Take the stored normal rows whatever their number."""
        self.normals = torch.zeros_like(state_dict["normals"])
        return super().load_state_dict(state_dict, *args, **kwargs)

    def encode_scaled(self, scaled: Tensor, y: Tensor) -> Tensor:
        """Return the scaled rows."""
        return scaled

    def decode_scaled(self, z: Tensor, y: Tensor) -> Tensor:
        """Return the latents, which are scaled rows."""
        return z

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Corrupt `n` normal rows, each in one of three ways; float64 (n, d)."""
        normals = self.normals.numpy()
        low, high = self.scaler.low.numpy(), self.scaler.high.numpy()
        rows = normals[rng.integers(len(normals), size=n)]
        others = normals[rng.integers(len(normals), size=rows.shape), np.arange(rows.shape[1])]
        uniform = rng.uniform(low, high, size=rows.shape)
        noisy = rows + rng.choice(NOISE_SCALES, size=(n, 1)) * rng.standard_normal(rows.shape)
        subset = rng.random(rows.shape) < rng.uniform(0.05, 0.6, size=(n, 1))
        subset[np.arange(n), rng.integers(rows.shape[1], size=n)] = True
        way = rng.integers(3, size=(n, 1))
        redrawn = np.where(subset, np.where(way == 1, uniform, others), rows)
        scaled = np.where(way == 0, noisy, redrawn)
        return self.scaler.inverse(torch.from_numpy(scaled)).numpy()
