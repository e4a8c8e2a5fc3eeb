"""A scorer in an ONNX file: it can be queried and thus attacked, but not retrained."""

from pathlib import Path
from typing import Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from common.errors import InputError
from common.files import read_json, reading_saved, replacing, write_json
from common.seeds import RandomState
from detectors.base import Detector
from detectors.log_odds import Score, class_log_odds
from detectors.onnx_model import OnnxModel

RESOLUTION = float(np.finfo(np.float32).eps)  # of probabilities that sum up to 1


class OnnxDetector(Detector):
    """Scores rows with an ONNX model of one input, (n, d).

    Of its outputs the last one counts: with two columns (or, from skl2onnx, as dictionaries) it
    holds the probabilities of normal and of anomaly, with one column a score that is higher where
    more anomalous. `fit` learns nothing but, for a score, the threshold and the unit: the 90th
    percentile and the deviation of the rows labelled 0. What `detectors.export_onnx` wrote says
    that its score is the log-odds, which stay as they are; `open` takes it without a fit.

    Args:
        path: the ONNX file.
        random_state: unused; every backend takes it.
    """

    trainable = False

    def __init__(self, path: str, random_state: RandomState = 0) -> None:
        self.path = path
        self.random_state = random_state

    def _fit(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray) -> None:
        self.model_ = OnnxModel(self.path)
        answers = self.model_(X[y == 0])
        foreign = answers.ndim == 1 and not self.model_.gives_log_odds
        self.score_ = Score.of(answers, None) if foreign else None

    def _partial_fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        raise InputError(
            f"onnx:{self.path} can only be queried: attack it, but retrain what it was made from."
        )

    def _log_odds(self, X: np.ndarray) -> np.ndarray:
        answers = self.model_(X)
        if self.score_ is not None:
            return self.score_(answers)
        if answers.ndim == 1:
            return answers
        return class_log_odds(np.log(answers.clip(min=RESOLUTION)))

    def save(self, folder: Path | str) -> None:
        """Write `settings.json` and the model, `model.onnx`."""
        check_is_fitted(self)
        score = None if self.score_ is None else [self.score_.zero, self.score_.unit]
        fitted = {"score": score, "n_features": self.n_features_in_}
        write_json(Path(folder) / "settings.json", fitted)
        with replacing(Path(folder) / "model.onnx") as temporary:
            temporary.write_bytes(self.model_.content)

    @classmethod
    def open(cls, path: str) -> Self:
        """Open what `detectors.export_onnx` wrote, ready to score.

        Raises:
            InputError: onnxruntime is not installed, or the file is missing or something else.
        """
        model = OnnxModel(path)
        if not model.gives_log_odds:
            raise InputError(
                f'{path} was not written by export_onnx; detectors.make("onnx:{path}").fit(X, y)'
                " learns what its scores mean."
            )
        return cls(path)._ready(model, model.width)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Open the model that `save` copied.

        Raises:
            InputError: a file is missing or broken, or another version wrote it.
        """
        fitted, path = read_json(Path(folder) / "settings.json"), str(Path(folder) / "model.onnx")
        with reading_saved(folder):
            n_features, score = fitted["n_features"], fitted["score"] and Score(*fitted["score"])
        return cls(path)._ready(OnnxModel(path), n_features, score)

    def _ready(self, model: OnnxModel, n_features: int, score: Score | None = None) -> Self:
        self.model_, self.n_features_in_, self.score_ = model, n_features, score
        self.classes_, self.threshold_ = np.array([0, 1]), 0.0
        return self
