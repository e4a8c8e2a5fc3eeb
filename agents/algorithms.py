"""The table of algorithms: what `--algo` takes, where each class lives and its settings."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from common.errors import InputError
from common.files import read_json, write_json
from common.randomness import global_seed
from common.registry import load_attribute, unknown
from common.weights import load_weights, save_weights

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
    "ppo": ("stable_baselines3:PPO", {**ON_POLICY, "n_epochs": 6, "batch_size": 256}),
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


def make_agent(algo: str, env: VecEnv, seed: int, tensorboard_log: Path | None = None) -> Any:
    """Build an agent with the Stable-Baselines3 interface for `env`.

    Args:
        algo: a key of `ALGORITHMS`, or `module:Class` of a class with that interface.
        env: what the agent shall act in.
        seed: of the agent's own draws.
        tensorboard_log: folder for TensorBoard events.

    Raises:
        InputError: `algo` is unknown or does not fit the env.
    """
    if ":" in algo:
        entry_point, settings = algo, {}
    elif algo in ALGORITHMS:
        entry_point, settings = ALGORITHMS[algo]
    else:
        raise unknown("algorithm", algo, ALGORITHMS)
    arguments = {"policy": "MlpPolicy", **settings}
    log = None if tensorboard_log is None else str(tensorboard_log)
    with global_seed(seed):
        return load_attribute(entry_point)(
            env=env, seed=seed, device="cpu", tensorboard_log=log, **arguments
        )


def save_agent(agent: Any, algo: str, folder: Path) -> None:
    """Write the policy's weights and the algorithm's name; no pickle."""
    write_json(folder / "agent.json", {"algo": algo})
    policy = getattr(agent, "policy", None)
    if policy is not None:
        save_weights(folder / "policy.safetensors", policy.state_dict())


def load_agent(folder: Path, env: VecEnv, seed: int) -> tuple[str, Any]:
    """Read what `save_agent` wrote; return the algorithm's name and the agent, ready to act.

    Raises:
        InputError: the files are missing, broken or belong to another env.
    """
    algo = read_json(folder / "agent.json")["algo"]
    agent = make_agent(algo, env, seed)
    if getattr(agent, "policy", None) is not None:
        try:
            agent.policy.load_state_dict(load_weights(folder / "policy.safetensors"))
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise InputError(f"The policy in {folder} does not fit this env: {reason}") from None
    return algo, agent
