"""One thread a measurement, so that those made at once do not get in each other's way."""

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def single_thread() -> Iterator[None]:
    """Keep numpy, scikit-learn and torch to one thread inside the block.

    What the first optimiser of a process imports, which takes seconds, is imported before it.
    """
    import torch._dynamo

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
