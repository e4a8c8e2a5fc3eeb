"""How a command line runs: its options' choices, threads, warnings, signals and exit codes."""

import io
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import tyro

from common.errors import InputError, one_line

ENDING = {"SIGINT", "SIGTERM", "SIGHUP"}  # of which Windows lacks the last, and SIGPIPE
PIPE_CLOSED = 141  # 128 and SIGPIPE's number
AGAIN = 1.0  # seconds between two signals, so that cleaning up after one is not cut short


def choice(names: list[str]) -> object:
    """Show the names that an option takes in --help; others that a plugin brings are taken too."""
    return tyro.conf.arg(metavar="{" + ",".join(names) + "}")


def run_command(command: Callable[[], object]) -> None:
    """Run a command line; an `InputError` becomes one line on stderr and exit code 2.

    So does what the system refuses, such as a full disk. A warning is one line, too, told once
    however often libraries give it. Scratch files are removed after Ctrl-C, exit code 130, SIGTERM,
    143, and SIGHUP, 129; signals within a second are one. Who stops reading stdout, as head does,
    ends it quietly, exit code 141. What stdout cannot encode is escaped.
    Unless the environment says otherwise, there is one thread: products are small here, and threads
    that wait for each other on a busy machine take many times as long.
    """
    use_one_thread()
    tell_warnings_once()
    code, ended = 0, -math.inf

    def end(number: int, _frame: Any) -> None:
        nonlocal code, ended
        if time.monotonic() - ended >= AGAIN:
            code, ended = 128 + number, time.monotonic()
            raise KeyboardInterrupt

    sys.stdout = sys.stdout or io.StringIO()  # None where it is closed
    sys.stderr = sys.stderr or io.StringIO()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    for number in signal.Signals:
        if number.name in ENDING and signal.getsignal(number) is not signal.SIG_IGN:  # nohup does
            signal.signal(number, end)
    try:
        command()
        sys.stdout.flush()
    except BaseException as error:
        if code or isinstance(error, KeyboardInterrupt):  # imports make other errors of one
            print("interrupted", file=sys.stderr)
            sys.exit(code or 128 + signal.SIGINT)
        if not isinstance(error, InputError | OSError):
            raise
        drop_what_stdout_refuses()
        if isinstance(error, BrokenPipeError):
            sys.exit(PIPE_CLOSED)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def drop_what_stdout_refuses() -> None:
    """Write what is buffered, or nowhere, lest Python complain when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def use_one_thread() -> None:
    """Let libraries start one thread each, unless the environment says how many."""
    if not os.environ.get("OMP_NUM_THREADS"):
        from threadpoolctl import threadpool_limits

        os.environ["OMP_NUM_THREADS"] = "1"
        os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # its all-cores default becomes torch's
        threadpool_limits(1)  # of what is loaded already


def tell_warnings_once() -> None:
    """Write each warning as one line on stderr, the first time that it is given."""
    tell_once = cache(lambda line: print(line, file=sys.stderr))

    def showwarning(message: Any, *_args: Any, **_kwargs: Any) -> None:
        tell_once(f"warning: {one_line(message)}")

    warnings.showwarning = showwarning
