"""Seeded randomness that leaves the process's global generators as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def torch_seed(seed: int) -> Iterator[torch.Generator]:
    """Seed torch's CPU generator inside the block, for layers that draw their own weights.

    Yields a further generator with the same seed, for explicit draws.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


def draw_seed(rng: np.random.Generator) -> int:
    """Draw a seed for a component that takes an integer."""
    return int(rng.integers(2**31))
