"""Rows from latent vectors: the `Generator` interface, its registry and the feasibility gate.

Further generators, subclasses of `generators.base.Generator`, are registered by `register`, or by
packages through the entry-point group `swift_hydra.generators`.
"""

from typing import TYPE_CHECKING, Any

from common.registry import Registry

if TYPE_CHECKING:
    from generators.base import Generator

registry: "Registry[Generator]" = Registry("generator", "swift_hydra.generators")
register, make, ids = registry.register, registry.make, registry.ids

register("cvae", "generators.cvae:ConditionalVAE")
register("background", "generators.background:Background")
registry.register_entry_points()


def check_generator(id: str, **kwargs: Any) -> list[str]:
    """Say what is wrong with the generator `id`, one sentence a fault; see `generators.check`."""
    from generators.check import check_generator

    return check_generator(id, **kwargs)


__all__ = ["check_generator", "ids", "make", "register", "registry"]
