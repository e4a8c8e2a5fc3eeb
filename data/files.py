"""Tables read from .csv, .parquet and .npz files.

A parser may raise anything on broken bytes, so whatever it raises becomes an `InputError`, but for
a `PermissionError`, which is of the file and not of its bytes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow.parquet import read_schema

from common.errors import InputError, one_line
from data.table import Table
from data.validation import (
    named_features,
    numbered_columns,
    table_from_arrays,
    table_from_frame,
    true_labels,
)

LABEL = "label"  # the column of the labels, if none is named


def read(path: Path | str, label_column: str = LABEL, name: str | None = None) -> Table:
    """Read a file into a checked table called `name`, by default its path.

    A .csv or .parquet file holds features in all columns but `label_column`; an .npz file holds
    the arrays X, (n, d), and y, (n,), and is never unpickled.

    Raises:
        InputError: the file is missing, of another type or broken, or its rows are refused.
    """
    path, name = Path(path), name or str(path)
    if suffix_of(path) == ARRAYS:
        X, y = read_arrays(path, "X", "y")
        return table_from_arrays(X, y, name)
    return table_from_frame(read_frame(path), label_column, name)


def read_rows(
    path: Path, names: list[str], label_column: str | None = None, verbatim: bool = True
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray | None]:
    """Read a file of rows that need no label.

    Returns:
        all its columns, an index that a .parquet file has among them and those of a .csv file as
        the text that is there, `names` only if `verbatim`; the columns `names`, in that order, as
        float64 (n, d); the labels in `label_column`, by which scores are measured, int64 (n,), or
        None without one.

    Raises:
        InputError: the file cannot be read, or does not hold these columns of finite numbers; those
            of an array have no names and are taken in their order, so it must have just as many.
            There is no such `label_column`, or its labels are refused.
    """
    frame, suffix = read_frame(path), suffix_of(path)
    y = None
    if label_column is not None:
        check_has_labels(path, suffix)
        y = true_labels(frame, label_column, str(path))
    if suffix == ARRAYS:
        if frame.shape[1] != len(names):
            raise InputError(
                f"{path}: X has {frame.shape[1]} columns; give the {len(names)} that are called"
                f" {', '.join(names[:3])} and so on, in this order."
            )
        frame = frame.set_axis(names, axis="columns")
    X = named_features(frame, names, str(path))
    if suffix == CSV:
        numbers = frame[names]
        frame = read_csv(
            path, dtype=str, keep_default_na=False, skip_blank_lines=frame.shape[1] > 1
        )
        if not verbatim:
            plain = numbers.select_dtypes(["number", "bool"]).columns  # not integers beyond 64 bits
            frame[names] = X
            frame[plain] = numbers[plain]
    elif frame.index.names != [None] or not frame.index.equals(pd.RangeIndex(len(frame))):
        try:
            frame = frame.reset_index()
        except ValueError as error:
            raise InputError(
                f"{path}: its index has the name of a column ({error}); rename either."
            ) from error
    return frame, X, y


def check_has_labels(path: Path, suffix: str) -> None:
    """Raise `InputError` for an array, which has no column of labels."""
    if suffix == ARRAYS:
        raise InputError(
            f"{path} has no column of labels to measure by; give a"
            f" {' or '.join(FRAME_READERS)} file, or leave out --label-column."
        )


def suffix_of(path: Path) -> str:
    """Return which type a file is of; raise `InputError` where it is missing or of another."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it.")
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    if not path.is_file():  # it is read several times
        raise InputError(f"{path} is no regular file; write what it gives into one.")
    suffix = path.suffix.lower()
    if suffix not in (ARRAYS, *FRAME_READERS):
        raise InputError(
            f"{path} is of an unknown type; give a {ARRAYS}, {' or '.join(FRAME_READERS)} file."
        )
    return suffix


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Return arrays of an .npz file; raise `InputError` where they cannot be read."""
    with reading(path), path.open("rb") as stream:
        archive = np.load(stream, allow_pickle=False)
        held = archive.files if isinstance(archive, np.lib.npyio.NpzFile) else []
        if set(names) <= set(held):
            return [archive[name] for name in names]
    wanted = f"arrays {' and '.join(names)}" if len(names) > 1 else f"an array {names[0]}"
    raise InputError(f"{path} must hold {wanted}, not {', '.join(held) or 'none'}.")


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Read a .csv file in one piece, so that a column has one type throughout."""
    return pd.read_csv(path, low_memory=False, **options)


def read_frame(path: Path) -> pd.DataFrame:
    """Return the columns of a file, called x1 to xd where they are those of an array X.

    Raises:
        InputError: the file is missing, of another type or broken.
    """
    suffix = suffix_of(path)
    if suffix == ARRAYS:
        (X,) = read_arrays(path, "X")
        return numbered_columns(X, str(path))
    with reading(path):
        frame = FRAME_READERS[suffix](path)
    return frame.set_axis(frame.columns.map(str), axis="columns")


def read_named_csv(path: Path) -> pd.DataFrame:
    """Read a .csv file whose first line names its columns."""
    header = first_line(path)
    check_separator(header, path)
    frame = read_csv(path, skip_blank_lines=len(header) > 1)  # else one is a missing value
    check_header(header, path)
    return frame


def first_line(path: Path) -> pd.Series:
    """Return the names in a .csv file's first line as they are there."""
    return read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]


def check_separator(header: pd.Series, path: Path) -> None:
    """Raise `InputError` where a .csv file's first line is not parted by commas."""
    if header[0].startswith("sep="):
        raise InputError(f"{path} begins with {header[0]!r}; delete that line.")
    for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and mark in header[0]:
            raise InputError(f"{path} parts values by {name}; part them by commas.")


def check_header(header: pd.Series, path: Path) -> None:
    """Raise `InputError` where the names in a .csv file's first line do not fit its rows."""
    try:
        read_csv(path, header=None, nrows=2)
    except pd.errors.ParserError as error:  # of the first values pandas would make an index
        raise InputError(
            f"{path}: rows hold more values than the header has names; name them all."
        ) from error
    nameless = np.flatnonzero(header == "")
    if len(nameless):
        raise InputError(
            f"{path}: column {nameless[0] + 1} has no name, as where lines end in a comma or pandas"
            " wrote the index (index=False leaves it out); name it or leave it out."
        )
    check_unique(header, path)


def check_unique(names: pd.Series, path: Path) -> None:
    """Raise `InputError` where two columns of a file have one name."""
    repeated = names[names.duplicated()]
    if len(repeated):
        raise InputError(f"{path} has two columns called {repeated.iloc[0]!r}; rename or drop one.")


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a .parquet file, whose columns must have names of their own."""
    check_unique(pd.Series(read_schema(path).names), path)
    return pd.read_parquet(path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a parser raises into an `InputError`; a `PermissionError` says all itself."""
    try:
        yield
    except (InputError, PermissionError):
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """Build the error for a file whose content is broken."""
    if isinstance(error, UnicodeDecodeError):
        return InputError(f"{path} is no UTF-8 text ({error.reason}); save it as UTF-8.")
    if isinstance(error, pd.errors.EmptyDataError):
        return InputError(f"{path} is empty; give a header and rows.")
    reason = one_line(error)
    return InputError(f"{path} cannot be read ({reason}); write it again as plain numbers.")


ARRAYS, CSV = ".npz", ".csv"
FRAME_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    CSV: read_named_csv,
    ".parquet": read_parquet,
}
