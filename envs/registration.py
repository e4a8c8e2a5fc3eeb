"""Registers the env ids with Gymnasium: the flagship's, and one for every detector backend."""

import gymnasium as gym

import detectors

MAX_EPISODE_STEPS = 8
FLAGSHIP = "LatentAnomaly-v0"


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
                entry_point="envs.latent_anomaly:LatentAnomalyEnv",
                vector_entry_point="envs.vector:LatentAnomalyVectorEnv",
                max_episode_steps=MAX_EPISODE_STEPS,
                kwargs={"detector": backend},
            )
