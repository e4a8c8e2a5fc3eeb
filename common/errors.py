"""The one exception for input a user can mend, and how a command line reports it."""

import os
import sys
import warnings
from collections.abc import Callable


class InputError(ValueError):
    """Bad input: one sentence that names the culprit and the way out."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command line; an `InputError` becomes one line on stderr and exit code 2.

    A warning becomes one line on stderr, too. Unless the environment says otherwise, torch gets one
    thread: products are small here, and threads that wait for each other on a busy machine take
    many times as long.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warnings.formatwarning = lambda message, *_args, **_kwargs: f"warning: {message}\n"
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
