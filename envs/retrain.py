"""Wrappers that close the loop: the live detector is retrained on what episodes find."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.wrappers import Autoreset
from gymnasium.wrappers.vector import DictInfoToList

from common.errors import InputError, check_at_least, one_line
from detectors.base import Detector
from detectors.replay import retrained
from envs.core import LatentCore
from envs.vector import lanes_to_reset
from generators.feasibility import farthest


class DetectorRetrainWrapper(gym.Wrapper, RecordConstructorArgs):
    """Retrains the detector on the successful samples of each episode that had any.

    They join the env's bank, and a copy of the detector is retrained on real rows plus the bank
    (replay); the env plays against the copy from the next reset on. A reset with a seed goes
    back to the scenario's own detector and bank, so that episodes stay reproducible.

    Args:
        env: a `LatentAnomalyEnv`, wrapped or not.
        retrain_every: successful episodes between two retrainings; a success ends its episode.

    Raises:
        InputError: the env is another one, its detector can only be queried, `retrain_every` is
            less than 1, or `gymnasium.wrappers.Autoreset` is inside this wrapper, which would see
            no reset.
    """

    def __init__(self, env: gym.Env, retrain_every: int = 1) -> None:
        RecordConstructorArgs.__init__(self, retrain_every=retrain_every)
        self.core = core_of(
            env,
            gym.Env,
            f"DetectorRetrainWrapper takes a LatentAnomalyEnv, which {env} is not; make one"
            " with gym.make('envs:LatentAnomaly-v0').",
        )
        gym.Wrapper.__init__(self, env)
        require_trainable(self.core.detector)
        refuse_inside(env, Autoreset, "Put Autoreset around DetectorRetrainWrapper, not inside it.")
        self.retrain_every = retrain_every
        check_at_least(self, retrain_every=1)
        self.found: list[np.ndarray] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode, against a retrained detector where one is due."""
        if seed is not None:
            self.found = []
            self.core.restore()
        elif len(self.found) >= self.retrain_every:
            found, self.found = np.stack(self.found), []
            retrain(self.core, found)
        return self.env.reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step, and keep the sample where it is a success."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if info["success"]:
            self.found.append(info["sample"].copy())
        return observation, float(reward), terminated, truncated, info


class VectorDetectorRetrainWrapper(VectorWrapper):
    """The vector form: retrains once per batch of finished episodes.

    All lanes play against one detector, so those in mid-episode meet the retrained one, too.
    Observations are of the retrained detector at once, or where a wrapper inside this one changes
    them from the next step on.

    Args:
        env: a `LatentAnomalyVectorEnv`, wrapped or not.
        retrain_every: successful episodes between two retrainings; None leaves it to the caller
            of `retrain`.
        top_l: successes, those that crowd least, that a retraining keeps.

    Raises:
        InputError: the env is another one or has `DictInfoToList` in it, `retrain_every` is given
            though its detector can only be queried, or a number is less than 1.
    """

    def __init__(self, env: VectorEnv, retrain_every: int | None = 256, top_l: int = 256) -> None:
        self.core = core_of(
            env,
            VectorEnv,
            "VectorDetectorRetrainWrapper takes a LatentAnomalyVectorEnv, which gym.make_vec"
            " makes by default, not a vector of single envs.",
        )
        super().__init__(env)
        told = "Put DictInfoToList around VectorDetectorRetrainWrapper, not inside it."
        refuse_inside(env, DictInfoToList, told)
        self.retrain_every, self.top_l = retrain_every, top_l
        check_at_least(self, top_l=1)
        if retrain_every is not None:
            check_at_least(self, retrain_every=1)
            require_trainable(self.core.detector)
        self.found: list[np.ndarray] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start lanes; a seed for all goes back to the scenario's own detector and bank.

        What was found meanwhile is forgotten then, unless retraining is left to the caller.
        """
        lanes = lanes_to_reset(options, self.num_envs)
        if seed is not None and lanes.all():
            self.core.restore()
            if self.retrain_every is not None:
                self.found = []
        return self.env.reset(seed=seed, options=options)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every lane, and retrain where enough episodes succeeded."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        if terminated.any():
            self.found.extend(infos["final_info"]["sample"][terminated])
        if self.retrain_every is not None and len(self.found) >= self.retrain_every:
            unchanged = np.array_equal(observations, self.core.observe())
            self.retrain()
            if unchanged:  # by wrappers of the env
                observations = self.core.observe()
        return observations, rewards, terminated, truncated, infos

    def retrain(self) -> None:
        """Retrain on the `top_l` successes since the last retraining, if there were any."""
        if self.found:
            retrain(self.core, self.take_spread())

    def take_spread(self) -> np.ndarray:
        """Return the `top_l` successes that crowd least, float64 (m, d), and forget them all.

        They are chosen one after the other, each being the farthest from the bank and from those
        chosen before it.
        """
        samples = np.reshape(self.found, (-1, self.core.samples.shape[1]))
        self.found = []
        scaled = self.core.scenario.gate.scaler(samples)
        return samples[farthest(scaled, self.core.scaled_bank, self.top_l).numpy()]


def retrain(core: LatentCore, found: np.ndarray) -> None:
    """Add `found`, float64 (m, d), to the core's bank and retrain its detector with replay."""
    scenario = core.scenario
    core.remember(found)
    core.replace_detector(
        retrained(core.detector, scenario.X, scenario.y, core.bank, scenario.synthetic_weight)
    )


def require_trainable(detector: Detector) -> None:
    """Raise `InputError` where a detector can only be queried."""
    if not detector.trainable:
        told = one_line(detector)
        raise InputError(f"{told} can only be queried: attack it without retraining it.")


def core_of(env: Any, kind: type[gym.Env] | type[VectorEnv], told: str) -> LatentCore:
    """Return the core of an env of a kind, which holds the live detector and the bank.

    Raises `InputError(told)` where it is of another kind or has none.
    """
    if not isinstance(env, kind) or not hasattr(env.unwrapped, "core"):
        raise InputError(told)
    return env.unwrapped.core


def refuse_inside(env: gym.Env | VectorEnv, kind: type, told: str) -> None:
    """Raise `InputError(told)` where one of the wrappers around an env is of a kind."""
    while isinstance(env, gym.Wrapper | VectorWrapper):
        if isinstance(env, kind):
            raise InputError(told)
        env = env.env
