"""What the benchmarks' command lines have in common."""

from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError, check_at_least
from common.names import check_names


@dataclass(frozen=True)
class GridSettings:
    """Which cells to run.

    Finished cells are kept in the output folder and never run again; failed ones are.

    Attributes:
        data: folders of .npz files (X, y), files, adbench:NAME, or built-in sets.
        methods: names of methods; by default all.
        protocols: full, few, unseen: which training anomalies are labelled.
        seeds: of the split and the method.
        workers: processes at once, of one thread each.
        out: folder for the cells, results.csv and the tables.
        tables_only: run nothing; write the tables of what is finished on these data.
    """

    data: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ("full", "few", "unseen")
    seeds: tuple[int, ...] = (0, 1, 2)
    workers: int = 2
    out: Path = Path("results")
    tables_only: bool = False

    def check(self) -> None:
        """Raise `InputError` where there is nothing to run or a value is out of range."""
        from data import PROTOCOLS

        if not self.tables_only:
            check_data(self.data)
        check_names("protocol", self.protocols, PROTOCOLS)
        check_at_least(self, workers=1)
        check_seeds(self.seeds)


def check_seeds(seeds: tuple[int, ...]) -> None:
    """Raise `InputError` where a seed is none that scikit-learn takes."""
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise InputError(f"A seed is {seed}; give at least 0 and below 2**32.")


def check_data(sources: tuple[str, ...]) -> None:
    """Raise `InputError` where there are no sources."""
    if not sources:
        raise InputError("There is no data; name a folder of .npz files or a set with --data.")
