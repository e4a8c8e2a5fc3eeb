"""Tables read from .csv, .parquet and .npz files.

A parser may raise anything on broken bytes, so whatever it raises becomes an `InputError`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from common.errors import InputError
from data.table import Table
from data.validation import table_from_arrays, table_from_frame


def read(path: Path | str, label_column: str = "label", name: str | None = None) -> Table:
    """Read a file into a checked table called `name`, by default its path.

    A .csv or .parquet file holds features in all columns but `label_column`; an .npz file holds
    the arrays X, (n, d), and y, (n,), and is never unpickled.

    Raises:
        InputError: the file is missing, of another type or broken, or its rows are refused.
    """
    path, name = Path(path), name or str(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it.")
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return table_from_arrays(*read_arrays(path), name)
    if suffix not in FRAME_READERS:
        raise InputError(
            f"{path} is of an unknown type; give a .npz, {' or '.join(FRAME_READERS)} file."
        )
    return table_from_frame(read_frame(path, FRAME_READERS[suffix]), label_column, name)


def read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the arrays X and y of an .npz file; raise `InputError` where they cannot be read."""
    try:
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            held = archive.files if isinstance(archive, np.lib.npyio.NpzFile) else []
            if {"X", "y"} <= set(held):
                return archive["X"], archive["y"]
    except Exception as error:
        raise unreadable(path, error) from error
    raise InputError(f"{path} must hold arrays X and y, not {', '.join(held) or 'none'}.")


def read_frame(path: Path, reader: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    """Return the columns of a file; raise `InputError` where they cannot be read."""
    try:
        frame = reader(path)
    except Exception as error:
        raise unreadable(path, error) from error
    if reader is pd.read_csv and not isinstance(frame.index, pd.RangeIndex):
        raise InputError(f"{path}: rows hold more values than the header has names; name them all.")
    if reader is pd.read_csv and "Unnamed: 0" in frame:
        raise InputError(
            f"{path}: the first column has no name, as where pandas wrote the index; name it, or"
            " write the file with index=False."
        )
    return frame


def unreadable(path: Path, error: Exception) -> InputError:
    """Build the error for a file whose content is broken."""
    reason = " ".join(str(error).split())
    return InputError(f"{path} cannot be read ({reason}); write it again as plain numbers.")


FRAME_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": pd.read_csv,
    ".parquet": pd.read_parquet,
}
