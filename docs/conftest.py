"""Runs every code block of the docs and of the README: Python in this process, bash in a folder
of its own, with `python` and the scripts being those of this checkout. Blocks of other languages
only show.
"""

import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parent.parent
SCRIPTS = {"python": sys.executable, **{n: str(ROOT / n) for n in ("train.py", "evaluate.py")}}


def run_commands(example: Example) -> None:
    """Run each line of a bash block; a command that fails fails the test."""
    for line in example.parsed.splitlines():
        words = [SCRIPTS.get(word, word) for word in shlex.split(line)]
        done = subprocess.run(
            words, cwd=example.namespace["_folder"].name, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def make_folder(namespace: dict) -> None:
    """Give a document's bash blocks a folder."""
    namespace["_folder"] = TemporaryDirectory()


def remove_folder(namespace: dict) -> None:
    """Remove the folder of `make_folder`."""
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), CodeBlockParser("bash", run_commands)],
    patterns=["*.md"],
    setup=make_folder,
    teardown=remove_folder,
).pytest()
