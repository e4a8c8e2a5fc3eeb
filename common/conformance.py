"""What the conformance checks of detectors and of generators have in common."""

from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


def faults(check: Callable[[T], Iterator[str]], trial: T) -> list[str]:
    """Run one check; an exception is a fault too, told by the check's docstring."""
    try:
        return list(check(trial))
    except Exception as error:
        return [f"{(check.__doc__ or '').rstrip('.')}, but it raised {error!r}."]
