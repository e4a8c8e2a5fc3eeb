"""The one exception for input a user can mend, and how errors are told."""

import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Bad input: one sentence that names the culprit and the way out."""


def check_at_least(settings: object, **least: int) -> None:
    """Raise `InputError` at the first attribute of `settings` that is no integer or too low."""
    for name, low in least.items():
        value = getattr(settings, name)
        if not isinstance(value, Integral):
            raise InputError(f"{name} is {value!r}; give a whole number of at least {low}.")
        if value < low:
            raise InputError(f"{name} is {value}; give at least {low}.")


def check_positive(name: str, value: Any) -> None:
    """Raise `InputError` where the setting of that name is no finite number above 0."""
    if not isinstance(value, Real) or value <= 0 or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}; give a finite number above 0.")


def check_share(name: str, value: Any) -> None:
    """Raise `InputError` where the setting of that name is no number in [0, 1)."""
    if not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise InputError(f"{name} is {value!r}; give at least 0 and less than 1.")


def one_line(message: object) -> str:
    """Return what an error or a warning says, without the line breaks in it."""
    return " ".join(str(message).split())


def reason(error: Exception) -> str:
    """Tell an error in one line: its kind, but for an `InputError`'s, and what it says."""
    said = one_line(error)
    return said if isinstance(error, InputError) else f"{type(error).__name__}: {said}"


def described(error: BaseException) -> str:
    """Tell an error of somebody else's code: its kind, what it says, and the line it is from."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, SyntaxError) and error.filename:
        frame = traceback.FrameSummary(error.filename, error.lineno, "")
    where = f"{Path(frame.filename).name}, line {frame.lineno}"
    return f"{type(error).__name__} in {where}: {one_line(error)}"


@contextmanager
def refused_by(name: str, kind: str) -> Iterator[None]:
    """Turn errors of somebody else's class into an `InputError`.

    A `ValueError` is taken for a refusal of the rows that the class was given, or where it is a
    `TypeError`, too, of a setting. A reader of its progress bar that is gone is no fault of it.
    """
    try:
        yield
    except (InputError, BrokenPipeError):
        raise
    except ValueError as error:
        said = one_line(error).rstrip(".")
        if isinstance(error, TypeError):  # as scikit-learn's of a setting is, too
            raise InputError(f"{name} refuses a setting: {said}; give another one.") from error
        raise InputError(f"{name} refuses the rows: {said}; take another {kind}.") from error
    except Exception as error:
        raise InputError(
            f"{name} fails ({described(error)}); mend it or take another {kind}."
        ) from error
