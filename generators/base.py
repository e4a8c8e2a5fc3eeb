"""The interface of a generator, and what all generators share."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from common.errors import InputError, refused_by
from common.files import read_json, reading_saved, write_json
from common.plain_torch import plain_torch
from common.randomness import global_seed
from common.scaling import RowScaler
from common.seeds import RandomState, as_seed
from common.tensors import load_tensors, save_tensors


class Generator(nn.Module, ABC):
    """Maps rows to latent vectors and back.

    Args:
        random_state: seed of whatever `fit` draws.
        progress: show a progress bar in `fit`.
        settings: the subclass's own settings, which `save` writes and `load` passes on.

    Attributes after `fit`:
        latent_dim: length of a latent vector.
        scaler: the `RowScaler` fitted on the same rows; `decode_scaled` returns its space.
    """

    latent_dim: int
    scaler: RowScaler

    def __init__(
        self, random_state: RandomState = 0, progress: bool = False, **settings: Any
    ) -> None:
        super().__init__()
        self.random_state, self.progress = as_seed(random_state), progress
        self.settings = {"random_state": self.random_state, **settings}

    @abstractmethod
    def build(self, n_features: int) -> None:
        """Create the modules for rows of `n_features` columns, before `fit` or `load`."""

    @abstractmethod
    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Learn from rows `X`, float (n, d), and labels `y`, int (n,): 1 is a known anomaly.

        Raises:
            ValueError: values that are not finite, mismatched lengths, or labels but 0 and 1.
        """

    def partial_fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Adapt to all rows that shall count, old and new; by default `fit` them anew."""
        return self.fit(X, y)

    @abstractmethod
    def encode_scaled(self, scaled: Tensor, y: Tensor) -> Tensor:
        """Map scaled rows, float32 (n, d), and labels (n,) to latents, float32 (n, latent_dim)."""

    @abstractmethod
    def decode_scaled(self, z: Tensor, y: Tensor) -> Tensor:
        """Map latents, float32 (n, latent_dim), and labels (n,) to scaled rows, float32 (n, d)."""

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw `n` candidate anomalies, float64 (n, d) in the input's units."""

    @torch.no_grad()
    def encode(self, X: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Map rows, float (n, d), and labels, int (n,), to latents, float32 (n, latent_dim)."""
        return self.encode_scaled(self.scaler(X), float_tensor(y)).numpy()

    @torch.no_grad()
    def decode(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Map latents, float (n, latent_dim), and labels, int (n,), to rows, float64 (n, d)."""
        return self.decode_rows(float_tensor(z), float_tensor(y)).numpy()

    def decode_rows(self, z: Tensor, y: Tensor) -> Tensor:
        """Map latents, float32 (n, latent_dim), and labels (n,) to rows, float64 (n, d)."""
        return self.scaler.inverse(self.decode_scaled(z, y))

    def save(self, folder: Path | str) -> None:
        """Write `settings.json` and `weights.safetensors` into `folder`, which is made."""
        n_features = len(self.scaler.center)
        write_json(Path(folder) / "settings.json", {**self.settings, "n_features": n_features})
        save_tensors(Path(folder) / "weights.safetensors", self.state_dict())

    @classmethod
    @plain_torch()
    def load(cls, folder: Path | str) -> Self:
        """Read what `save` wrote; raise `InputError` where it is missing or broken."""
        settings = read_json(Path(folder) / "settings.json")
        weights = load_tensors(Path(folder) / "weights.safetensors")
        with reading_saved(folder), global_seed(0):  # of weights that are then replaced
            n_features = settings.pop("n_features")
            generator = cls(**settings)
            generator.build(n_features)
            generator.load_state_dict(weights)
        return generator.eval()


def fitted(generator: Generator, X: np.ndarray, y: np.ndarray) -> Generator:
    """Fit a generator on copies of rows `X`, float64 (n, d), and labels `y`, int64 (n,).

    Meanwhile global generators are seeded with its `random_state`, for classes that draw from them.

    Raises:
        InputError: it is no `Generator` or has settings that its class does not take, refuses the
            rows, fails, or does not return itself.
    """
    if not isinstance(generator, Generator):
        raise InputError(
            f"The generator is {type(generator).__name__}; make it a subclass of"
            " generators.base.Generator."
        )
    try:
        inspect.signature(type(generator)).bind(**generator.settings)
    except TypeError as error:
        raise InputError(
            f"{type(generator).__name__} could not be loaded with its settings ({error}); pass"
            " those that it takes itself, by name, to super().__init__."
        ) from error
    return _learned(generator, generator.fit, X, y, generator.random_state)


def refitted(generator: Generator, X: np.ndarray, y: np.ndarray) -> Generator:
    """Let a fitted generator go on training; see `fitted`."""
    return _learned(generator, generator.partial_fit, X, y, generator.random_state + 1)


def _learned(
    generator: Generator,
    learn: Callable[[np.ndarray, np.ndarray], Generator],
    X: np.ndarray,
    y: np.ndarray,
    seed: int,
) -> Generator:
    name = type(generator).__name__
    with global_seed(seed), plain_torch(), refused_by(f"The generator {name}", "one"):
        learned = learn(X.copy(), y.copy())
    if not isinstance(learned, Generator):
        raise InputError(f"{learn.__name__} of the generator {name} must return the generator.")
    return learned


def float_tensor(values: ArrayLike) -> Tensor:
    """Return numbers as a float32 tensor; torch itself takes no array of any kind and strides."""
    return torch.from_numpy(np.require(values, np.float32, ["C", "W"]))
