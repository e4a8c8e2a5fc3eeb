"""Parts of the method with one thing taken out or exchanged, for the ablation."""

from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from agents.algorithms import find_algorithm, fit_batches
from agents.controls import RandomAgent
from detectors.mamba2 import Mamba2
from detectors.mamba_expert import N_HEADS
from detectors.mamba_moe import MambaMoEDetector
from detectors.mixture import Mixture, Sizes
from envs.core import LatentCore
from generators.cvae import ConditionalVAE
from generators.feasibility import FeasibilityGate


class DefaultPPO(PPO):
    """PPO with the settings that the algorithm `ppo` has here; it can reach the env's core."""

    def __init__(self, env: VecEnv, **arguments: Any) -> None:
        settings = fit_batches(find_algorithm("ppo")[1], env.num_envs)
        super().__init__(env=env, **{**settings, **arguments})

    @property
    def core(self) -> LatentCore:
        """The arithmetic of the env that is acted in."""
        assert self.env is not None
        return self.env.get_attr("core")[0]


class UnionPPO(DefaultPPO):
    """PPO for half of the steps and random latents for the others: both look for successes."""

    def __init__(self, env: VecEnv, seed: int, **arguments: Any) -> None:
        super().__init__(env=env, seed=seed, **arguments)
        self.random = RandomAgent(env, seed)

    def learn(self, total_timesteps: int, *arguments: Any, **keywords: Any) -> Self:
        """Learn for half a round, then wander; the loop resets the env before the next."""
        super().learn(total_timesteps // 2, *arguments, **keywords)
        self.random.learn(total_timesteps - total_timesteps // 2)
        return self


class OpenGate(FeasibilityGate):
    """Takes every row for feasible; the radius, novelty's unit, stays that of `gate`."""

    def __init__(self, gate: FeasibilityGate) -> None:
        super().__init__(gate.scaler)
        self.references, self.radius = gate.references, gate.radius

    def margin(self, scaled: Tensor) -> Tensor:
        """Return 1 for every row."""
        return torch.ones(len(scaled))


class UngatedPPO(DefaultPPO):
    """PPO in an env whose feasibility gate stands open, in reward, success and bank."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.core.scenario = replace(self.core.scenario, gate=OpenGate(self.core.scenario.gate))


class SingleMindedPPO(DefaultPPO):
    """PPO without the reward's diversity term."""

    def learn(self, *arguments: Any, **keywords: Any) -> Self:
        """Learn a round; the loop sets the reward's weights before each."""
        self.core.weights = replace(self.core.weights, diversity=0.0)
        return super().learn(*arguments, **keywords)


class FrozenVAE(ConditionalVAE):
    """The default generator, never refreshed on what was found."""

    def partial_fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Stay as it is."""
        return self


class PerceptronBlock(nn.Module):
    """A perceptron on each token with as many parameters, hence multiplications, as `block`."""

    def __init__(self, block: Mamba2) -> None:
        super().__init__()
        d_model = block.in_proj.in_features
        n_parameters = sum(parameter.numel() for parameter in block.parameters())
        hidden = round((n_parameters - d_model) / (2 * d_model + 1))
        self.layers = nn.Sequential(
            nn.Linear(d_model, hidden), nn.SiLU(), nn.Linear(hidden, d_model)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens, float32 (n, length, d_model), to the same shape."""
        return self.layers(tokens)


class PerceptronMixture(Mixture):
    """The flagship's network with a perceptron in place of each Mamba-2 block."""

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        super().__init__(sizes, device)
        for expert in self.experts:
            blocks = map(PerceptronBlock, expert.blocks)  # type: ignore[arg-type]
            expert.blocks = nn.ModuleList(blocks)

    def train(self, mode: bool = True) -> Self:
        """Go on training, or, with `mode` False, score; perceptrons are not stacked."""
        return nn.Module.train(self, mode)

    def mamba(self, tokens: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        """Return the gated sum of the experts' logits, (n, 2)."""
        routed, gate, logits = self.route(tokens, gates, chosen)
        return tokens.new_zeros(len(tokens), N_HEADS).index_add(0, routed, gate * logits)


class PerceptronMoEDetector(MambaMoEDetector):
    """The flagship with a perceptron in place of each Mamba-2 block."""

    network_type = PerceptronMixture
