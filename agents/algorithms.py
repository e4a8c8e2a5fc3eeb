"""The table of algorithms: what `--algo` takes, where each class lives and its settings."""

from importlib.util import find_spec
from typing import Any

from common.registry import unknown

ON_POLICY = {"gamma": 0.95, "n_steps": 32, "learning_rate": 2e-3, "ent_coef": 0.002}
OFF_POLICY = {
    "gamma": 0.95,
    "learning_rate": 1e-3,
    "learning_starts": 1024,
    "train_freq": 1,
    "gradient_steps": 4,
    "buffer_size": 100_000,
}

ALGORITHMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("stable_baselines3:PPO", {**ON_POLICY, "n_epochs": 6, "batch_size": 64}),
    "a2c": ("stable_baselines3:A2C", {**ON_POLICY, "n_steps": 8}),
    "sac": ("stable_baselines3:SAC", OFF_POLICY),
    "td3": ("stable_baselines3:TD3", OFF_POLICY),
    "ddpg": ("stable_baselines3:DDPG", OFF_POLICY),
    "random": ("agents.controls:RandomAgent", {}),
    "gradient": ("agents.controls:GradientAgent", {}),
}
if find_spec("sb3_contrib") is not None:
    ALGORITHMS |= {
        "tqc": ("sb3_contrib:TQC", OFF_POLICY),
        "trpo": ("sb3_contrib:TRPO", {"gamma": 0.95, "n_steps": 32, "batch_size": 256}),
        "recurrent-ppo": (
            "sb3_contrib:RecurrentPPO",
            {**ON_POLICY, "policy": "MlpLstmPolicy", "batch_size": 256},
        ),
    }


def find_algorithm(algo: str) -> tuple[str, dict[str, Any]]:
    """Return the entry point and settings of a key of `ALGORITHMS` or of a `module:Class`."""
    if ":" in algo:
        return algo, {}
    if algo not in ALGORITHMS:
        raise unknown("algorithm", algo, ALGORITHMS)
    return ALGORITHMS[algo]
