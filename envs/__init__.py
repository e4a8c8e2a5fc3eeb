"""The Gymnasium env `LatentAnomaly-v0`; importing this package registers its ids."""

import detectors
from envs.registration import FLAGSHIP, env_id, register_envs

register_envs()
detectors.registry.listeners.append(env_id)

__all__ = ["FLAGSHIP", "env_id", "register_envs"]
