"""Score rows: the `Detector` interface, its registry and the backends.

Further packages register backends through the entry-point group `swift_hydra.detectors`: each
entry point's name is the id, its value the `module:Class`.
"""

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from common.registry import Registry

if TYPE_CHECKING:
    from detectors.base import Detector

registry: "Registry[Detector]" = Registry("detector")
register, make, ids = registry.register, registry.make, registry.ids

register("mamba-moe", "detectors.mamba_moe:MambaMoEDetector")
register(
    "mamba",
    "detectors.mamba_moe:MambaMoEDetector",
    {"n_experts": 1, "top_k": 1, "d_model": 64, "depth": 2},
)
register("extra-trees", "detectors.trees:ExtraTreesDetector")
register("catboost", "detectors.trees:CatBoostDetector")
for entry_point in entry_points(group="swift_hydra.detectors"):
    register(entry_point.name, entry_point.value)

__all__ = ["ids", "make", "register", "registry"]
