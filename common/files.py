"""Writing files beside their place and renaming them, so that none is ever half-written."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from operator import methodcaller
from pathlib import Path
from typing import Any
from uuid import uuid4

from common.errors import InputError, one_line


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is renamed onto `path`.

    Where that is a link, it is renamed onto what the link leads to.

    Raises:
        InputError: the system refuses to write there, such as on a full disk.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(hidden_name() + path.suffix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        told = error.strerror or one_line(error)
        raise InputError(
            f"{path} cannot be written ({told}); make room, or name another place."
        ) from error


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Make a hidden folder in `parent`, and remove what is there of it in the end.

    On Windows `tempfile` closes its folders to others, and tries for hours where it may make none.
    """
    folder = parent / hidden_name()
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def hidden_name() -> str:
    """Return a name that nothing has; it is short, as paths on Windows must be."""
    return f".{uuid4().hex[:8]}"


def check_folder(folder: Path, option: str) -> None:
    """Raise `InputError` where `folder` is none that can be written into, or made."""
    existing = next((path for path in (folder, *folder.parents) if os.path.exists(path)), None)
    if existing is None:
        raise InputError(f"{folder} is on no drive that is there; name another with {option}.")
    if not existing.is_dir():
        raise InputError(f"{existing} is a file; name a folder with {option}.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{existing} cannot be written into; name another folder with {option}.")


def check_file(path: Path, option: str) -> None:
    """Raise `InputError` where no file can be written at `path`, such as on a folder or a pipe."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise InputError(f"{path} is {kind}; name a file with {option}.")
    check_folder(Path(os.path.realpath(path)).parent, option)


@contextmanager
def reading_saved(folder: Path | str) -> Iterator[None]:
    """Raise `InputError` where what is read from `folder` is not what this version writes."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder} was saved by another version; train it again, or load it as what it is."
        ) from error


def write_json(path: Path | str, value: Any) -> None:
    """Write `value`, NumPy's numbers among it or not, as indented JSON, atomically."""
    text = json.dumps(value, indent=2, default=methodcaller("item"))
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """Read JSON; raise `InputError` naming the file where it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; the folder is not a complete run or model.") from None
    except (json.JSONDecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable JSON ({error}); restore or delete it.") from None
