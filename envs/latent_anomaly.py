"""`LatentAnomaly-v0`: hunt in a generator's latent space for anomalies that a detector misses."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from envs.core import LatentCore, Step, make_core
from envs.rendering import draw_scene

FIRST = torch.tensor([0])


class LatentAnomalyEnv(gym.Env[np.ndarray, np.ndarray]):
    """One episode at a time on a `LatentCore`.

    Observation: Box float32 (latent_dim + 4,): latent z, the detector's log-odds over 4, the
    feasibility margin, the novelty and the fraction of the episode used.
    Action: Box [-1, 1] float32 (latent_dim,): z moves by `step_size` times the action.
    Reward: see `envs.rewards`; its terms are in `info["reward_terms"]`.
    Start: the latent of a random training row plus noise; `reset(options={"row": i})` picks row i.
    End: success terminates; the `TimeLimit` of the registered ids truncates after 8 steps.
    Info: `row` after a reset; after a step also `sample` (float64 (d,), in the input's units),
    `score` (log-odds), `bypass`, `margin`, `novelty`, `success` and `reward_terms`.

    Args:
        render_mode: None or "rgb_array".
        settings: keyword arguments of `envs.core.make_core`.

    Raises:
        InputError: as `make_core` does.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **settings: Any) -> None:
        self.core: LatentCore = make_core(1, **settings)
        self.observation_space, self.action_space = self.core.spaces()
        self.render_mode = render_mode
        self.row = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; `options={"row": i}` starts at training row i, without noise."""
        super().reset(seed=seed)
        self.row, noise = self.core.draw_start(self.np_random, options)
        self.core.reset(FIRST, np.array([self.row]), noise[None])
        return self.core.observe()[0], {"row": self.row}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the latent by `action`, float32 (latent_dim,) in [-1, 1].

        Raises what `LatentCore.step` does.
        """
        outcome = self.core.step(np.asarray(action)[None])
        info = {"row": self.row, **lane_info(outcome)}
        return (
            self.core.observe()[0],
            float(outcome.reward[0]),
            info["success"],
            False,
            info,
        )

    def render(self) -> np.ndarray | None:
        """Draw normals, known anomalies, bank and candidate; uint8 (480, 640, 3), or None."""
        return draw_scene(self.core) if self.render_mode == "rgb_array" else None


def lane_info(outcome: Step) -> dict[str, Any]:
    """Return the info of a single-lane step, in Python's own numbers but for the sample."""
    info = outcome.info()
    sample, terms = info.pop("sample"), info.pop("reward_terms")
    return {
        "sample": sample[0],
        **{name: value.item() for name, value in info.items()},
        "reward_terms": {name: term.item() for name, term in terms.items()},
    }
