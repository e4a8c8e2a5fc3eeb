"""Opinions in one unit, whatever they were measured in."""

import torch
from torch import Tensor, nn

ALIKE = 1e-5  # a smaller deviation is a rounding error


class Standardised(nn.Module):
    """Standardises opinions, (n, *shape), by those of the normal training rows."""

    center: Tensor
    spread: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(shape))
        self.register_buffer("spread", torch.ones(shape))

    def learn_spread(self, opinions: Tensor, least: float) -> None:
        """Take the mean and the standard deviation over rows of opinions.

        The deviation is at least `least`, and 1 where the opinions of all rows are alike: nothing
        tells there how large a difference is.
        """
        deviation = opinions.std(dim=0, correction=0)
        self.center.copy_(opinions.mean(dim=0))
        self.spread.copy_(deviation.clamp(min=least).masked_fill(deviation < ALIKE, 1.0))

    def standardise(self, opinions: Tensor) -> Tensor:
        """Return opinions in standard deviations from the mean."""
        return (opinions - self.center) / self.spread
