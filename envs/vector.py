"""The native vector face of the env: all lanes in one batched core."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from common.errors import InputError, check_at_least
from envs.core import LatentCore, make_core
from envs.registration import MAX_EPISODE_STEPS


class LatentAnomalyVectorEnv(VectorEnv):
    """`num_envs` episodes at once, each as in `LatentAnomalyEnv`; what `gym.make_vec` builds.

    A finished lane is reset in the same step (`AutoresetMode.SAME_STEP`), its last observation and
    info being in `infos["final_obs"]` and `infos["final_info"]`. Lane i is seeded with seed + i.

    Args:
        num_envs: number of lanes.
        max_episode_steps: steps after which a lane is truncated; -1 for no limit.
        render_mode: None; only `LatentAnomalyEnv` draws.
        settings: keyword arguments of `envs.core.make_core`.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int = MAX_EPISODE_STEPS,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        if render_mode is not None:
            raise InputError(
                f"The vector env has no render_mode {render_mode!r}; draw an env of gym.make."
            )
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        if max_episode_steps != -1:
            check_at_least(self, max_episode_steps=1)
        self.core: LatentCore = make_core(num_envs, **settings)
        self.single_observation_space, self.single_action_space = self.core.spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.seeded = [seeding.np_random() for _ in range(num_envs)]
        self.rows = np.zeros(num_envs, dtype=np.int64)

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The lanes' generators, as of `SyncVectorEnv`."""
        return tuple(rng for rng, _ in self.seeded)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seeds of the lanes' generators."""
        return tuple(seed for _, seed in self.seeded)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode in every lane; `options={"row": i}` as in `LatentAnomalyEnv.reset`.

        `seed` is lane 0's, the others' following it, or there is one for each lane. With
        `options={"reset_mask": mask}`, bool (num_envs,), only those lanes are seeded and started.
        """
        lanes = lanes_to_reset(options, self.num_envs)
        if isinstance(seed, np.integer | np.ndarray):
            seed = seed.tolist()
        if isinstance(seed, int):
            seed = [seed + i for i in range(self.num_envs)]
        if seed is not None:
            if not isinstance(seed, Sequence):
                raise InputError(f"seed is {seed!r}; give a whole number, or one for each lane.")
            if len(seed) != self.num_envs:
                raise InputError(
                    f"There are {len(seed)} seeds for {self.num_envs} lanes; give one, or one each."
                )
            self.seeded = [
                seeding.np_random(own) if chosen and own is not None else kept
                for kept, own, chosen in zip(self.seeded, seed, lanes, strict=True)
            ]
        self._start(lanes, options)
        return self.core.observe(), self._row_info(lanes)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Move every lane by `actions`, float32 (num_envs, latent_dim) in [-1, 1].

        Raises what `LatentCore.step` does.
        """
        outcome = self.core.step(actions)
        observations = self.core.observe()
        terminated = outcome.success.numpy()
        limit = self.max_episode_steps if self.max_episode_steps != -1 else np.inf
        truncated = (self.core.elapsed >= limit).numpy()
        done = terminated | truncated
        info = outcome.info()
        infos = self._step_info(info, ~done)
        if done.any():
            infos |= {
                "final_obs": _object_array(observations, done),
                "_final_obs": done.copy(),
                "final_info": self._step_info(info, done),
                "_final_info": done.copy(),
            }
            self._start(done)
            infos |= self._row_info(np.ones_like(done))
            observations = self.core.observe()
        return observations, outcome.reward.double().numpy(), terminated, truncated, infos

    def _start(self, lanes: np.ndarray, options: dict[str, Any] | None = None) -> None:
        chosen = np.flatnonzero(lanes)
        starts = [self.core.draw_start(self.seeded[lane][0], options) for lane in chosen]
        self.rows[chosen] = [row for row, _ in starts]
        noise = np.stack([noise for _, noise in starts])
        self.core.reset(torch.from_numpy(chosen), self.rows[chosen], noise)

    def _row_info(self, lanes: np.ndarray) -> dict[str, Any]:
        return {"row": np.where(lanes, self.rows, 0), "_row": lanes.copy()}

    def _step_info(self, info: dict[str, Any], lanes: np.ndarray) -> dict[str, Any]:
        """Batch the step's info as Gymnasium's own vector envs do: zeros and a mask elsewhere."""
        if not lanes.any():
            return {}
        return {**self._row_info(lanes), **_masked(info, lanes)}


def lanes_to_reset(options: Mapping[str, Any] | None, num_envs: int) -> np.ndarray:
    """Return the lanes that a reset with `options` starts, bool (num_envs,): by default all.

    Raises:
        InputError: `options["reset_mask"]` is no such array, or has no True.
    """
    everywhere = np.ones(num_envs, dtype=np.bool_)
    mask = np.asarray((options or {}).get("reset_mask", everywhere))
    if mask.dtype != np.bool_ or mask.shape != everywhere.shape or not mask.any():
        raise InputError(
            f"options['reset_mask'] is {mask.tolist()}; give {num_envs} booleans, one of them True."
        )
    return mask


def _masked(values: dict[str, Any], lanes: np.ndarray) -> dict[str, Any]:
    infos: dict[str, Any] = {}
    for name, value in values.items():
        infos[name] = _masked(value, lanes) if isinstance(value, dict) else _shown(value, lanes)
        infos[f"_{name}"] = lanes.copy()
    return infos


def _shown(array: np.ndarray, lanes: np.ndarray) -> np.ndarray:
    return np.where(lanes.reshape(-1, *[1] * (array.ndim - 1)), array, np.zeros_like(array))


def _object_array(observations: np.ndarray, done: np.ndarray) -> np.ndarray:
    array = np.full(len(done), None, dtype=object)
    array[done] = np.fromiter(observations[done], dtype=object)
    return array
