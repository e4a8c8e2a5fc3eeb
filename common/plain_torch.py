"""Torch as it is by default, for what learns, whatever its caller is about."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def plain_torch() -> Iterator[None]:
    """Let torch take gradients, and make float32 tensors on the CPU, in the block.

    A caller may have turned gradients off, as a rollout does with `torch.no_grad`, or made float64
    or another device torch's default.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    # the context slows every operation, so it is only entered where there is another device
    on_cpu = nullcontext() if device.type == "cpu" else torch.device("cpu")
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad(), on_cpu:
            yield
    finally:
        torch.set_default_dtype(dtype)
