"""Attack a detector in an env, and score it on held-out rows before and after hardening.

python evaluate.py --env-id LatentAnomaly-v0
python evaluate.py --compare runs/first runs/second
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import detectors
from common.errors import check_at_least, run_command
from common.files import check_file, write_json
from common.registry import load_plugins
from envs import FLAGSHIP, env_id

if TYPE_CHECKING:
    from agents.runs import Run

N_LANES = 64
DEFAULT_DATA = "digits"
DEFAULT_PROTOCOL = "unseen"
ENV_IDS = [FLAGSHIP, *map(env_id, detectors.ids()), "LatentAnomaly/<detector>-v0", "module:id"]


@dataclass(frozen=True)
class EvaluateConfig:
    """Attack a detector in an env, and score it on held-out rows before and after hardening.

    Attributes:
        env_id: a registered env id, or module:id to import a module first.
        run: folder of a run written by train.py; by default the latest in `runs` that fits.
        runs: folder that run folders are looked for in.
        episodes: episodes that each algorithm plays at least.
        seed: of the episodes.
        json: file to write the figures to, the time that scoring takes among them.
        compare: two run folders or more to put side by side, instead of attacking one.
        plugin: modules to import first, which register detectors or generators of their own.
    """

    env_id: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(ENV_IDS) + "}")] = FLAGSHIP
    run: Path | None = None
    runs: Path = Path("runs")
    episodes: int = 512
    seed: int = 0
    json: Path | None = None
    compare: tuple[Path, ...] = ()
    plugin: tuple[str, ...] = ()


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Print the tables and return their figures."""
    check_at_least(config, episodes=1, seed=0)
    if config.json is not None:
        check_file(config.json, "--json")
    load_plugins(config.plugin)
    figures = compared(config.compare) if config.compare else attacked(config)
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
    """Attack a run's detector, or the default one; print two tables and return their figures."""
    from agents.report import DETECTION_COLUMNS, ROLLOUT_COLUMNS, format_table
    from agents.runs import find_run, open_run
    from envs.registration import find_env

    name, backend = find_env(config.env_id)
    wanted = None if name == FLAGSHIP else backend
    run = open_run(config.run, wanted) if config.run else find_run(config.runs, wanted)
    if run is None:
        kind = "run" if wanted is None else f"run of {wanted}"
        print(f"No {kind} in {config.runs}: playing the controls on {DEFAULT_DATA}, unhardened.\n")
    else:
        run.check_backend()
        print(f"Run {run.folder}\n")
    figures: dict[str, Any] = {
        "run": None if run is None else str(run.folder),
        "env": play(name, config, run),
        "detection": detection(backend, run),
    }
    print(format_table(f"in {name}", figures["env"], ROLLOUT_COLUMNS), end="\n\n")
    print(format_table("on held-out rows", figures["detection"], DETECTION_COLUMNS))
    return figures


def play(
    name: str, config: EvaluateConfig, run: "Run | None"
) -> dict[str, dict[str, float | None]]:
    """Let the run's agent and the controls play; return their measures by name."""
    import gymnasium as gym

    from agents.agent import load_agent
    from agents.rollout import Arena

    where: dict[str, Any] = (
        {"data": DEFAULT_DATA, "protocol": DEFAULT_PROTOCOL}
        if run is None
        else {"run": str(run.folder)}
    )
    arena = Arena(gym.make_vec(name, N_LANES, **where))
    measures = {}
    if run is not None:
        algo, agent = load_agent(run.folder / "policy", arena.env, config.seed)
        measures[algo] = arena.play(agent, config.episodes, config.seed)
    for algo in arena.controls():
        measures[algo] = arena.play_control(algo, config.episodes, config.seed)
    return measures


def detection(backend: str, run: "Run | None") -> dict[str, dict[str, float]]:
    """Score held-out rows with the run's detectors, or with the default env's."""
    from agents.report import detection_metrics
    from data import load, split
    from envs.core import make_core

    if run is not None:
        rows = run.rows()
        return {
            name: detection_metrics(detector, rows["X_test"], rows["y_test"])
            for name, detector in run.detectors().items()
        }
    halves = split(load(DEFAULT_DATA), DEFAULT_PROTOCOL, 0)
    detector = make_core(1, data=DEFAULT_DATA, protocol=DEFAULT_PROTOCOL, detector=backend).detector
    return {"unhardened": detection_metrics(detector, halves.X_test, halves.y_test)}


def main() -> None:
    """Evaluate with the arguments of the command line."""
    evaluate(tyro.cli(EvaluateConfig))


if __name__ == "__main__":
    run_command(main)
