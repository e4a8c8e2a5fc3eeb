"""Agents with the Stable-Baselines3 interface: built by name, saved and loaded without pickle."""

import inspect
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecEnv

from agents.algorithms import find_algorithm, fit_batches
from common.errors import InputError, described, one_line
from common.files import read_json, reading_saved, write_json
from common.imports import load_attribute
from common.plain_torch import plain_torch
from common.randomness import global_seed
from common.tensors import load_tensors, save_tensors

NEEDED = ("learn", "predict", "env", "set_env")
PASSED: dict[str, dict[str, Any]] = {  # by name, beside a first argument
    "learn": {"reset_num_timesteps": True},
    "predict": {"state": None, "episode_start": None},
}


@plain_torch()
def make_agent(algo: str, env: VecEnv, seed: int, tensorboard_log: Path | None = None) -> Any:
    """Build an agent with the Stable-Baselines3 interface for `env`.

    Args:
        algo: a key of `ALGORITHMS`, or `module:Class` of a class with that interface.
        env: what the agent shall act in.
        seed: of the agent's weights or own generator, and of the env's. What `learn` draws from the
            global generators repeats inside `common.randomness.global_seed`.
        tensorboard_log: folder for TensorBoard events.

    Raises:
        InputError: `algo` is unknown, does not fit the env, or lacks one of `NEEDED` or an
            argument of it that the loop passes.
    """
    entry_point, settings = find_algorithm(algo)
    arguments = {
        "policy": "MlpPolicy",
        "env": env,
        "seed": seed % 2**32,  # all that NumPy's global generator takes
        "device": "cpu",
        "tensorboard_log": None if tensorboard_log is None else str(tensorboard_log),
        **fit_batches(settings, env.num_envs),
    }
    if "action_noise" in settings:
        arguments["action_noise"] = action_noise(settings["action_noise"], env)
    algorithm = load_attribute(entry_point)
    env.seed(seed)
    env.action_space.seed(seed)
    with global_seed(seed):
        agent = construct(algorithm, arguments, algo)
    check_interface(agent, algo)
    if tensorboard_log is None and hasattr(agent, "set_logger"):
        agent.set_logger(Logger(None, []))  # by default each `learn` makes a folder for nothing
    return agent


def construct(algorithm: Any, arguments: dict[str, Any], algo: str) -> Any:
    """Build an agent of the class `algorithm`; raises as `make_agent` does."""
    try:
        inspect.signature(algorithm).bind(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The algorithm {algo!r} cannot be built ({error}); it must take the keyword arguments"
            f" {', '.join(arguments)}."
        ) from error
    try:
        return algorithm(**arguments)
    except AssertionError as error:  # with which Stable-Baselines3 refuses a space
        reason = one_line(error)
        raise InputError(f"The algorithm {algo!r} does not fit the env: {reason}") from error
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"The algorithm {algo!r} fails ({described(error)}); mend it.") from error


def check_interface(agent: Any, algo: str) -> None:
    """Raise `InputError` where an agent lacks one of `NEEDED`, or an argument the loop passes."""
    for name in NEEDED:
        if not hasattr(agent, name):
            raise InputError(f"The algorithm {algo!r} has no {name}, which the loop needs; add it.")
    for name, passed in PASSED.items():
        try:
            inspect.signature(getattr(agent, name)).bind(None, **passed)
        except TypeError as error:
            raise InputError(
                f"{name} of the algorithm {algo!r} must take a further argument, or **unused, for"
                f" the loop passes {', '.join(passed)} ({error})."
            ) from error


def action_noise(deviation: float, env: VecEnv) -> NormalActionNoise:
    """Return Gaussian noise for each entry of the actions of `env`."""
    shape = env.action_space.shape
    assert shape is not None
    return NormalActionNoise(np.zeros(shape), np.full(shape, deviation))


def save_agent(agent: Any, algo: str, folder: Path | str) -> None:
    """Write the policy's weights and the algorithm's name; no pickle."""
    folder = Path(folder)
    write_json(folder / "agent.json", {"algo": algo})
    policy = getattr(agent, "policy", None)
    if isinstance(policy, torch.nn.Module):
        save_tensors(folder / "policy.safetensors", policy.state_dict())
    elif ":" in algo:
        warnings.warn(
            f"{algo} has no policy that is a torch.nn.Module: what it learned is not saved, and"
            " evaluate.py attacks with a new one.",
            stacklevel=2,
        )


def load_agent(folder: Path | str, env: VecEnv, seed: int) -> tuple[str, Any]:
    """Read what `save_agent` wrote; return the algorithm's name and the agent, ready to act.

    Raises:
        InputError: the files are missing, broken or belong to another env, or the algorithm is of a
            module that nobody but they has named.
    """
    folder = Path(folder)
    saved = read_json(folder / "agent.json")
    with reading_saved(folder):
        algo = saved["algo"]
        module, _, attribute = algo.partition(":")
    if attribute and module not in sys.modules:
        raise InputError(f"{folder} holds an agent of {algo}; pass --plugin {module} to import it.")
    agent = make_agent(algo, env, seed)
    if isinstance(getattr(agent, "policy", None), torch.nn.Module):
        try:
            agent.policy.load_state_dict(load_tensors(folder / "policy.safetensors"))
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise InputError(f"The policy in {folder} does not fit this env: {reason}") from None
    return algo, agent
