"""Compare methods on the same rows: known, few-label and unseen anomalies.

python -m benchmarks.accuracy --data FOLDER --methods swift-hydra catboost knn --out results
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from common.errors import InputError, run_command
from data import PROTOCOLS

REFERENCE = "swift-hydra"


@dataclass(frozen=True)
class AccuracyConfig:
    """Compare methods on the same rows: known, few-label and unseen anomalies.

    Finished cells are kept in the output folder and never run again; failed ones are.

    Attributes:
        data: folders of .npz files (X, y), files, adbench:NAME, or built-in sets.
        methods: names of methods; by default all, ours and the peers.
        protocols: full, few, unseen: which training anomalies are labelled.
        seeds: of the split and the method.
        workers: processes at once, of one thread each.
        out: folder for cells, results.csv and results.md.
        tables_only: run nothing; write the tables of what is finished.
    """

    data: tuple[str, ...]
    methods: tuple[str, ...] = ()
    protocols: tuple[str, ...] = PROTOCOLS
    seeds: tuple[int, ...] = (0, 1, 2)
    workers: int = 2
    out: Path = Path("results")
    tables_only: bool = False


def run(config: AccuracyConfig) -> None:
    """Run what is missing; write and print the tables."""
    from benchmarks.grid import find_sets, read_results, run_grid, write_csv
    from benchmarks.methods import METHODS, find_methods
    from benchmarks.tables import report, write_report

    methods = find_methods(config.methods or tuple(METHODS), METHODS)
    if not config.tables_only:
        sets = find_sets(config.data)
        run_grid(sets, config.protocols, config.seeds, methods, config.out, config.workers)
    results = read_results(config.out)
    write_csv(results, config.out / "results.csv")
    against = {f"p v. {REFERENCE}": dict.fromkeys(methods, REFERENCE)}
    text = report(results, list(methods), against)
    write_report(text, config.out / "results.md")
    print(text)


def main() -> None:
    """Compare with the arguments of the command line."""
    run(tyro.cli(AccuracyConfig))


if __name__ == "__main__":
    run_command(main)
