"""Calls in several processes, of one thread each."""

from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import joblib

from common.errors import InputError


def in_processes(calls: Iterable[Any], workers: int) -> Iterator[Any]:
    """Yield what the delayed `calls` return, as they end; so many processes are at it at once.

    Raises:
        InputError: one of the processes was killed.
    """
    with joblib.parallel_config("loky", n_jobs=workers, inner_max_num_threads=1):
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
    try:
        yield from parallel(calls)
    except BrokenProcessPool as error:
        raise InputError(
            "A process was killed, as happens when memory runs out. What is finished is kept:"
            " repeat the command with --workers 1, or without the largest sets."
        ) from error
