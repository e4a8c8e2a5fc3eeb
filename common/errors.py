"""The one exception for input a user can mend, and how a command line reports it."""

import math
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
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

    A `ValueError` is taken for a refusal of the rows that the class was given.
    """
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        said = one_line(error).rstrip(".")
        raise InputError(f"{name} refuses the rows: {said}; take another {kind}.") from error
    except Exception as error:
        raise InputError(
            f"{name} fails ({described(error)}); mend it or take another {kind}."
        ) from error


def run_command(main: Callable[[], None]) -> None:
    """Run a command line; an `InputError` becomes one line on stderr and exit code 2.

    So does what the system refuses, such as a full disk. A warning is one line, too, told once
    however often libraries give it. Scratch files are removed after Ctrl-C, exit code 130, SIGTERM,
    143, and SIGHUP, 129. Unless the environment says otherwise, there is one thread: products are
    small here, and threads that wait for each other on a busy machine take many times as long.
    """
    if not os.environ.get("OMP_NUM_THREADS"):
        from threadpoolctl import threadpool_limits

        os.environ["OMP_NUM_THREADS"] = "1"
        threadpool_limits(1)  # of what is loaded already
    tell_once = cache(lambda line: print(line, file=sys.stderr))

    def showwarning(message: Any, *_args: Any, **_kwargs: Any) -> None:
        tell_once(f"warning: {one_line(message)}")

    code = 0

    def end(number: int, _frame: Any) -> None:
        nonlocal code
        code = 128 + number
        raise KeyboardInterrupt

    warnings.showwarning = showwarning
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, end)
    try:
        main()
    except BaseException as error:
        if code or isinstance(error, KeyboardInterrupt):  # imports make other errors of one
            print("interrupted", file=sys.stderr)
            sys.exit(code or 128 + signal.SIGINT)
        if not isinstance(error, InputError | OSError):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
