"""Detectors that are saved as their settings and training rows, and fitted again on load."""

import warnings
from abc import abstractmethod
from pathlib import Path
from typing import Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from common.errors import InputError
from common.files import read_json, reading_saved, write_json
from common.tensors import load_tensors, save_tensors
from detectors.base import Detector


class RefittedDetector(Detector):
    """Saved without pickle. Subclasses say in `_refit` how to fit.

    `training_rows_` is a copy of what they were fitted on: `X`, `y`, `weight` and `synthetic`.
    """

    training_rows_: dict[str, np.ndarray]

    @abstractmethod
    def _refit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        """Learn from checked arrays."""

    def _fit(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray) -> None:
        self._keep(X, y, weight, synthetic)
        self._refit(X, y, weight, synthetic)

    def _keep(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        rows = {"X": X, "y": y, "weight": weight, "synthetic": synthetic}
        self.training_rows_ = {name: array.copy() for name, array in rows.items()}

    def save(self, folder: Path | str) -> None:
        """Write `settings.json`, and the training rows and their scores to `rows.safetensors`."""
        check_is_fitted(self)
        write_json(Path(folder) / "settings.json", self.fitted_with_)
        arrays = {**self.training_rows_, "scores": self.decision_scores_}
        rows = {name: torch.from_numpy(values) for name, values in arrays.items()}
        save_tensors(Path(folder) / "rows.safetensors", rows)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Fit again on the rows that `save` wrote, with the same settings and seed.

        It warns where their scores are others than they were.

        Raises:
            InputError: a file is missing or broken, another version wrote it, or the fit fails.
        """
        settings = read_json(Path(folder) / "settings.json")
        rows = load_tensors(Path(folder) / "rows.safetensors")
        with reading_saved(folder):
            detector = cls(random_state=settings.pop("random_state"), **settings)
            arrays = [rows[name].numpy() for name in ("X", "y", "weight", "synthetic")]
            try:
                detector.fit(*arrays)
            except InputError as error:
                raise InputError(f"{folder} cannot be fitted again: {error}") from error
        if "scores" in rows:
            warn_of_change(detector.decision_scores_, rows["scores"].numpy(), folder)
        return detector


def warn_of_change(now: np.ndarray, saved: np.ndarray, folder: Path | str) -> None:
    """Warn where the scores of the training rows, (n,), are no longer those that were saved."""
    if not np.allclose(now, saved, rtol=1e-3, atol=1e-3 * np.ptp(saved)):
        warnings.warn(
            f"{folder} was fitted again and scores rows otherwise than before, by up to"
            f" {np.abs(now - saved).max():.2g}: Swift Hydra or a library has changed since, or the"
            " detector draws without random_state; train it again, or install what it had.",
            stacklevel=2,
        )
