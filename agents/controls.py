"""Controls with the Stable-Baselines3 interface that do not learn: random and gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv

from common.errors import InputError, one_line
from common.plain_torch import plain_torch
from detectors.base import Detector
from envs.core import LatentCore


class Control(ABC):
    """Acts without learning; `learn` merely plays.

    Args:
        env: what to act in.
        seed: of the agent's draws.
        unused: what learning agents take besides (policy, device, tensorboard_log).
    """

    def __init__(self, env: VecEnv, seed: int, **unused: Any) -> None:
        self.env = env
        self.rng = np.random.default_rng(seed)

    def set_env(self, env: VecEnv) -> None:
        """Act in another env from now on."""
        self.env = env

    def learn(self, total_timesteps: int, **unused: Any) -> Self:
        """Play at least `total_timesteps` steps, counted over all lanes."""
        observations: Any = self.env.reset()
        for _ in range(-(-total_timesteps // self.env.num_envs)):
            actions, _ = self.predict(observations)
            observations, *_ = self.env.step(actions)
        return self

    def predict(
        self,
        observation: np.ndarray,
        state: None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, None]:
        """Return what `act` does, and no state."""
        return self.act(observation), None

    @abstractmethod
    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return actions, float32 (n, latent_dim), for observations (n, latent_dim + 4)."""


class RandomAgent(Control):
    """Uniform actions."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Draw actions uniformly from [-1, 1]."""
        shape = (len(observation), *(self.env.action_space.shape or ()))
        return self.rng.uniform(-1, 1, shape).astype(np.float32)


class GradientAgent(Control):
    """Steepest ascent of the reward's potential through a differentiable detector.

    The paper's one-step-to-feasible-action: the action is the gradient with respect to z, scaled
    to a largest entry of 1. The potential is -log-odds / 4 + 5 min(margin, 0) with the default
    weights.
    """

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Return the scaled gradient at the observed latents."""
        core: LatentCore = self.env.get_attr("core")[0]
        gradient = slope(core, torch.from_numpy(observation[:, : core.latent_dim]))
        largest = gradient.abs().amax(dim=1, keepdim=True).clamp(min=1e-8)
        return (gradient / largest).numpy()


@plain_torch()
def slope(core: LatentCore, z: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the reward's potential at latents, float32 (n, L) both.

    Raises:
        InputError: the detector or the generator is not differentiable.
    """
    z = z.detach().clone().requires_grad_()
    try:
        (gradient,) = torch.autograd.grad(potential(core, z).sum(), z)
    except RuntimeError as error:
        raise InputError(
            f"--algo gradient needs a differentiable generator and detector, but"
            f" {type(core.generator).__name__} with {one_line(core.detector)} has no gradient"
            f" ({one_line(error)}); take --algo ppo."
        ) from error
    return gradient.nan_to_num()  # a distance has none where it is 0


def potential(core: LatentCore, z: torch.Tensor) -> torch.Tensor:
    """Return the reward's potential of latents (n, L), float32 (n,), differentiably."""
    log_odds = differentiable_log_odds(core.detector)
    weights = core.weights
    rows = core.generator.decode_rows(z, z.new_ones(len(z)))
    margin = core.scenario.gate.margin(core.scenario.gate.scaler(rows)).clamp(max=0)
    return -weights.bypass * log_odds(rows).to(margin.device) + weights.feasibility * margin


def differentiable_log_odds(detector: Detector) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a detector's differentiable `log_odds`; raise `InputError` where it has none."""
    log_odds = getattr(detector, "log_odds", None)
    if log_odds is None:
        raise InputError(
            "--algo gradient needs a differentiable detector, which"
            f" {one_line(detector)} is not; take --algo ppo."
        )
    return log_odds
