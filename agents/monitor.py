"""Counts what a search finds, and shows it."""

from dataclasses import dataclass

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from tqdm import tqdm


@dataclass
class SearchCounts:
    """Totals since the last `SearchMonitor.start`.

    Attributes:
        queries: candidates that the detector was asked about.
        bypasses: candidates that it called normal.
        feasible: candidates outside the normal rows' support.
        episodes: finished episodes.
        successes: episodes that ended in a bypass both feasible and novel.
        reward: sum of all rewards.
    """

    queries: int = 0
    bypasses: int = 0
    feasible: int = 0
    episodes: int = 0
    successes: int = 0
    reward: float = 0.0

    @property
    def bypass_rate(self) -> float:
        """Bypasses per query."""
        return self.bypasses / max(self.queries, 1)


class SearchMonitor(VectorWrapper):
    """Counts candidates, bypasses and successes, and advances a progress bar where one is set."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.start(None)

    def start(self, bar: tqdm | None) -> None:
        """Count from nothing, on `bar`."""
        self.counts, self.bar = SearchCounts(), bar

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Step every lane and count."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        counts = self.counts
        for info in (infos, infos.get("final_info", {})):
            if "bypass" in info:
                counts.bypasses += int(info["bypass"].sum())
                counts.feasible += int((info["margin"] > 0).sum())
        counts.queries += self.num_envs
        counts.episodes += int((terminated | truncated).sum())
        counts.successes += int(terminated.sum())
        counts.reward += float(rewards.sum())
        if self.bar is not None:
            self.bar.update(self.num_envs)
            self.bar.set_postfix(
                bypass_rate=f"{counts.bypass_rate:.3f}", found=counts.successes, refresh=False
            )
        return observations, rewards, terminated, truncated, infos
