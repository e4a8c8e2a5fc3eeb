"""The Gymnasium env `LatentAnomaly-v0`; importing this package registers its ids."""

from envs.registration import FLAGSHIP, env_id, register_envs

register_envs()

__all__ = ["FLAGSHIP", "env_id", "register_envs"]
