"""Measures how an agent does in an env."""

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from tqdm import tqdm

from agents.agent import make_agent
from agents.controls import slope
from agents.monitor import SearchMonitor
from common.errors import InputError
from common.plain_torch import plain_torch
from common.randomness import global_seed
from common.seeds import draw_seed
from envs.retrain import VectorDetectorRetrainWrapper, core_of, refuse_inside
from envs.sb3 import SB3VecEnv
from generators.feasibility import nearest_other


class Arena:
    """A vector env with everything around it that acting and measuring needs.

    Args:
        env: a `LatentAnomalyVectorEnv`; its detector stays as it is.

    Raises:
        InputError: the env is another one, or a wrapper around it retrains its detector.
    """

    def __init__(self, env: VectorEnv) -> None:
        told = "What is retrained cannot be measured; pass the env inside, its .env."
        refuse_inside(env, VectorDetectorRetrainWrapper, told)
        told = "Arena takes a LatentAnomalyVectorEnv; make one with gym.make_vec."
        self.core = core_of(env, VectorEnv, told)
        self.monitor = SearchMonitor(env)
        self.env = SB3VecEnv(self.monitor)
        self.found: list[np.ndarray] = []

    def play(self, agent: Any, episodes: int, seed: int) -> dict[str, float | None]:
        """Play at least `episodes` episodes, as many in each lane; return their `summary`.

        Lanes take seeds that follow each other, so the first one is drawn: two values of `seed`
        that follow each other have no episodes in common.
        """
        self.env.seed(draw_seed(np.random.default_rng(seed)))
        observations: Any = self.env.reset()
        self.found = []
        self.monitor.start(None, quota=-(-episodes // self.env.num_envs))
        state, starts = None, np.ones(self.env.num_envs, dtype=bool)
        with global_seed(seed):
            while self.monitor.left.any():
                answer = agent.predict(observations, state=state, episode_start=starts)
                if not isinstance(answer, tuple) or len(answer) != 2:
                    raise InputError(
                        f"predict of {type(agent).__name__} must return actions and a state, which"
                        " may be None."
                    )
                actions, state = answer
                observations, _, starts, infos = self.env.step(actions)
                self.found += [info["sample"] for info in infos if info["success"]]
        return self.summary()

    def controls(self) -> list[str]:
        """Name the algorithms that need no training and fit the env's detector."""
        try:
            slope(self.core, self.core.z)
        except InputError:
            return ["random"]
        return ["random", "gradient"]

    def play_control(self, name: str, episodes: int, seed: int) -> dict[str, float | None]:
        """Play one of the algorithms that need no training."""
        return self.play(make_agent(name, self.env, seed), episodes, seed)

    def play_anew(
        self, algo: str, timesteps: int, episodes: int, seed: int, progress: bool = False
    ) -> dict[str, float | None]:
        """Let a new agent learn against the env's detector, which stays as it is, and then play.

        Args:
            algo: what `make_agent` takes.
            timesteps: env steps to learn at least, counted over all lanes.
            episodes: as in `play`.
            seed: of the agent, of what it learns and of the episodes.
            progress: show a progress bar.
        """
        agent = make_agent(algo, self.env, seed)
        with tqdm(
            total=timesteps, unit="step", desc=algo, leave=False, disable=not progress
        ) as bar:
            self.monitor.start(bar)
            with global_seed(seed), plain_torch():
                agent.learn(timesteps, reset_num_timesteps=True)
        return self.play(agent, episodes, seed)

    def summary(self) -> dict[str, float | None]:
        """Return the measures of the episodes played.

        `bypass_rate` and `feasibility_rate` are shares of the candidates, `success_rate` of the
        episodes; `diversity` is the mean distance, in gate radii, of a success to the nearest
        other one, those in the lanes that went on among them, None where there are fewer than two.
        """
        counts = self.monitor.counts
        return {
            "episodes": counts.episodes,
            "mean_reward": counts.reward / counts.episodes,
            "bypass_rate": counts.bypass_rate,
            "success_rate": counts.successes / counts.episodes,
            "diversity": self.diversity(),
            "feasibility_rate": counts.feasible / counts.queries,
        }

    def diversity(self) -> float | None:
        """Mean distance of a success to the nearest other one, in gate radii."""
        if len(self.found) < 2:
            return None
        gate = self.core.scenario.gate
        return float(nearest_other(gate.scaler(np.stack(self.found))).mean() / gate.radius)
