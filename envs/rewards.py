"""The reward: change of a potential per step, a diversity term and a bonus on success."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from common.errors import InputError
from common.names import check_names


@dataclass(frozen=True)
class RewardWeights:
    """Weights of the reward's terms.

    Attributes:
        bypass: per unit by which the detector's log-odds of anomaly fall in a step. It is dense in
            the log-odds: a hardened detector's probability is flat, and teaches nothing.
        feasibility: per gate radius by which a candidate nears the support's edge from inside. The
            way in costs a radius at most, which must outweigh how far log-odds fall on it: an agent
            that is paid for hiding among the normal rows looks for nothing else.
        diversity: per unit of novelty, each step.
        success: bonus when bypass, feasibility and novelty hold together.
    """

    bypass: float = 0.25
    feasibility: float = 5.0
    diversity: float = 0.05
    success: float = 5.0

    @classmethod
    def checked(cls, weights: Mapping[str, float]) -> Self:
        """Return the defaults but for `weights` by name, or raise `InputError`."""
        if not isinstance(weights, Mapping):
            raise InputError(f"weights is {weights!r}; give a dict of reward weights by name.")
        check_names("reward weight", weights, [field.name for field in fields(cls)])
        for name, weight in weights.items():
            if not isinstance(weight, Real) or not np.isfinite(weight):
                raise InputError(f"The reward weight {name} is {weight!r}; give a finite number.")
        return cls(**weights)


class Measures(NamedTuple):
    """What the env measures of its candidates, one entry a lane.

    Attributes:
        log_odds: the detector's log-odds of anomaly, float32 (n,).
        margin: feasibility margin in gate radii, float32 (n,); above 0 is feasible.
        novelty: distance to the bank in gate radii, clipped to [0, 1], float32 (n,).
    """

    log_odds: Tensor
    margin: Tensor
    novelty: Tensor


def reward_terms(
    before: Measures, after: Measures, success: Tensor, weights: RewardWeights
) -> dict[str, Tensor]:
    """Return the reward's named terms, each float32 (n,); their sum is the reward.

    Bypass and feasibility are differences of a potential, as in the shaping of Ng, Harada & Russell
    (1999) but without the discount: their sum over a path is that of its ends.
    """
    inside = after.margin.clamp(max=0) - before.margin.clamp(max=0)
    return {
        "bypass": weights.bypass * (before.log_odds - after.log_odds),
        "feasibility": weights.feasibility * inside,
        "diversity": weights.diversity * after.novelty,
        "success": weights.success * success.to(torch.float32),
    }
