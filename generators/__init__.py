"""Rows from latent vectors: the `Generator` interface, its registry and the feasibility gate."""

from typing import TYPE_CHECKING

from common.registry import Registry

if TYPE_CHECKING:
    from generators.base import Generator

registry: "Registry[Generator]" = Registry("generator")
register, make, ids = registry.register, registry.make, registry.ids

register("cvae", "generators.cvae:ConditionalVAE")
register("background", "generators.background:Background")

__all__ = ["ids", "make", "register", "registry"]
