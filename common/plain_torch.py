"""Torch as it is by default, for what learns, whatever its caller is about."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def plain_torch() -> Iterator[None]:
    """Let torch take gradients, and make float32 tensors that it can take them of, in the block.

    A caller may have turned gradients off, as a rollout does with `torch.no_grad`, or made float64
    torch's default.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)
