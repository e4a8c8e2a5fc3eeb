"""One function for every source of rows."""

from pathlib import Path

from common.errors import InputError
from common.names import unknown
from data.adbench import PREFIX, load_adbench
from data.builtin import BUILTIN, LOADERS
from data.files import ARRAYS, LABEL, read
from data.table import Table


def load(source: str | Path, label_column: str = LABEL) -> Table:
    """Load a labelled table.

    Args:
        source: a built-in name (`data.BUILTIN`), `adbench:<name>`, or the path of a .csv, .parquet
            or .npz file.
        label_column: the column of a .csv or .parquet file that holds the labels.

    Raises:
        InputError: there is no such source, its rows are refused, or a label column is named where
            there are no columns to choose among.
    """
    if not isinstance(source, str | Path):
        raise InputError(
            f"A table is loaded by its name or path, not from {type(source).__name__}; write it to"
            " a file, or pass X and y to SwiftHydra.fit."
        )
    source, path = str(source), Path(source)
    published = source in LOADERS or source.startswith(PREFIX)
    if label_column != LABEL and (published or path.suffix.lower() == ARRAYS):
        raise InputError(
            f"{source} has labels of its own; leave out the label column {label_column!r}."
        )
    if source in LOADERS:
        return LOADERS[source]()
    if source.startswith(PREFIX):
        return load_adbench(source.removeprefix(PREFIX))
    if path.name == source and not path.suffix and not path.exists():
        raise unknown("data set", source, [*BUILTIN, f"{PREFIX}<name>", "<a file that exists>"])
    return read(path, label_column)
