"""Tree ensembles as black boxes: they are refitted, and only their probability is seen."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from catboost import CatBoostClassifier
from sklearn.ensemble import ExtraTreesClassifier

from common.files import read_json, write_json
from common.weights import load_weights, save_weights
from detectors.base import Detector

SMALLEST_PROBABILITY = 1e-3


class RefittedDetector(Detector):
    """A classifier without warm start: `partial_fit` is `fit` on the rows that shall count.

    It is saved as its settings and training rows, and fitted anew when loaded: no pickle.
    """

    def make_classifier(self) -> Any:
        """Return an unfitted classifier with `fit(X, y, sample_weight)` and `predict_proba`."""
        raise NotImplementedError

    def _fit(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray) -> None:
        self.training_rows_ = {"X": X, "y": y, "weight": weight}
        self.classifier_ = self.make_classifier().fit(X, y, sample_weight=weight)

    def _partial_fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        self._fit(X, y, weight, synthetic)

    def _log_odds(self, X: np.ndarray) -> np.ndarray:
        # CatBoost marks the array that it is given as read-only; a view takes the mark.
        probability = self.classifier_.predict_proba(X.view())[:, 1]
        probability = probability.clip(SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
        return np.log(probability / (1 - probability))

    def save(self, folder: Path | str) -> None:
        """Write `settings.json` and the training rows, `rows.safetensors`."""
        write_json(Path(folder) / "settings.json", self.get_params())
        rows = {name: torch.from_numpy(values) for name, values in self.training_rows_.items()}
        save_weights(Path(folder) / "rows.safetensors", rows)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Fit again on the rows that `save` wrote, with the same settings and seed."""
        detector = cls(**read_json(Path(folder) / "settings.json"))
        rows = load_weights(Path(folder) / "rows.safetensors")
        return detector.fit(rows["X"].numpy(), rows["y"].numpy(), rows["weight"].numpy())


class ExtraTreesDetector(RefittedDetector):
    """scikit-learn's `ExtraTreesClassifier`; arguments are that class's own."""

    def __init__(
        self, n_estimators: int = 200, n_jobs: int | None = None, random_state: int = 0
    ) -> None:
        self.n_estimators = n_estimators
        self.n_jobs = n_jobs
        self.random_state = random_state

    def make_classifier(self) -> ExtraTreesClassifier:
        """Return the unfitted forest."""
        return ExtraTreesClassifier(**self.get_params())


class CatBoostDetector(RefittedDetector):
    """`catboost.CatBoostClassifier`; arguments are that class's own."""

    def __init__(
        self, iterations: int = 500, n_jobs: int | None = None, random_state: int = 0
    ) -> None:
        self.iterations = iterations
        self.n_jobs = n_jobs
        self.random_state = random_state

    def make_classifier(self) -> CatBoostClassifier:
        """Return the unfitted boosted trees."""
        return CatBoostClassifier(
            iterations=self.iterations,
            thread_count=self.n_jobs or -1,
            random_seed=self.random_state,
            verbose=False,
            allow_writing_files=False,
        )
