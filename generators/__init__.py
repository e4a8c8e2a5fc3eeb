"""Rows from latent vectors: the `Generator` interface, its registry and the feasibility gate."""

from common.registry import Registry
from generators.base import Generator
from generators.feasibility import FeasibilityGate

registry: Registry[Generator] = Registry("generator")
register, make, ids = registry.register, registry.make, registry.ids

register("cvae", "generators.cvae:ConditionalVAE")
register("background", "generators.background:Background")

__all__ = ["FeasibilityGate", "Generator", "ids", "make", "register", "registry"]
