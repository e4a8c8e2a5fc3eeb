"""The table of algorithms: what `--algo` takes and where each class lives."""

from importlib.resources import files
from math import log
from typing import Any

import yaml

from common.errors import InputError
from common.imports import load_attribute
from common.names import unknown

ALGORITHMS: dict[str, str] = {
    **{name: f"stable_baselines3:{name.upper()}" for name in ("ppo", "a2c", "sac", "td3", "ddpg")},
    "ars": "agents.ars:ARS",
    "crossq": "sb3_contrib:CrossQ",
    "recurrent-ppo": "sb3_contrib:RecurrentPPO",
    "tqc": "sb3_contrib:TQC",
    "trpo": "sb3_contrib:TRPO",
    "random": "agents.controls:RandomAgent",
    "gradient": "agents.controls:GradientAgent",
}


def find_algorithm(algo: str) -> tuple[str, dict[str, Any]]:
    """Return the entry point and settings of a key of `ALGORITHMS` or of a `module:Class`.

    The settings are those of `agents/settings/<algo>.yml`; a class without such a file keeps its
    defaults.

    Raises:
        InputError: there is no such algorithm, or it is no text.
    """
    if not isinstance(algo, str):
        raise InputError(
            f"An algorithm is given as {type(algo).__name__}; pass its name, or 'module:Class'."
        )
    if ":" in algo:
        return algo, {}
    if algo not in ALGORITHMS:
        raise unknown("algorithm", algo, [*ALGORITHMS, "module:Class"])
    file = files("agents.settings") / f"{algo}.yml"
    return ALGORITHMS[algo], yaml.safe_load(file.read_text()) if file.is_file() else {}


def load_algorithm(algo: str) -> Any:
    """Import the class of what `find_algorithm` takes; raise `InputError` where there is none."""
    return load_attribute(find_algorithm(algo)[0])


def fit_batches(settings: dict[str, Any], n_lanes: int) -> dict[str, Any]:
    """Return settings whose batches, if they have any, part a rollout of `n_lanes` evenly.

    Their size is the one nearest to what is set, as a ratio.
    """
    if not {"n_steps", "batch_size"} <= settings.keys():
        return settings
    rollout = settings["n_steps"] * n_lanes
    sizes = [size for size in range(1, rollout + 1) if rollout % size == 0]
    nearest = min(sizes, key=lambda size: abs(log(size / settings["batch_size"])))
    return {**settings, "batch_size": nearest}
