"""Seeded randomness that leaves the process's global generators as they were."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

GLOBAL = threading.RLock()  # held while the global generators are seeded: threads take turns


@contextmanager
def torch_seed(seed: int) -> Iterator[torch.Generator]:
    """Seed torch's CPU generator inside the block, for layers that draw their own weights.

    Yields a further generator with the same seed, for explicit draws.
    """
    seed %= 2**63  # all that torch takes
    with GLOBAL, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators inside the block, for libraries that
    know no others, and put them back afterwards.
    """
    with torch_seed(seed):
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
