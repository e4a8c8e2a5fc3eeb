"""What opinions are standardised by."""

from torch import Tensor

ALIKE = 1e-5  # a smaller deviation is a rounding error


def center_and_spread(opinions: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation over rows of opinions, (n,) or (n, k).

    The deviation is at least `least`, and 1 where the opinions of all rows are alike: nothing tells
    there how large a difference is.
    """
    deviation = opinions.std(dim=0, correction=0)
    spread = deviation.clamp(min=least).masked_fill(deviation < ALIKE, 1.0)
    return opinions.mean(dim=0), spread
