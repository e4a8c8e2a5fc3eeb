"""The one exception for input a user can mend, and how a command line reports it."""

import os
import signal
import sys
import warnings
from collections.abc import Callable


class InputError(ValueError):
    """Bad input: one sentence that names the culprit and the way out."""


def check_at_least(settings: object, **least: int) -> None:
    """Raise `InputError` at the first attribute of `settings` that is less than its number."""
    for name, low in least.items():
        if getattr(settings, name) < low:
            raise InputError(f"{name} is {getattr(settings, name)}; give at least {low}.")


def run_command(main: Callable[[], None]) -> None:
    """Run a command line; an `InputError` becomes one line on stderr and exit code 2.

    So does what the system refuses, such as a full disk, and a warning is one line, too. Scratch
    files are removed after Ctrl-C, exit code 130, and SIGTERM, 143. Unless the environment says
    otherwise, there is one thread: products are small here, and threads that wait for each other on
    a busy machine take many times as long.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        from threadpoolctl import threadpool_limits

        os.environ["OMP_NUM_THREADS"] = "1"
        threadpool_limits(1)  # of what is loaded already
    warnings.formatwarning = lambda message, *_args, **_kwargs: f"warning: {message}\n"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
