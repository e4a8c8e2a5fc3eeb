"""Registers the env ids with Gymnasium: the flagship's, and one for every detector backend."""

import importlib

import gymnasium as gym

import detectors
from common.errors import InputError
from common.registry import unknown

MAX_EPISODE_STEPS = 8
FLAGSHIP = "LatentAnomaly-v0"
ENTRY_POINT = "envs.latent_anomaly:LatentAnomalyEnv"


def env_id(detector: str) -> str:
    """Return the id of the env that attacks the backend `detector`."""
    return f"LatentAnomaly/{detector}-v0"


def register_envs() -> None:
    """Register every id that is not registered yet; calling it again is harmless."""
    backends = {FLAGSHIP: "mamba-moe", **{env_id(name): name for name in detectors.ids()}}
    for name, backend in backends.items():
        if name not in gym.registry:
            gym.register(
                name,
                entry_point=ENTRY_POINT,
                vector_entry_point="envs.vector:LatentAnomalyVectorEnv",
                max_episode_steps=MAX_EPISODE_STEPS,
                kwargs={"detector": backend},
            )


def backend_of(id: str) -> str:
    """Return the id of the backend that the env `id`, or `module:id`, attacks by default.

    Raises:
        InputError: the id is not registered, its module does not import, or it is another kind of
            env.
    """
    register_envs()
    module, _, name = id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InputError(f"Cannot import {module!r} for --env-id {id} ({error}).") from error
    ours = {key: spec for key, spec in gym.registry.items() if spec.entry_point == ENTRY_POINT}
    if name not in ours:
        raise unknown("env id", name, ours)
    return ours[name].kwargs["detector"]
