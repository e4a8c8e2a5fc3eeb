"""Compare algorithms of search: what each finds a query, how long it takes, what it is good for.

python -m benchmarks.algorithms --algos ppo sac random
"""

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from tqdm import tqdm

import detectors
from agents.algorithms import ALGORITHMS, find_algorithm
from benchmarks.settings import check_data
from common.command import run_command
from common.errors import check_at_least
from common.files import check_file, write_json
from common.names import check_names

if TYPE_CHECKING:
    from data import Split

COLUMNS = ("bypasses_per_1000", "successes_per_1000", "seconds", "auroc_before", "auroc_after")


@dataclass(frozen=True)
class AlgorithmSettings:
    """Compare algorithms of search on the same rows, generator and starting detector.

    Attributes:
        algos: names that `--algo` of train.py takes; `gradient` only with a differentiable
            detector.
        data: sources of rows, as `--data` of train.py.
        protocol: full, few or unseen.
        detector: id of the detector backend that is attacked and hardened.
        rounds: rounds of search and retraining.
        timesteps: env steps a round.
        seeds: number of seeds, from 0 up.
        out: file that the figures are written to, as JSON.
    """

    algos: tuple[str, ...] = tuple(ALGORITHMS)
    data: tuple[str, ...] = ("digits", "adbench:12_fault", "adbench:18_Ionosphere")
    protocol: str = "unseen"
    detector: str = "mamba-moe"
    rounds: int = 4
    timesteps: int = 10_000
    seeds: int = 3
    out: Path = Path("runs/algorithms.json")


def compare(settings: AlgorithmSettings) -> list[dict[str, Any]]:
    """Run the loop with every algorithm on every set and seed; print a table a set.

    Returns:
        one record a run: its algorithm, set and seed, and the figures of `COLUMNS`.

    Raises:
        InputError: an unknown algorithm, set, protocol or detector.
    """
    from agents.report import format_table
    from data import PROTOCOLS, load, split

    check_data(settings.data)
    check_file(settings.out, "--out")
    check_names("protocol", [settings.protocol], PROTOCOLS)
    check_at_least(settings, rounds=1, timesteps=1, seeds=1)
    for algo in settings.algos:
        find_algorithm(algo)
    detectors.make(settings.detector)
    tables = {source: load(source) for source in settings.data}
    halves = {
        (source, seed): split(table, settings.protocol, seed)
        for source, table in tables.items()
        for seed in range(settings.seeds)
    }
    records = []
    bar = tqdm([(key, algo) for key in halves for algo in settings.algos], unit="run")
    for (source, seed), algo in bar:
        figures = measure(halves[source, seed], algo, seed, settings)
        records.append({"data": source, "algo": algo, "seed": seed, **figures})
        bar.set_postfix(algo=algo, auroc=f"{records[-1]['auroc_after']:.3f}")
        write_json(settings.out, {"settings": described(settings), "runs": records})
    for source in tables:
        here = [record for record in records if record["data"] == source]
        print(format_table(f"{source}, {settings.protocol}", means(here), COLUMNS), end="\n\n")
    return records


def measure(halves: "Split", algo: str, seed: int, settings: AlgorithmSettings) -> dict[str, float]:
    """Harden on one half of a set with one algorithm and seed, and score the other.

    `seconds` is the wall-clock time of the whole loop. Bypasses and successes are counted over all
    queries of the search, those of learning included.
    """
    from sklearn.metrics import roc_auc_score

    from agents.hardening import harden
    from agents.monitor import totals
    from agents.settings import HardeningSettings

    loop = HardeningSettings(
        detector=settings.detector, algo=algo, rounds=settings.rounds, timesteps=settings.timesteps
    )
    started = perf_counter()
    hardened = harden(halves.X_train, halves.y_train, loop, seed)
    seconds = perf_counter() - started
    total = totals(hardened.history)
    before, after = (
        float(roc_auc_score(halves.y_test, detector.decision_function(halves.X_test)))
        for detector in (hardened.unhardened, hardened.scenario.detector)
    )
    return {
        "bypasses_per_1000": 1000 * total["bypasses"] / total["queries"],
        "successes_per_1000": 1000 * total["successes"] / total["queries"],
        "seconds": seconds,
        "auroc_before": before,
        "auroc_after": after,
    }


def means(records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Average the runs of each algorithm over seeds."""
    by_algo = defaultdict(list)
    for record in records:
        by_algo[record["algo"]].append(record)
    return {
        algo: {name: float(np.mean([run[name] for run in runs])) for name in COLUMNS}
        for algo, runs in by_algo.items()
    }


def described(settings: AlgorithmSettings) -> dict[str, Any]:
    """Return the settings as plain JSON."""
    return {**asdict(settings), "out": str(settings.out)}


def main() -> None:
    """Compare with the arguments of the command line."""
    compare(tyro.cli(AlgorithmSettings))


if __name__ == "__main__":
    run_command(main)
