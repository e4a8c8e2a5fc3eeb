"""Command lines in processes of their own, forked from one that has imported the packages."""

import os
import runpy
import sys
from multiprocessing import get_context
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent

forks = get_context("forkserver")
forks.set_forkserver_preload(["agents.runs", "data", "envs.registration", "tyro", "commands"])


def command(script: str, *arguments: object, cwd: Path = ROOT) -> CompletedProcess:
    """Run a script of this checkout, or the module that follows `-m`, as `subprocess.run` would."""
    with TemporaryDirectory() as folder:
        told = Path(folder, "stdout"), Path(folder, "stderr")
        line = [script, *map(str, arguments)]
        process = forks.Process(target=run, args=(line, cwd, *told))
        process.start()
        process.join()
        return CompletedProcess(line, process.exitcode, *(path.read_text() for path in told))


def run(line: list[str], cwd: Path, *told: Path) -> None:
    """Be the command: its folder, its streams, its arguments."""
    os.chdir(cwd)
    for stream, path in enumerate(told, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    if line[0] == "-m":
        sys.argv = line[1:]
        runpy.run_module(line[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [str(ROOT / line[0]), *line[1:]]
        runpy.run_path(sys.argv[0], run_name="__main__")
