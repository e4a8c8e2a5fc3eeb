"""Writing files beside their place and renaming them, so that none is ever half-written."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import InputError


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed onto `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(folder: Path, option: str) -> None:
    """Raise `InputError` where `folder`, or one that it is to be in, is a file."""
    for path in (folder, *folder.parents):
        if path.is_file():
            raise InputError(f"{path} is a file; name a folder with {option}.")


@contextmanager
def reading_saved(folder: Path | str) -> Iterator[None]:
    """Raise `InputError` where what is read from `folder` is not what this version writes."""
    try:
        yield
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{folder} was saved by another version; train it again.") from error


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """Read JSON; raise `InputError` naming the file where it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; the folder is not a complete run or model.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable JSON ({error}); restore or delete it.") from None
