"""Counts what a search finds, and shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from tqdm import tqdm

TOTALS = ("queries", "bypasses", "successes")


@dataclass
class SearchCounts:
    """Totals since the last `SearchMonitor.start`.

    Attributes:
        queries: candidates that the detector was asked about, one a step; the rows that episodes
            start from are scored, too, but not counted.
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


def totals(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Add up the queries, bypasses and successes of a search's rounds."""
    return {name: sum(record[name] for record in history) for name in TOTALS}


class SearchMonitor(VectorWrapper):
    """Counts candidates, bypasses and successes, and advances a progress bar where one is set.

    Attributes:
        left: episodes of each lane that are yet to be counted, float64 (num_envs,).
    """

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.start(None)

    def start(self, bar: tqdm | None, quota: float = np.inf) -> None:
        """Count from nothing, on `bar`, the first `quota` episodes of each lane.

        The first to finish are the short ones, so counting those would favour what ends early.
        """
        self.counts, self.bar = SearchCounts(), bar
        self.left = np.full(self.num_envs, quota, dtype=np.float64)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Step every lane and count."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        counts, counted = self.counts, self.left > 0
        ended = (terminated | truncated) & counted
        for info in (infos, infos.get("final_info", {})):
            if "bypass" in info:
                counts.bypasses += int(info["bypass"][counted].sum())
                counts.feasible += int((info["margin"][counted] > 0).sum())
        counts.queries += int(counted.sum())
        counts.episodes += int(ended.sum())
        counts.successes += int(terminated[ended].sum())
        counts.reward += float(rewards[counted].sum())
        self.left -= ended
        if self.bar is not None:
            self.bar.update(self.num_envs)
            self.bar.set_postfix(
                bypass_rate=f"{counts.bypass_rate:.3f}", found=counts.successes, refresh=False
            )
        return observations, rewards, terminated, truncated, infos
