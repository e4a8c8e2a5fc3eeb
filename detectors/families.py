"""Families of backends that other libraries bring: `pyod:`, `sklearn:` and `onnx:`.

Importing this module imports none of those libraries.
"""

import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.names import unknown
from common.registry import Family

PYOD_CLASS = re.compile(r"^class (\w+)\(Base(?:DeepLearning)?Detector\)", re.MULTILINE)
NOT_FOR_TABLES = ("pyg_", "ts_", "audio_", "embedding", "base")


@cache
def pyod_modules() -> dict[str, str]:
    """Map the names of PyOD's detectors for tables to their modules; empty without PyOD."""
    spec = find_spec("pyod")
    if spec is None or spec.submodule_search_locations is None:
        return {}
    folder = Path(next(iter(spec.submodule_search_locations))) / "models"
    modules: dict[str, str] = {}
    for path in sorted(folder.glob("*.py")):
        if not path.name.startswith(NOT_FOR_TABLES):
            for name in PYOD_CLASS.findall(path.read_text(encoding="utf-8")):
                modules.setdefault(name, f"pyod.models.{path.stem}")
    return modules


def resolve_pyod(member: str) -> tuple[str, dict[str, Any]]:
    """Return the entry point of PyOD's class `member`."""
    modules = pyod_modules()
    if not modules:
        raise InputError(f"pyod:{member} needs PyOD; pip install pyod.")
    if member not in modules:
        raise unknown("PyOD detector", f"pyod:{member}", [f"pyod:{name}" for name in modules])
    return f"{modules[member]}:{member}", {}


def resolve_sklearn(member: str) -> tuple[str, dict[str, Any]]:
    """Return the entry point of scikit-learn's class at the dotted path `member`."""
    module, _, name = member.removeprefix("sklearn.").rpartition(".")
    from sklearn.base import BaseEstimator

    try:
        found = getattr(import_module(f"sklearn.{module}"), name)
        known = issubclass(found, BaseEstimator)
    except (ImportError, AttributeError, TypeError):
        known = False
    if not known:
        raise unknown("scikit-learn class", f"sklearn:{member}", sklearn_members())
    return f"sklearn.{module}:{name}", {}


def sklearn_members() -> list[str]:
    """List scikit-learn's classifiers and outlier detectors; this imports all of scikit-learn."""
    from sklearn.base import ClassifierMixin, OutlierMixin
    from sklearn.utils.discovery import all_estimators

    classes = [
        cls for _, cls in all_estimators() if issubclass(cls, ClassifierMixin | OutlierMixin)
    ]
    public = [cls.__module__.removeprefix("sklearn.").split("._")[0] for cls in classes]
    names = zip(public, classes, strict=True)
    return [f"sklearn:{module}.{cls.__name__}" for module, cls in names]


def resolve_onnx(member: str) -> tuple[str, dict[str, Any]]:
    """Return the entry point of the scorer in the ONNX file `member`."""
    return "detectors.onnx:OnnxDetector", {"path": member}


FAMILIES = {
    "pyod": Family(
        "pyod:<Class>", resolve_pyod, lambda: [f"pyod:{name}" for name in pyod_modules()]
    ),
    "sklearn": Family("sklearn:<dotted path>", resolve_sklearn),
    "onnx": Family("onnx:<file>", resolve_onnx),
}
