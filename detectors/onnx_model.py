"""An ONNX model, asked about rows by onnxruntime."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import InputError

LOG_ODDS = "swift_hydra.output"  # in the metadata of a model whose score needs no conversion
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxModel:
    """What was in an ONNX file, and a session of it on one CPU thread.

    Copies and pickles hold the same content, whatever has become of the file.

    Args:
        path: of the file.
        content: of the file, which is read by default.

    Raises:
        InputError: onnxruntime is not installed, or the file is missing, no ONNX model, or one
            that keeps its weights in other files.
    """

    def __init__(self, path: str, content: bytes | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(f"onnx:{path} needs onnxruntime; pip install onnxruntime.") from error
        if content is None and not Path(path).is_file():
            raise InputError(f"There is no ONNX file {path}; pass the path of an exported model.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry(WEIGHTS_FOLDER, os.devnull)  # they would not be saved
        try:
            self.path, self.content = path, content or Path(path).read_bytes()
            self.session: Any = onnxruntime.InferenceSession(
                self.content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises exceptions of its own, one for each cause
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{path} is no readable ONNX model ({reason}); export it again, as one file."
            ) from error

    def __reduce__(self) -> tuple[type["OnnxModel"], tuple[str, bytes]]:
        """Leave out the session, which cannot be copied; it is opened anew."""
        return OnnxModel, (self.path, self.content)

    @property
    def width(self) -> Any:
        """Columns of the input, where it names their number."""
        return self.session.get_inputs()[0].shape[-1]

    @property
    def gives_log_odds(self) -> bool:
        """Whether the model's score is said to be the log-odds of anomaly."""
        return LOG_ODDS in self.session.get_modelmeta().custom_metadata_map

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Ask about rows, float (n, d).

        Returns:
            probabilities of normal and anomaly, float64 (n, 2), or scores, float64 (n,).

        Raises:
            InputError: the model takes other rows or gives another kind of answer.
        """
        (entrance, *others) = self.session.get_inputs()
        if others or (isinstance(self.width, int) and self.width != X.shape[1]):
            raise InputError(
                f"{self.path} wants {1 + len(others)} input(s) of {self.width} columns, but the"
                f" rows have {X.shape[1]}; export a model with one input for these rows."
            )
        dtype = np.float64 if "double" in entrance.type else np.float32
        try:
            answers = self.session.run(None, {entrance.name: X.astype(dtype)})[-1]
        except Exception as error:  # onnxruntime raises exceptions of its own, one for each cause
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{self.path} cannot be run on {len(X)} rows of numbers ({reason}); export it for"
                " any number of rows."
            ) from error
        if isinstance(answers, list):  # of probabilities by label, in the labels' order
            answers = [list(row.values()) for row in answers]
        answers = np.asarray(answers, dtype=np.float64)
        if answers.size == len(X):
            return answers.reshape(len(X))
        if answers.shape != (len(X), 2):
            raise InputError(
                f"The last output of {self.path} has the shape {answers.shape}; give one score or"
                " two probabilities a row."
            )
        return answers
