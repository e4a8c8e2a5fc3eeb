"""Run folders: what a training leaves, and how it is found and read again."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import detectors
import generators
from agents.agent import save_agent
from agents.hardening import Hardened
from common.errors import InputError
from common.files import read_json, reading_saved, replacing, write_json
from common.rows import checked_rows
from common.tensors import load_tensors, save_tensors
from data import Split, Table
from detectors.base import Detector

NEEDED_SETTINGS: dict[str, type | tuple[type, ...]] = {
    "detector": str,
    "generator": str,
    "algo": str,
    "seed": int,
    "synthetic_weight": (int, float),
}


@dataclass(frozen=True)
class Run:
    """A complete run folder and its settings."""

    folder: Path
    config: dict[str, Any]

    def rows(self, *names: str) -> list[np.ndarray]:
        """Return arrays by what `write_run` calls them, such as `X_test`, `y_test` and `bank`."""
        tensors = load_tensors(self.folder / "rows.safetensors")
        with reading_saved(self.folder):
            return [tensors[name].numpy() for name in names]

    def held_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the held-out rows, float64 (n, d), if any, and their labels, int64 (n,)."""
        with reading_saved(self.folder):
            X, y = self.rows("X_test", "y_test")
            if len(y):
                X, y = checked_rows(X, y)
            if X.shape != (len(y), len(self.feature_names())):
                raise ValueError("The held-out rows have other columns.")
            return X, y

    def feature_names(self) -> list[str]:
        """Return the names of the rows' columns, in their order."""
        names = read_json(self.folder / "columns.json")
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise InputError(f"{self.folder / 'columns.json'} is no list of names; train again.")
        return names

    def check_parts(self, *parts: str) -> None:
        """Raise `InputError` where one is unknown, with the plugins that brought it."""
        registries = {"detector": detectors.registry, "generator": generators.registry}
        for part in parts:
            try:
                registries[part].spec(self.config[part])
            except InputError as error:
                if not self.config.get("plugin"):
                    raise
                raise InputError(
                    f"The {part} of the run {self.folder}, {self.config[part]}, is a plugin's;"
                    f" pass --plugin {' '.join(self.config['plugin'])}."
                ) from error

    def detector(self, name: str = "detector") -> Detector:
        """Load the hardened detector, or `unhardened`, the one before.

        Raises:
            InputError: it cannot be loaded, or is not of the run's columns.
        """
        detector = detectors.load(self.config["detector"], self.folder / name)
        n_columns = len(self.feature_names())
        if detector.n_features_in_ != n_columns:
            raise InputError(
                f"{self.folder / name} learned from {detector.n_features_in_} columns, but"
                f" columns.json beside it names {n_columns}; train again."
            )
        return detector


def write_run(
    folder: Path,
    hardened: Hardened,
    split: Split,
    table: Table,
    config: dict[str, Any],
    metrics: dict[str, Any],
) -> None:
    """Write config, rows and their columns' names, models, bank and metrics.

    The bank is written twice: to `bank.parquet` with column names, for people, and among the
    tensors of `rows.safetensors`, for programs.
    """
    scenario = hardened.scenario
    rows = {
        "X_train": split.X_train,
        "y_train": split.y_train,
        "X_test": split.X_test,
        "y_test": split.y_test,
        "bank": scenario.bank,
        "references": scenario.gate.references.numpy(),
        "latent_limit": np.array(scenario.latent_limit),
    }
    save_tensors(
        folder / "rows.safetensors", {name: torch.from_numpy(array) for name, array in rows.items()}
    )
    scenario.generator.save(folder / "generator")
    scenario.detector.save(folder / "detector")
    hardened.unhardened.save(folder / "unhardened")
    save_agent(hardened.agent, config["algo"], folder / "policy")
    with replacing(folder / "bank.parquet") as temporary:
        pd.DataFrame(scenario.bank, columns=table.feature_names).to_parquet(temporary)
    write_json(folder / "columns.json", table.feature_names)
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "config.json", config)


def open_run(folder: Path | str, backend: str | None = None) -> Run:
    """Open a run folder; raise `InputError` where it is none, or hardened another backend."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"There is no run folder {folder}; pass one written by train.py.")
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or not all(
        isinstance(config.get(name), kind) for name, kind in NEEDED_SETTINGS.items()
    ):
        raise InputError(f"{folder / 'config.json'} lacks settings; train the run again.")
    if backend not in (None, config["detector"]):
        raise InputError(
            f"The run {folder} hardened {config['detector']}, not {backend}; "
            "pass --env-id LatentAnomaly-v0 or another run."
        )
    return Run(folder, config)


def find_run(root: Path, settings: Mapping[str, Any] | None = None) -> Run | None:
    """Return the run written last under `root`, any or one with these settings; None without one.

    That is told by the time of its config, so that a run folder can be renamed. Folders whose
    config is not that of a run are left out, with a warning.
    """
    wanted = settings or {}
    folders = root.iterdir() if root.is_dir() else ()
    written = {folder: time for folder in folders if (time := when_written(folder)) is not None}
    for folder in sorted(written, key=written.__getitem__, reverse=True):
        try:
            run = open_run(folder)
        except (InputError, OSError) as error:
            warnings.warn(f"{folder} is left out: {error}", stacklevel=2)
            continue
        if all(same(run.config.get(name), value) for name, value in wanted.items()):
            return run
    return None


def same(first: Any, second: Any) -> bool:
    """Tell whether two values of a setting are equal, or paths of one file."""
    if first == second:
        return True
    paths = [Path(value) for value in (first, second) if isinstance(value, str | Path)]
    return len(paths) == 2 and all(path.exists() for path in paths) and paths[0].samefile(paths[1])


def when_written(folder: Path) -> float | None:
    """Return the time of a run's config: None without one, the latest where it cannot be told."""
    try:
        return (folder / "config.json").stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return np.inf
