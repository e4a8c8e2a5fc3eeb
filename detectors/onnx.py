"""A scorer in an ONNX file: it can be queried and thus attacked, but not retrained."""

from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from common.errors import InputError
from common.files import read_json, reading_saved, replacing, write_json
from common.seeds import RandomState
from detectors.base import Detector
from detectors.log_odds import Score, class_log_odds

RESOLUTION = float(np.finfo(np.float32).eps)  # of probabilities that sum up to 1
LOG_ODDS = "swift_hydra.output"  # in the metadata of a model whose score needs no conversion


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
        self.session_ = open_session(self.path)
        answers = query(self.session_, X[y == 0], self.path)
        foreign = answers.ndim == 1 and not gives_log_odds(self.session_)
        self.score_ = Score.of(answers, None) if foreign else None

    def _partial_fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, synthetic: np.ndarray
    ) -> None:
        raise InputError(
            f"onnx:{self.path} can only be queried: attack it, but retrain what it was made from."
        )

    def _log_odds(self, X: np.ndarray) -> np.ndarray:
        answers = query(self.session_, X, self.path)
        if self.score_ is not None:
            return self.score_(answers)
        if answers.ndim == 1:
            return answers
        return class_log_odds(np.log(answers.clip(min=RESOLUTION)))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the session, which cannot be copied; it is opened anew."""
        return {name: value for name, value in self.__dict__.items() if name != "session_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of `__getstate__`."""
        self.__dict__.update(state)
        if "n_features_in_" in state:
            self.session_ = open_session(self.path)

    def save(self, folder: Path | str) -> None:
        """Write `settings.json` and a copy of the model, `model.onnx`."""
        check_is_fitted(self)
        score = None if self.score_ is None else [self.score_.zero, self.score_.unit]
        fitted = {"score": score, "n_features": self.n_features_in_}
        write_json(Path(folder) / "settings.json", fitted)
        with replacing(Path(folder) / "model.onnx") as temporary:
            temporary.write_bytes(Path(self.path).read_bytes())

    @classmethod
    def open(cls, path: str) -> Self:
        """Open what `detectors.export_onnx` wrote, ready to score.

        Raises:
            InputError: onnxruntime is not installed, or the file is missing or something else.
        """
        session = open_session(path)
        if not gives_log_odds(session):
            raise InputError(
                f'{path} was not written by export_onnx; detectors.make("onnx:{path}").fit(X, y)'
                " learns what its scores mean."
            )
        return cls(path)._ready(session, session.get_inputs()[0].shape[1])

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Open the model that `save` copied.

        Raises:
            InputError: a file is missing or broken, or another version wrote it.
        """
        fitted, path = read_json(Path(folder) / "settings.json"), str(Path(folder) / "model.onnx")
        with reading_saved(folder):
            n_features, score = fitted["n_features"], fitted["score"] and Score(*fitted["score"])
        return cls(path)._ready(open_session(path), n_features, score)

    def _ready(self, session: Any, n_features: int, score: Score | None = None) -> Self:
        self.session_, self.n_features_in_, self.score_ = session, n_features, score
        self.classes_, self.threshold_ = np.array([0, 1]), 0.0
        return self


def gives_log_odds(session: Any) -> bool:
    """Tell whether a model's score is said to be the log-odds of anomaly."""
    return LOG_ODDS in session.get_modelmeta().custom_metadata_map


def open_session(path: str) -> Any:
    """Open an ONNX file with onnxruntime, on one CPU thread.

    Raises:
        InputError: onnxruntime is not installed, or the file is missing or no ONNX model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"onnx:{path} needs onnxruntime; pip install onnxruntime.") from error
    if not Path(path).is_file():
        raise InputError(f"There is no ONNX file {path}; pass the path of an exported model.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises exceptions of its own, one for each cause
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} is no readable ONNX model ({reason}); export it again."
        ) from error


def query(session: Any, X: np.ndarray, path: str) -> np.ndarray:
    """Ask a model about rows, float (n, d).

    Returns:
        probabilities of normal and anomaly, float64 (n, 2), or scores, float64 (n,).

    Raises:
        InputError: the model takes other rows or gives another kind of answer.
    """
    (entrance, *others) = session.get_inputs()
    width = entrance.shape[-1]
    if others or (isinstance(width, int) and width != X.shape[1]):
        raise InputError(
            f"{path} wants {1 + len(others)} input(s) of {width} columns, but the rows have"
            f" {X.shape[1]}; export a model with one input for these rows."
        )
    dtype = np.float64 if "double" in entrance.type else np.float32
    try:
        answers = session.run(None, {entrance.name: X.astype(dtype)})[-1]
    except Exception as error:  # onnxruntime raises exceptions of its own, one for each cause
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} cannot be run on {len(X)} rows of numbers ({reason}); export it for any number"
            " of rows."
        ) from error
    if isinstance(answers, list):  # of probabilities by label, in the labels' order
        answers = [list(row.values()) for row in answers]
    answers = np.asarray(answers, dtype=np.float64)
    if answers.size == len(X):
        return answers.reshape(len(X))
    if answers.shape != (len(X), 2):
        raise InputError(
            f"The last output of {path} has the shape {answers.shape}; give one score or two"
            " probabilities a row."
        )
    return answers
