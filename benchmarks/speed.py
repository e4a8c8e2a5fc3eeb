"""Measure speed beside peers: scoring, number of experts, the environment, training, start-up.

python -m benchmarks.speed --parts scoring env
"""

import os
import platform
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from benchmarks.settings import check_seeds
from common.command import run_command
from common.errors import InputError, check_at_least
from common.files import replacing
from common.names import check_names

if TYPE_CHECKING:
    import pandas as pd

ONE_THREAD = dict.fromkeys(
    ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"], "1"
)
SCORED = (
    *("mamba-moe", "mamba-moe-hardened", "mamba-moe-onnx", "mamba", "extra-trees", "catboost"),
    *("xgboost", "lightgbm", "knn", "iforest", "transformer", "perceptron"),
)
ATTACKED = ("mamba-moe", "unhardened-extra-trees")
TRAINED = ("mamba-moe", "catboost")
SIZES = [(rows, 32) for rows in (1000, 4000, 16_000, 64_000)]
WIDTHS = [(1000, columns) for columns in (8, 128, 1024)]


@dataclass(frozen=True)
class Case:
    """One measurement: its part and name, one of `stopwatch.TASKS`, and that task's settings."""

    part: str
    name: str
    task: str
    settings: dict[str, Any]


def lanes(detector: str, n_lanes: int, native: bool = True) -> Case:
    """Return the case of so many lanes, in one native env or as single envs in a loop."""
    name = f"{detector}, {n_lanes} {'lanes' if native else 'envs in a loop'}"
    settings = {"detector": detector, "n_lanes": n_lanes, "native": native}
    return Case("env", name, "lanes", settings)


CASES = [
    *(Case("scoring", method, "score", {"method": method}) for method in SCORED),
    *(Case("experts", f"{n} experts", "experts", {"n_experts": n}) for n in (2, 4, 8, 16, 32)),
    *(lanes(detector, n) for detector in ATTACKED for n in (1, 16, 256)),
    *(lanes(detector, 256, native=False) for detector in ATTACKED),
    *(Case("env", f"{name}, PPO", "search", {"detector": name}) for name in ATTACKED),
    *(
        Case(
            "training",
            f"{method}, {rows} x {columns}",
            "train",
            {"method": method, "n_rows": rows, "n_features": columns},
        )
        for rows, columns in [*SIZES, *WIDTHS]
        for method in TRAINED
    ),
    *(
        Case("startup", " ".join(arguments), "start", {"arguments": arguments})
        for arguments in (["evaluate.py", "--help"], ["train.py", "--help"], ["-c", "import torch"])
    ),
]
PARTS = tuple(dict.fromkeys(case.part for case in CASES))


@dataclass(frozen=True)
class SpeedSettings:
    """Measure speed beside peers, each measurement in a process of its own on one thread.

    Attributes:
        parts: scoring, experts, env, training, startup.
        cases: names of single cases; by default all of the parts.
        rounds: measurements of each case, one after the other's; medians are taken over them.
        seed: of the rows and the models.
        out: folder for a CSV file and a table of each part.
    """

    parts: tuple[str, ...] = PARTS
    cases: tuple[str, ...] = ()
    rounds: int = 5
    seed: int = 0
    out: Path = Path("results")

    def chosen(self) -> list[Case]:
        """Return the cases to measure; raise `InputError` where there are none."""
        check_names("part", self.parts, PARTS)
        check_names("case", self.cases, [case.name for case in CASES])
        check_at_least(self, rounds=1)
        check_seeds((self.seed,))
        chosen = [
            case
            for case in CASES
            if case.part in self.parts and (not self.cases or case.name in self.cases)
        ]
        if not chosen:
            raise InputError(f"No case of --cases is of the part {', '.join(self.parts)}.")
        return chosen


def compare(settings: SpeedSettings) -> None:
    """Measure all cases, then all again, so that a busy spell of the machine hits all alike.

    The tables are written after each round, and printed after the last.
    """
    import pandas as pd

    from benchmarks.tables import write_text

    cases, rounds = settings.chosen(), []
    settings.out.mkdir(parents=True, exist_ok=True)
    for number in range(settings.rounds):
        rounds.append(run(cases, number, settings.seed))
        records = pd.concat(rounds)
        for part, rows in records.groupby("part"):
            with replacing(settings.out / f"speed-{part}.csv") as temporary:
                rows.to_csv(temporary, index=False)
            write_text(report(rows), settings.out / f"speed-{part}.md")
    print(report(records))


def run(cases: Sequence[Case], number: int, seed: int) -> "pd.DataFrame":
    """Measure each case in a process of its own.

    Args:
        cases: what to measure.
        number: of the round.
        seed: of the rows and the models.

    Returns:
        one row a figure: part, case, round, figure, value.

    Raises:
        InputError: a process was killed.
    """
    import pandas as pd
    from tqdm import tqdm

    from benchmarks.stopwatch import measure

    records = []
    with (
        ProcessPoolExecutor(1, get_context("spawn"), limit_threads, max_tasks_per_child=1) as pool,
        tqdm(cases, f"round {number + 1}", unit="measurement") as bar,
    ):
        for case in bar:
            try:
                figures = pool.submit(measure, case.task, seed, case.settings).result()
            except BrokenProcessPool as error:
                raise InputError(
                    f"The process that measured {case.name} was killed, as happens when memory runs"
                    " out; leave the case out with --cases."
                ) from error
            first, value = next(iter(figures.items()))
            bar.set_postfix({"case": case.name, first: f"{value:.3g}"})
            records += [(case.part, case.name, number, *figure) for figure in figures.items()]
    return pd.DataFrame(records, columns=["part", "case", "round", "figure", "value"])


def limit_threads() -> None:
    """Tell the libraries that the measurement imports to start one thread each."""
    os.environ.update(ONE_THREAD)


def report(records: "pd.DataFrame") -> str:
    """Write a table of medians for each part, with times as multiples of the first case's."""
    from benchmarks.tables import markdown

    sections = []
    for part, rows in records.groupby("part", sort=False):
        cells = rows.groupby(["case", "figure"], sort=False)["value"].median().unstack(sort=False)
        first = cells.columns[0]
        cells.insert(1, f"v. {cells.index[0]}", cells[first] / cells[first].iloc[0])
        sections.append(f"## {part}\n\n{markdown(cells, 'case')}\n")
    return "\n".join([described(records), *sections])


def described(records: "pd.DataFrame") -> str:
    """Say what the figures are and what they were measured on."""
    import torch

    return (
        f"Medians of {records['round'].nunique()} processes of one thread each, taken in turns."
        f" {platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}.\n"
    )


if __name__ == "__main__":
    run_command(lambda: compare(tyro.cli(SpeedSettings, description=__doc__)))
