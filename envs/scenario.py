"""What an episode plays on: rows, a generator, a live detector and the feasibility gate."""

from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

import data
import detectors
import generators
from common.errors import InputError, check_positive, check_share, one_line
from common.files import read_json, reading_saved
from common.plain_torch import plain_torch
from common.rows import checked_rows
from common.scaling import RowScaler
from common.seeds import draw_seed
from common.tensors import load_tensors
from detectors.base import Detector
from generators.base import Generator, fitted
from generators.feasibility import FeasibilityGate


@dataclass(frozen=True, eq=False)
class Scenario:
    """The parts that an episode plays on; treat them as read-only, for lanes share them.

    Attributes:
        X: real training rows, float64 (n, d), in the input's units.
        y: their labels, int64 (n,): 1 is a known anomaly.
        generator: fitted generator whose latent space is searched.
        detector: fitted detector that is attacked.
        gate: feasibility gate fitted on the rows labelled 0.
        bank: rows found before, float64 (m, d); novelty is the distance to them.
        synthetic_weight: share in [0, 1) of the anomalies' training weight that found rows get.
        latent_limit: largest absolute entry of a latent vector in an episode; by default, and so
            with another generator, one more than that of the training rows' latents.

    Raises:
        InputError: the detector learned from other columns, the bank is no array of finite rows of
            d columns, or a number is out of range.
    """

    X: np.ndarray
    y: np.ndarray
    generator: Generator
    detector: Detector
    gate: FeasibilityGate
    bank: np.ndarray
    synthetic_weight: float = 0.1
    latent_limit: float | None = None

    def __post_init__(self) -> None:
        check_share("synthetic_weight", self.synthetic_weight)
        if self.latent_limit is not None:
            check_positive("latent_limit", self.latent_limit)
        if self.detector.n_features_in_ != self.X.shape[1]:
            raise InputError(
                f"The rows have {self.X.shape[1]} columns, but the detector learned from"
                f" {self.detector.n_features_in_}; fit it on the rows."
            )
        object.__setattr__(self, "bank", checked_bank(self.bank, self.X.shape[1]))

    @classmethod
    @plain_torch()
    def assemble(
        cls,
        X: np.ndarray,
        y: np.ndarray,
        generator: Generator,
        detector: Detector,
        seed: int,
    ) -> Self:
        """Put copies of rows and fitted parts together and fit the gate; the bank starts empty.

        Raises:
            ValueError: the rows are not finite, or the labels are others than 0 and 1.
            InputError: the detector is no `Detector` or learned from other columns, or the
                generator is no fitted `Generator`.
            NotFittedError: the detector was not fitted.
        """
        if not isinstance(detector, Detector):
            raise InputError(
                f"The detector is {type(detector).__name__}; give one that detectors.make makes."
            )
        if not isinstance(generator, Generator) or not hasattr(generator, "scaler"):
            raise InputError(
                f"The generator is {type(generator).__name__}; give one of generators.make, fitted."
            )
        X, y = checked_rows(X, y)
        check_is_fitted(detector)
        if hasattr(detector, "feature_names_in_") or set(detector.classes_.tolist()) != {0, 1}:
            detector = copy(detector)
            detector.classes_ = np.array([0, 1])
            detector.__dict__.pop("feature_names_in_", None)  # candidates are arrays
        scaler = RowScaler(X.shape[1]).fit(X)
        gate = FeasibilityGate(scaler).fit(X, y, np.random.default_rng(seed))
        return cls(X.copy(), y, generator, detector, gate, np.empty((0, X.shape[1])))


def checked_bank(rows: ArrayLike, n_features: int) -> np.ndarray:
    """Return a copy of a bank's rows as float64 (m, n_features).

    Raises:
        InputError: they have another shape, are no numbers, or not finite.
    """
    try:
        bank = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"The bank is no array of numbers ({one_line(error)}).") from error
    if bank.ndim != 2 or bank.shape[1] != n_features:
        raise InputError(f"The bank has the shape {bank.shape}; give rows of {n_features} columns.")
    if not np.isfinite(bank).all():
        raise InputError("The bank holds values that are not finite; leave these rows out.")
    return bank


FileVersion = tuple[Path, int, int]  # where a file is, when it was modified, and its size


def file_version(path: str | Path) -> FileVersion | None:
    """Return what tells that a file is still the one that was read; None where `path` is none."""
    file = Path(path).resolve()
    if not file.is_file():
        return None
    stat = file.stat()
    return file, stat.st_mtime_ns, stat.st_size


def build_scenario(
    source: str | Path,
    label_column: str,
    protocol: str,
    detector: str,
    generator: str,
    seed: int,
) -> Scenario:
    """Load and split a table and pretrain generator and detector on its training half.

    The scenario is kept for the next call while the files of the rows and of an `onnx:` detector
    stay as they are.

    Args:
        source: what `data.load` takes.
        label_column: likewise.
        protocol: one of `data.PROTOCOLS`, or "all".
        detector: id of a detector backend.
        generator: id of a generator.
        seed: seed of the split and of both fits.
    """
    if not isinstance(source, str | Path):
        raise InputError(
            f"data is {type(source).__name__}; give a name or a path, or a scenario that"
            " Scenario.assemble makes of rows and fitted parts."
        )
    data.check_protocol(protocol)
    if not isinstance(label_column, str):
        raise InputError(f"label_column is {label_column!r}; give the name of a column.")
    detectors.registry.spec(detector)
    generators.registry.spec(generator)
    versions = file_version(source), file_version(detector.removeprefix("onnx:"))
    return _build(str(source), label_column, protocol, detector, generator, seed, versions)


@lru_cache(maxsize=8)
def _build(
    source: str,
    label_column: str,
    protocol: str,
    detector: str,
    generator: str,
    seed: int,
    versions: tuple[FileVersion | None, ...],
) -> Scenario:
    split = data.split(data.load(source, label_column), protocol, seed)
    rng = np.random.default_rng(seed)
    made = generators.make(generator, random_state=draw_seed(rng))
    fitted_generator = fitted(made, split.X_train, split.y_train)
    fitted_detector = detectors.make(detector, random_state=draw_seed(rng))
    fitted_detector.fit(split.X_train, split.y_train)
    return Scenario.assemble(
        split.X_train, split.y_train, fitted_generator, fitted_detector, draw_seed(rng)
    )


def load_scenario(run: str) -> Scenario:
    """Load the scenario of a run folder written by `train.py`, its bank included.

    It is kept for the next call while the run's config stays as it is.

    Raises:
        InputError: a file is missing or broken, or another version wrote it.
    """
    if not isinstance(run, str | Path):
        raise InputError(f"run is {run!r}; give the path of a run folder.")
    return _load(Path(run), file_version(Path(run) / "config.json"))


@lru_cache(maxsize=8)
def _load(folder: Path, version: FileVersion | None) -> Scenario:
    config = read_json(folder / "config.json")
    rows = load_tensors(folder / "rows.safetensors")
    with reading_saved(folder):
        X, y = checked_rows(rows["X_train"], rows["y_train"])
        bank, limit = rows["bank"].numpy(), rows["latent_limit"].item()
        gate = FeasibilityGate(RowScaler(X.shape[1]).fit(X)).refer_to(rows["references"])
        generator, detector = config["generator"], config["detector"]
    return Scenario(
        X,
        y,
        generators.registry.load(generator).load(folder / "generator"),
        detectors.load(detector, folder / "detector"),
        gate,
        bank,
        config["synthetic_weight"],
        limit,
    )
