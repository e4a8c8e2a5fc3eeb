"""Compare algorithms of search: what each finds a query, how long it takes, what it is good for.

python -m benchmarks.algorithms --methods ppo sac random
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import tyro

from agents.algorithms import ALGORITHMS, load_algorithm
from benchmarks.settings import GridSettings
from common.command import run_command

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class AlgorithmSettings(GridSettings):
    """Compare algorithms of search on the same rows, generator and starting detector.

    Finished cells are kept in the output folder and never run again; failed ones are.

    Attributes:
        data: folders of .npz files (X, y), files, adbench:NAME, or built-in sets.
        methods: names that `--algo` of train.py takes; by default all that it lists.
        protocols: full, few, unseen: which training anomalies are labelled.
    """

    data: tuple[str, ...] = ("digits", "adbench:12_fault", "adbench:18_Ionosphere")
    protocols: tuple[str, ...] = ("unseen",)


def compare(settings: AlgorithmSettings) -> None:
    """Run what is missing; write and print a table a set.

    Raises:
        InputError: an algorithm, a set or a setting cannot be used.
    """
    from benchmarks.grid import run_grid
    from benchmarks.methods import hydra
    from benchmarks.tables import coverage, failures, markdown, write_text

    algos = settings.methods or tuple(ALGORITHMS)
    for algo in algos:
        load_algorithm(algo)
    results = run_grid(settings, {algo: partial(hydra, agent=algo) for algo in algos})
    done = results[results["error"] == ""]
    sections = [
        f"## {name}, {protocol}\n\n{coverage(cells)}\n\n{markdown(summarise(cells), 'algorithm')}\n"
        for (name, protocol), cells in done.groupby(["set", "protocol"], sort=False)
    ]
    text = "\n".join([*sections, failures(results)])
    write_text(text, settings.out / "algorithms.md")
    print(text)


def summarise(cells: "pd.DataFrame") -> "pd.DataFrame":
    """Return what each method found a query, its times, and mean AUROC before and after.

    Args:
        cells: finished cells of one set and protocol; seeds that a method lacks do not count.
    """
    import pandas as pd

    from benchmarks.tables import comparable, rates, times

    cells = comparable(cells)
    means = cells.groupby("method")[["auroc_unhardened", "auroc"]].mean()
    means.columns = pd.Index(["AUROC before", "AUROC after"])
    return pd.DataFrame(rates(cells) | times(cells)).join(means)


if __name__ == "__main__":
    run_command(lambda: compare(tyro.cli(AlgorithmSettings, description=__doc__)))
