"""Attack a detector in an env and score it on held-out rows, before and after hardening.

python evaluate.py --env-id LatentAnomaly-v0
python evaluate.py --compare runs/first runs/second
"""

from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import detectors
from common.command import choice, run_command
from common.errors import InputError, check_at_least
from common.files import check_file, write_json
from common.imports import load_plugins
from envs.registration import FLAGSHIP, env_name

if TYPE_CHECKING:
    import numpy as np

    from agents.runs import Run
    from envs.scenario import Scenario

N_LANES = 64
RUNS = Path("runs")
ROWS = ("data", "label_column", "protocol", "seed")  # settings that say which rows there are
ENV_IDS = [FLAGSHIP, *map(env_name, detectors.ids()), "LatentAnomaly/<detector>-v0", "module:id"]


@dataclass(frozen=True)
class EvaluateConfig:
    """Attack a detector in an env and score it on held-out rows, before and after hardening.

    Attributes:
        env_id: a registered env id, or module:id to import a module first.
        run: folder of a run written by train.py; by default the id's own, if it was registered with
            one, or the latest in `runs`: of any backend for LatentAnomaly-v0, else of the id's, and
            of the rows that the id was registered with.
        runs: folder that run folders are looked for in; unless another one is named, without a run
            in it the controls play against an unhardened detector.
        episodes: episodes that each algorithm plays at least; all of 64 lanes play as many.
        timesteps: env steps at least, counted over all lanes, that the run's algorithm learns anew
            against each detector before it plays once more; with 0 it does not.
        seed: of the episodes, and of the agent that learns anew.
        json: file to write the figures to, the time that scoring takes among them.
        compare: two run folders or more to put side by side, instead of attacking one; of the
            other options only json and plugin count then.
        plugin: modules to import first, which register detectors or generators of their own, or
            hold the agent of the run.
    """

    env_id: Annotated[str, choice(ENV_IDS)] = FLAGSHIP
    run: Path | None = None
    runs: Path = RUNS
    episodes: int = 512
    timesteps: int = 10_000
    seed: int = 0
    json: Path | None = None
    compare: tuple[Path, ...] | None = None
    plugin: tuple[str, ...] = ()


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Print the tables and return their figures."""
    check_at_least(config, episodes=1, timesteps=0, seed=0)
    if config.json is not None:
        check_file(config.json, "--json")
    load_plugins(config.plugin)
    figures = attacked(config) if config.compare is None else compared(config.compare)
    if config.json is not None:
        write_json(config.json, figures)
    return figures


def compared(folders: tuple[Path, ...]) -> dict[str, Any]:
    """Print runs side by side and return their figures."""
    from agents.comparison import compare, comparison_text

    comparison = compare(folders)
    print(comparison_text(comparison))
    return comparison


def attacked(config: EvaluateConfig) -> dict[str, Any]:
    """Attack a run's detector before and after hardening, or the default one, and score both.

    Prints two tables, of the attacks and of held-out rows, if any, and returns their figures.
    """
    import gymnasium as gym

    from agents.report import held_out_metrics
    from envs.registration import find_env

    name, backend = find_env(config.env_id)
    settings = {**default_rows(), **gym.spec(name).kwargs}
    given = settings.get("scenario") is not None
    wanted = {} if given else settings_of_run(name, backend, settings)
    if given and config.run is None and "run" not in settings:
        raise InputError(
            f"{name} is registered with a scenario of its own, which holds no rows out; name a run"
            " with --run."
        )
    run = chosen_run(config, settings, wanted)
    if run is None:
        told = f"No run in {config.runs}"
        if wanted:
            told += f" with {', '.join(f'{key}={value}' for key, value in wanted.items())}"
        if config.runs != RUNS:
            raise InputError(f"{told}; name another folder with --runs, or leave it out.")
        print(f"{told}: playing the controls on {settings['data']}, unhardened.\n")
        scenarios, X_test, y_test = default_scenario(settings)
    else:
        run.check_parts("detector", "generator")
        print(f"Run {run.folder}, {run.config['detector']}\n")
        scenarios, X_test, y_test = both_scenarios(run)
    figures: dict[str, Any] = {
        "run": None if run is None else str(run.folder),
        "timesteps": config.timesteps,
        "env": {when: play(name, scenario, config, run) for when, scenario in scenarios.items()},
        "detection": held_out_metrics(
            {when: scenario.detector for when, scenario in scenarios.items()}, X_test, y_test
        ),
    }
    print_tables(name, figures)
    return figures


def default_rows() -> dict[str, Any]:
    """Return the settings of `ROWS` as an env has them by default."""
    from envs.core import make_core

    parameters = signature(make_core).parameters
    return {name: parameters[name].default for name in ROWS}


def settings_of_run(name: str, backend: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a run of the env `name` has: its rows, where it names some, and its backend."""
    import gymnasium as gym

    names_rows = not gym.spec(name).kwargs.keys().isdisjoint(ROWS)
    wanted = {key: settings[key] for key in ROWS} if names_rows else {}
    return wanted if name == FLAGSHIP else {**wanted, "detector": backend}


def chosen_run(
    config: EvaluateConfig, settings: dict[str, Any], wanted: dict[str, Any]
) -> "Run | None":
    """Return the run that was asked for, else the env's own, else the latest with what is `wanted`.

    One that is asked for may be of other rows, but not of another detector.
    """
    from agents.runs import find_run, open_run

    if config.run:
        return open_run(config.run, wanted.get("detector"))
    if "run" in settings:
        return open_run(Path(settings["run"]))
    return find_run(config.runs, wanted)


def print_tables(name: str, figures: dict[str, Any]) -> None:
    """Print how the attacks in the env `name` went, and how the detectors score."""
    from agents.report import format_detection, format_table

    attacks = {
        f"{algo}, {when}": measures
        for when, by_algo in figures["env"].items()
        for algo, measures in by_algo.items()
    }
    print(format_table(f"in {name}", attacks), end="\n\n")
    print(format_detection("on held-out rows", figures["detection"]))


def both_scenarios(run: "Run") -> "tuple[dict[str, Scenario], np.ndarray, np.ndarray]":
    """Return a run's scenario before and after hardening, and held-out rows with their labels.

    The two differ in the detector alone: what was found in training is in the bank of both.
    """
    from envs.scenario import load_scenario

    X_test, y_test = run.held_out()
    hardened = load_scenario(str(run.folder))
    scenarios = {
        "before hardening": replace(hardened, detector=run.detector("unhardened")),
        "after hardening": hardened,
    }
    return scenarios, X_test, y_test


def default_scenario(
    settings: dict[str, Any],
) -> "tuple[dict[str, Scenario], np.ndarray, np.ndarray]":
    """Return the scenario of an env's settings, and the rows held out there with their labels."""
    from data import load, split
    from envs.core import make_core

    core = make_core(1, **settings)
    table = load(settings["data"], settings["label_column"])
    halves = split(table, settings["protocol"], settings["seed"])
    return {"unhardened": core.scenario}, halves.X_test, halves.y_test


def play(
    name: str, scenario: "Scenario", config: EvaluateConfig, run: "Run | None"
) -> dict[str, dict[str, float | None]]:
    """Let the run's agent, one that learns anew, and the controls play; return measures by name.

    The run's own agent as a rule met neither detector: it learned against those in between.
    """
    import gymnasium as gym

    from agents.agent import load_agent
    from agents.controls import Control
    from agents.rollout import Arena

    arena = Arena(gym.make_vec(name, N_LANES, scenario=scenario))
    measures = {}
    if run is not None:
        algo, agent = load_agent(run.folder / "policy", arena.env, config.seed)
        measures[algo] = arena.play(agent, config.episodes, config.seed)
        if config.timesteps and not isinstance(agent, Control):
            measures[f"{algo} anew"] = arena.play_anew(
                algo, config.timesteps, config.episodes, config.seed, progress=True
            )
    for algo in [name for name in arena.controls() if name not in measures]:
        measures[algo] = arena.play_control(algo, config.episodes, config.seed)
    return measures


if __name__ == "__main__":
    run_command(lambda: evaluate(tyro.cli(EvaluateConfig)))
