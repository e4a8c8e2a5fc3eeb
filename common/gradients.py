"""Gradients for what learns, whatever its caller is about."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def gradients_on() -> Iterator[None]:
    """Let torch take gradients, and make tensors that it can take them of, inside the block.

    A caller may have turned them off, as a rollout does with `torch.no_grad`.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield
