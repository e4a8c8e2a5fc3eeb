"""Score rows: the `Detector` interface, its registry and the backends.

Further backends are registered by `register`, or by packages through the entry-point group
`swift_hydra.detectors`. A class needs `fit(X, y)` and `decision_function(X)` only; `make` supplies
the rest of `detectors.base.Detector`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import InputError, described
from common.files import read_json, reading_saved
from common.registry import Registry
from detectors.families import FAMILIES

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from detectors.base import Detector

registry: "Registry[Any]" = Registry("detector", "swift_hydra.detectors")
register, ids = registry.register, registry.ids

register("mamba-moe", "detectors.mamba_moe:MambaMoEDetector")
register(
    "mamba", "detectors.mamba_moe:MambaMoEDetector", {"n_experts": 1, "d_model": 64, "depth": 2}
)
register("extra-trees", "detectors.trees:ExtraTreesDetector")
register("catboost", "detectors.trees:CatBoostDetector")
registry.families |= FAMILIES
registry.register_entry_points()


def make(id: str, **kwargs: Any) -> "Detector":
    """Construct the backend `id`, `kwargs` overriding its registered arguments.

    A class that is no `Detector` is wrapped in `detectors.adapter.AdaptedDetector`; a seed that it
    was registered with stays its own.

    Raises:
        InputError: the id is unknown, or its class cannot be imported. Whether a class that is no
            `Detector`, and its settings, can be used is told by `fit`.
    """
    from detectors.adapter import AdaptedDetector
    from detectors.base import Detector

    backend = registry.load(id)
    if issubclass(backend, Detector):
        return registry.make(id, **kwargs)
    seed = kwargs.pop("random_state", 0)
    return AdaptedDetector(id, kwargs, seed)


def load(id: str, folder: Path | str) -> "Detector":
    """Read a fitted backend `id` from the `folder` that it was saved to.

    Raises:
        InputError: the id is unknown, the folder's files are missing, broken or another's, or
            `load` of the class fails or returns none that is fitted.
    """
    from detectors.adapter import AdaptedDetector
    from detectors.base import Detector

    backend = registry.load(id)
    if issubclass(backend, Detector):
        try:
            loaded = backend.load(folder)
        except (InputError, OSError):
            raise
        except Exception as error:
            raise InputError(f"load of {id} fails ({described(error)}); mend it.") from error
        if not all(hasattr(loaded, name) for name in ("classes_", "n_features_in_", "threshold_")):
            raise InputError(
                f"load of {id} must return a detector with classes_, n_features_in_ and threshold_."
            )
        return loaded
    settings = read_json(Path(folder) / "settings.json")
    with reading_saved(folder):
        saved = settings["backend"]
    if saved != id:
        raise InputError(f"{folder} holds {saved}, not {id}; load it as that.")
    return AdaptedDetector.load(folder)


def check_detector(
    id: str, X: "ArrayLike | None" = None, y: "ArrayLike | None" = None, **kwargs: Any
) -> list[str]:
    """Say what is wrong with the backend `id`, one sentence a fault; see `detectors.check`."""
    from detectors.check import check_detector

    return check_detector(id, X, y, **kwargs)


def export_onnx(detector: "Detector", path: Path | str, dtype: str = "float64") -> None:
    """Write a fitted `mamba-moe` or `mamba` as an ONNX model; see `detectors.export`."""
    from detectors.export import export_onnx

    export_onnx(detector, path, dtype)


def open_onnx(path: Path | str) -> "Detector":
    """Open what `export_onnx` wrote, scored by ONNX Runtime; see `detectors.onnx`."""
    from detectors.onnx import OnnxDetector

    return OnnxDetector.open(str(path))


__all__ = [
    "check_detector",
    "export_onnx",
    "ids",
    "load",
    "make",
    "open_onnx",
    "register",
    "registry",
]
