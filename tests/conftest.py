"""Small, quick parts that the tests share."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import settings

from detectors.mamba_moe import MambaMoEDetector
from envs.scenario import Scenario
from generators.cvae import ConditionalVAE

settings.register_profile("same-every-time", derandomize=True, deadline=None)
settings.load_profile("same-every-time")
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
os.environ["NUMBA_NUM_THREADS"] = "1"  # else torch takes all cores once a test has used Numba


def blobs(n_normal: int = 150, n_anomalies: int = 30, d: int = 4, seed: int = 0):
    """A round cloud of normals and a wider one of anomalies, which overlap."""
    rng = np.random.default_rng(seed)
    normals = rng.standard_normal((n_normal, d))
    anomalies = 2.5 * rng.standard_normal((n_anomalies, d))
    X = np.concatenate([normals, anomalies])
    return X, np.repeat([0, 1], [n_normal, n_anomalies])


@pytest.fixture(scope="session")
def rows() -> tuple[np.ndarray, np.ndarray]:
    return blobs()


@pytest.fixture(scope="session")
def fitted_scenario(rows) -> Scenario:
    X, y = rows
    generator = ConditionalVAE(latent_dim=3, steps=200).fit(X, y)
    return Scenario.assemble(
        X, y, generator, MambaMoEDetector(steps=30, contamination=0.01).fit(X, y), 0
    )


@pytest.fixture
def scenario(fitted_scenario) -> Scenario:
    """A scenario of one's own; the fitted parts are shared."""
    return replace(fitted_scenario, bank=fitted_scenario.bank.copy())


RUN_SETTINGS = {  # what a run's config must hold
    "detector": "catboost",
    "generator": "cvae",
    "algo": "ppo",
    "seed": 0,
    "synthetic_weight": 0.5,
}


class Reached(Exception):
    """The loop is called, with the arguments that it holds."""


def stop(*arguments, **_):
    """Stand in for `harden`, and go no further."""
    raise Reached(*arguments)
