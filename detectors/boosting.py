"""Boosted trees as the mean of short ensembles."""

from typing import Any

import numpy as np
import torch
from catboost import CatBoost, CatBoostClassifier, sum_models

ENSEMBLES = 10
LEARNING_RATE = 0.5


def boost(
    X: np.ndarray, y: np.ndarray, weight: np.ndarray, n_trees: int, seed: int, **settings: Any
) -> CatBoost:
    """Return the mean of ten ensembles of boosted trees, or of as many as there are trees.

    Trees that correct each other go on where the first ones led, and few anomalies leave that to
    chance. Short ensembles begin anew, and learn fast enough to get there in few trees.

    Args:
        X: rows, float (n, d).
        y: labels, int (n,).
        weight: float (n,).
        n_trees: of all ensembles together.
        seed: of the ensembles' seeds.
        settings: further ones of `catboost.CatBoostClassifier`.
    """
    parts = np.array_split(range(n_trees), min(ENSEMBLES, n_trees))
    seeds = np.random.default_rng(seed).integers(2**31, size=len(parts))
    ensembles = [
        make_booster(
            iterations=len(part),
            learning_rate=LEARNING_RATE,
            random_seed=int(each),
            **settings,
        ).fit(X, y, sample_weight=weight)
        for part, each in zip(parts, seeds, strict=True)
    ]
    return sum_models(ensembles, weights=[1 / len(parts)] * len(parts))


def make_booster(**settings: Any) -> CatBoostClassifier:
    """Return an unfitted CatBoost model, by default with torch's number of threads."""
    defaults = {"thread_count": torch.get_num_threads(), "verbose": False}
    return CatBoostClassifier(**defaults | settings, allow_writing_files=False)
