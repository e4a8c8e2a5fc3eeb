"""Writes a fitted flagship as an ONNX model, preprocessing inside."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from sklearn.utils.validation import check_is_fitted

from common.errors import InputError, one_line
from common.files import check_file, replacing
from common.plain_torch import plain_torch
from detectors.base import Detector
from detectors.dense import DenseMixture
from detectors.mamba_moe import MambaMoEDetector
from detectors.onnx_model import LOG_ODDS

DTYPES = {"float64": torch.float64, "float32": torch.float32}


@plain_torch()
def export_onnx(detector: Detector, path: Path | str, dtype: str = "float64") -> None:
    """Write a fitted `mamba-moe` or `mamba` as an ONNX model, atomically.

    Its input `X`, (n, d), holds rows in the units that the detector was fitted in, its output
    `log_odds`, float32 (n,), what `decision_function` returns, to 1e-4, or 1e-4 of what is beyond
    1. Every expert sees every row, for routing costs a runtime more than it saves.

    Args:
        detector: what `detectors.make("mamba-moe")` or `"mamba"` made, fitted.
        path: file to write.
        dtype: of the input, "float64" or "float32"; float32 rounds columns of large numbers.

    Raises:
        InputError: the detector is of another kind, the dtype is another one, no file can be
            written there, or the packages onnx and onnxscript are not installed.
        NotFittedError: the detector has not been fitted.
    """
    if not isinstance(detector, MambaMoEDetector):
        raise InputError(
            f"{one_line(detector)} cannot be written as ONNX; export mamba-moe or mamba, of a"
            " SwiftHydra with one of these its detector_."
        )
    if dtype not in DTYPES:
        raise InputError(f"The dtype is {dtype!r}; choose float64 or float32.")
    check_is_fitted(detector)
    check_file(Path(path), "the argument path")
    rows = torch.zeros(2, detector.n_features_in_, dtype=DTYPES[dtype])
    network = DenseMixture(copy.deepcopy(detector.network_).cpu()).eval()
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (rows,),
                input_names=["X"],
                output_names=["log_odds"],
                dynamic_shapes=({0: torch.export.Dim("n")},),
                dynamo=True,
                verbose=False,
            )
    except ImportError as error:
        raise InputError(
            "Writing ONNX needs onnx and an onnxscript that suits torch;"
            f" pip install --upgrade onnx onnxscript ({error})."
        ) from error
    assert program is not None
    program.model.metadata_props[LOG_ODDS] = "log_odds"
    with replacing(path) as temporary:
        program.save(temporary, external_data=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's remarks on torch's own code to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
