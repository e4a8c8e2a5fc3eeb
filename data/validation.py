"""The one place that checks rows; what it lets through can be split and trained on.

Every refusal is an `InputError` of one sentence that names the source, the column, the row (counted
from 1, a header not counted) and the way out. Missing values are refused, not imputed: how to fill
them is a choice about the data, and a fill learnt from all rows would leak test rows into
training. Impute, or drop the row or column, first. Booleans and numbers held as text are cast.
"""

import reprlib
import warnings

import numpy as np
import pandas as pd

from common.errors import InputError
from common.names import nearest
from common.rows import FLOAT32_MAX
from data.table import Table

MIN_ROWS = 20
MIN_PER_CLASS = 4
CLASSES = ("normal rows (label 0)", "anomalies (label 1)")
LISTED_COLUMNS = 10


def table_from_frame(frame: pd.DataFrame, label_column: str, name: str) -> Table:
    """Check a frame with a label column and return it as a table.

    Raises:
        InputError: the frame is not fit to be split and trained on.
    """
    y = label_vector(column_of_labels(frame, label_column, name), name)
    features = frame.drop(columns=label_column)
    return Table(feature_matrix(features, name), y, list(features.columns), name)


def table_from_arrays(X: np.ndarray, y: np.ndarray, name: str) -> Table:
    """Check rows `X`, (n, d), and labels `y`, (n,), and return them with columns x1 to xd.

    Raises:
        InputError: the arrays are not fit to be split and trained on.
    """
    features = numbered_columns(X, name)
    check_plain(y, "y", name)
    if y.ndim != 1:
        raise InputError(f"{name}: y must have the shape (n,), not {y.shape}; reshape it.")
    if len(X) != len(y):
        raise InputError(
            f"{name}: X holds {len(X)} rows but y {len(y)} labels; give each row one label."
        )
    labels = label_vector(pd.Series(y, name="y"), name)
    return Table(feature_matrix(features, name), labels, list(features.columns), name)


def numbered_columns(X: np.ndarray, name: str) -> pd.DataFrame:
    """Call the columns of an array x1 to xd; raise `InputError` unless its shape is (n, d)."""
    check_plain(X, "X", name)
    if X.ndim != 2:
        raise InputError(f"{name}: X must have the shape (n, d), not {X.shape}; reshape it.")
    return pd.DataFrame(X, columns=[f"x{i + 1}" for i in range(X.shape[1])])


def check_plain(array: np.ndarray, what: str, name: str) -> None:
    """Raise `InputError` where an array holds records or raw bytes."""
    if array.dtype.kind == "V":
        held = f"records of {', '.join(array.dtype.names)}" if array.dtype.names else "raw bytes"
        raise InputError(f"{name}: {what} holds {held}; give numbers.")


def named_features(frame: pd.DataFrame, names: list[str], source: str) -> np.ndarray:
    """Return the columns of these names, in their order, as float64 (n, d).

    Raises:
        InputError: there is no row, a column is missing, or one holds a value that is no finite
            number.
    """
    for name in names:
        if name not in frame.columns:
            raise no_feature(frame, name, names, source)
    if frame.empty:
        raise InputError(f"{source} holds no rows; give at least one.")
    return feature_matrix(frame[names], source)


def true_labels(frame: pd.DataFrame, label_column: str, name: str) -> np.ndarray:
    """Return the labels that scores are measured by, int64 (n,).

    Raises:
        InputError: there is no such column, a label is neither 0 nor 1, or all are alike.
    """
    column = column_of_labels(frame, label_column, name)
    y = label_values(column, name, "leave out the rows of which it is not known")
    for words, count in zip(CLASSES, np.bincount(y, minlength=2), strict=True):
        if not count:
            raise InputError(f"{name} holds no {words} to measure by; score it without labels.")
    return y


def column_of_labels(frame: pd.DataFrame, label_column: str, name: str) -> pd.Series:
    """Return the column of this name; raise `InputError` where it is not there."""
    if label_column not in frame.columns:
        raise no_label_column(frame, label_column, name)
    return frame[label_column]


def label_vector(column: pd.Series, name: str) -> np.ndarray:
    """Return the labels to train by, int64 (n,).

    Raises:
        InputError: a label is neither 0 nor 1, or there are too few rows of either class.
    """
    y = label_values(column, name, "give 0 to rows that are not known to be anomalies")
    if len(y) < MIN_ROWS:
        raise InputError(f"{name} holds {len(y)} rows; give at least {MIN_ROWS}.")
    for words, count in zip(CLASSES, np.bincount(y, minlength=2), strict=True):
        if count < MIN_PER_CLASS:
            raise InputError(
                f"{name} holds {count or 'no'} {words}; give at least {MIN_PER_CLASS}."
            )
    if y.mean() > 0.5:
        warnings.warn(
            f"{name}: {y.mean():.0%} of the rows have the label 1, of an anomaly; give 1 to"
            " anomalies and 0 to the others.",
            stacklevel=2,
        )
    return y


def label_values(column: pd.Series, name: str, way_out: str) -> np.ndarray:
    """Return the labels, int64 (n,); raise `InputError` where one is missing or not 0 or 1.

    `way_out` says what to do where one is missing.
    """
    missing = column.isna().to_numpy()
    if missing.any():
        raise InputError(
            f"{name}: column {column.name!r} misses a label in row {first_row(missing)}; {way_out}."
        )
    labels = as_numbers(column)
    bad = ~np.isin(labels, [0, 1])
    if bad.any():
        raise InputError(
            f"{name}: column {column.name!r} holds {shown(column, bad)};"
            " labels must be 0 (normal) or 1 (anomaly)."
        )
    return labels.astype(np.int64)


def feature_matrix(features: pd.DataFrame, name: str) -> np.ndarray:
    """Return the columns as float64 (n, d).

    Raises:
        InputError: there is no column, or one holds a value that is no finite number.
    """
    if features.columns.empty:
        raise InputError(f"{name} has no feature columns; give at least one beside the label.")
    return np.column_stack([feature(features.iloc[:, i], name) for i in range(features.shape[1])])


def feature(column: pd.Series, name: str) -> np.ndarray:
    """Return one column as float64 (n,); raise `InputError` unless all are finite numbers."""
    where = f"{name}: column {column.name!r}"
    missing = column.isna().to_numpy()
    if missing.any():
        raise InputError(
            f"{where} misses a value in row {first_row(missing)};"
            " impute it, or drop the row or the column, first."
        )
    values = as_numbers(column)
    text = np.isnan(values)
    if text.any():
        raise InputError(
            f"{where} holds {shown(column, text)}, not a number; write it as a plain one, such as"
            " 1234.5, or encode or drop the column."
        )
    infinite = np.abs(values) > FLOAT32_MAX
    if infinite.any():
        raise InputError(
            f"{where} is infinite, or beyond what 32 bits hold, in row {first_row(infinite)};"
            " replace the value, or drop the row or the column."
        )
    return values


def as_numbers(column: pd.Series) -> np.ndarray:
    """Return a column as float64 (n,), NaN where a value is missing or no real number."""
    numbers = column
    if not pd.api.types.is_numeric_dtype(column):
        try:
            numbers = pd.to_numeric(column.astype(object), errors="coerce")
        except OverflowError:  # integers of more than 308 digits
            numbers = pd.to_numeric(column.astype(str), errors="coerce")
    if pd.api.types.is_complex_dtype(numbers):
        return np.full(len(column), np.nan)
    return numbers.to_numpy(dtype=np.float64, na_value=np.nan)


def shown(column: pd.Series, bad: np.ndarray) -> str:
    """Say the first bad value of a column, shortened, and its row."""
    return f"{reprlib.repr(str(column[bad].iloc[0]))} in row {first_row(bad)}"


def first_row(bad: np.ndarray) -> int:
    """Number of the first bad row, counted from 1."""
    return int(bad.argmax()) + 1


def no_label_column(frame: pd.DataFrame, wanted: str, name: str) -> InputError:
    """Build the error for a label column that is not there, with those of nearly its name or all.

    Of any likeness it would be some feature, which would then be taken for the label.
    """
    if wanted in frame.index.names:
        return is_index(wanted, name)
    columns = list(frame.columns)
    near = nearest(wanted, columns, likeness=0.75)
    more = ", ..." if len(columns) > LISTED_COLUMNS else ""
    hint = (
        f"did you mean {' or '.join(map(repr, near))}?"
        if near
        else f"it has {', '.join(columns[:LISTED_COLUMNS])}{more}."
    )
    return InputError(
        f"{name} has no label column {wanted!r}; rename one, or pass --label-column to train.py or"
        f" score.py: {hint}"
    )


def no_feature(frame: pd.DataFrame, wanted: str, names: list[str], source: str) -> InputError:
    """Build the error for one of the features `names` that is not there, with those like it."""
    if wanted in frame.index.names:
        return is_index(wanted, source)
    near = nearest(wanted, frame.columns.difference(names))
    other = " or ".join(map(repr, near)) or "the one that holds it"
    return InputError(
        f"{source} has no column {wanted!r}, which the detector learned from; add it, or rename"
        f" {other}."
    )


def is_index(wanted: str, name: str) -> InputError:
    """Build the error for a column that is the index."""
    return InputError(f"{name}: {wanted!r} is the index; write it as a column (reset_index).")
