"""The Stable-Baselines3 face: a `VecEnv` around any same-step Gymnasium vector env."""

from time import perf_counter
from typing import Any

import numpy as np
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from common.errors import InputError
from envs.vector import lanes_to_reset


class SB3VecEnv(VecEnv):
    """Adapts a vector env with `AutoresetMode.SAME_STEP` to Stable-Baselines3.

    A lane's info is that of its step and `TimeLimit.truncated`. A finished lane's also holds
    `terminal_observation`, `episode` with the return `r`, the length `l` and the seconds `t` since
    the env was made, as of SB3's `Monitor`, and `is_success` where the env tells of `success`;
    what is told of its new episode is in `reset_infos`.

    Raises:
        InputError: the env resets a finished lane in the next step, or not at all.
    """

    def __init__(self, env: VectorEnv) -> None:
        if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise InputError("SB3VecEnv takes vector envs with AutoresetMode.SAME_STEP only.")
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.started = perf_counter()
        self.returns = np.zeros(env.num_envs)
        self.lengths = np.zeros(env.num_envs, dtype=int)

    def reset(self) -> np.ndarray:
        """Reset every lane, with what `seed` and `set_options` were given.

        Raises:
            InputError: the lanes' options differ; they are forgotten.
        """
        given, options = self._options, self._options[0]
        self._reset_options()
        if not all(data_equivalence(other, options, exact=True) for other in given):
            raise InputError("The lanes of one vector env are reset alike; give them one dict.")
        lanes = lanes_to_reset(options, self.num_envs)  # before an env takes the mask out
        observations, infos = self.env.reset(seed=self._seeds[0], options=options or None)
        self._reset_seeds()
        for lane, told in enumerate(by_lane(infos, self.num_envs)):
            if lanes[lane]:
                self.reset_infos[lane] = told
        self.returns[lanes], self.lengths[lanes] = 0, 0
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step every lane."""
        observations, rewards, terminated, truncated, infos = self.env.step(self.actions)
        done = terminated | truncated
        self.returns += rewards
        self.lengths += 1
        lane_infos = by_lane(infos, self.num_envs)
        final_infos = by_lane(infos.get("final_info", {}), self.num_envs)
        for lane in np.flatnonzero(done):
            self.reset_infos[lane] = lane_infos[lane]
            lane_infos[lane] = final = final_infos[lane]
            final["terminal_observation"] = infos["final_obs"][lane]
            final["episode"] = {
                "r": float(self.returns[lane]),
                "l": int(self.lengths[lane]),
                "t": perf_counter() - self.started,
            }
            if "success" in final:
                final["is_success"] = bool(final["success"])
        for info, cut in zip(lane_infos, truncated & ~terminated, strict=True):
            info["TimeLimit.truncated"] = bool(cut)
        self.returns[done], self.lengths[done] = 0, 0
        return observations, rewards.astype(np.float32), done, lane_infos

    def close(self) -> None:
        """Close the vector env."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the vector env or a wrapper, once for every lane asked for."""
        value = getattr(self._holder(attr_name), attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector env or a wrapper that has it; lanes share it."""
        setattr(self._holder(attr_name), attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector env or a wrapper once; lanes share the result."""
        result = getattr(self._holder(method_name), method_name)(*args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """Tell that lanes have no wrapper of their own, but what `Monitor` tells is told."""
        monitored = issubclass(Monitor, wrapper_class)
        return [monitored for _ in self._get_indices(indices)]

    def _holder(self, name: str) -> VectorEnv:
        """Return the outermost wrapper that has the attribute `name`, or else the vector env."""
        env = self.env
        while isinstance(env, VectorWrapper) and not hasattr(env, name):
            env = env.env
        return env


def by_lane(infos: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Part a vector env's infos by lane, but for what they say of last steps before a reset."""
    lanes: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for name, values in infos.items():
        if name.startswith(("_", "final_")):
            continue
        told = infos.get(f"_{name}", np.ones(num_envs, dtype=np.bool_))  # a dict's may stand for it
        own = by_lane(values, num_envs) if isinstance(values, dict) else values
        for lane in np.flatnonzero(told).tolist():
            lanes[lane][name] = own[lane]
    return lanes
