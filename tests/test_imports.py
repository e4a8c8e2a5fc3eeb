"""Imports point one way, and what needs no torch does not import it."""

import ast
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = [
    "common",
    "data",
    "generators",
    "detectors",
    "envs",
    "agents",
    "swift_hydra",
    "train",
    "benchmarks",
]
COMMANDS = ("train", "evaluate", "score")
MAY_NOT_MEET = {*permutations(("detectors", "generators")), *permutations(COMMANDS, 2)}


def layer(name: str) -> int:
    return ORDER.index("train" if name in COMMANDS else name)


def modules() -> list[Path]:
    packages = [name for name in ORDER if (ROOT / name).is_dir()]
    files = [path for name in packages for path in sorted((ROOT / name).rglob("*.py"))]
    return files + [ROOT / f"{name}.py" for name in ("swift_hydra", *COMMANDS)]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names & {*ORDER, *COMMANDS}


@pytest.mark.parametrize("package", ORDER[:6])
def test_packages_say_that_they_are_typed(package):
    assert (ROOT / package / "py.typed").exists()


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for other in imported(path) - {own}:
        assert layer(other) < layer(own), f"{path} imports {other}"
        assert (own, other) not in MAY_NOT_MEET, f"{path} imports {other}"


@pytest.mark.parametrize(
    "module",
    [
        "data",
        "detectors",
        "generators",
        "train",
        "evaluate",
        "score",
        "benchmarks.ablation",
        "benchmarks.accuracy",
        "benchmarks.algorithms",
        "benchmarks.search",
        "benchmarks.speed",
    ],
)
def test_import_is_light(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
