"""Runs every cell (set, protocol, seed, method) of a grid once, and keeps what is finished.

A finished cell is a JSON file in the output folder, so a killed run loses at most the cells that
its workers were at, a further run adds what is missing, and two runs may share a folder.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score
from tqdm import tqdm

import data
from agents.monitor import TOTALS, totals
from benchmarks.methods import Factory, Method, find_methods
from benchmarks.processes import in_processes
from benchmarks.settings import GridSettings
from benchmarks.threads import single_thread
from common.errors import InputError, reason
from common.files import read_json, replacing, write_json
from common.names import check_names
from data.adbench import PREFIX
from data.protocols import MAX_ROWS

KEY = ["set", "protocol", "seed", "method"]
COLUMNS = [
    *KEY,
    "auroc",
    "average_precision",
    "auroc_unhardened",
    "fit_seconds",
    "microseconds_a_row",
    "n_train",
    "n_test",
    "error",
    *TOTALS,
]


class Source(NamedTuple):
    """Where a set is, as `data.load` takes it, and the digest of its rows."""

    path: str
    digest: str


@dataclass(frozen=True)
class Cell:
    """One fit and its scores: the set's name and source, protocol, seed and method."""

    set: str
    source: Source
    protocol: str
    seed: int
    method: str

    def file(self, folder: Path) -> Path:
        """Return where the finished cell is kept."""
        return folder / "cells" / self.method / f"{self.set}-{self.protocol}-{self.seed}.json"

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What tells the cell from others, in the order of `KEY`."""
        return self.set, self.protocol, self.seed, self.method


def find_sets(sources: Sequence[str], out: Path, read_only: bool = False) -> dict[str, Source]:
    """Name the sets of `sources`, cheapest first; a folder stands for its .npz files.

    A digest of their rows is kept in the folder `out`, unless that is `read_only`.

    Raises:
        InputError: a source cannot be loaded, a folder holds no set, a name cannot be one of a
            file here, two have the same, or the folder `out` keeps results of other rows under it.
    """
    cost: dict[str, int] = {}
    sets: dict[str, Source] = {}
    for source in sources:
        files = sorted(Path(source).glob("[!.]*.npz")) if Path(source).is_dir() else [source]
        if not files:
            raise InputError(f"{source} holds no .npz file; name a folder that does.")
        for file in map(str, files):
            table = data.load(file)
            name = table.name.removeprefix(PREFIX) if file.startswith(PREFIX) else Path(file).stem
            if not is_plain(name):
                raise InputError(f"Results cannot be kept under the name of {file}; rename it.")
            first = sets.setdefault(name, Source(file, digest(table))).path
            if Path(first).resolve() != Path(file).resolve():
                raise InputError(f"{first} and {file} are both called {name}; rename one.")
            cost[name] = min(len(table.y), MAX_ROWS) * table.X.shape[1]
    check_digests(sets, out)
    if not read_only:
        for name, found in sets.items():
            write_json(digest_file(out, name), found.digest)
    return {name: sets[name] for name in sorted(sets, key=cost.__getitem__)}


def is_plain(name: str) -> bool:
    """Tell whether a name is one of a visible file and of text."""
    return not name.startswith(".") and name.isprintable()


def digest(table: data.Table) -> str:
    """Return what tells a table's rows and labels from others."""
    return sha256(table.X.tobytes() + table.y.tobytes()).hexdigest()


def check_digests(sets: Mapping[str, Source], out: Path) -> None:
    """Raise `InputError` where the folder `out` keeps results of other rows of the same name."""
    for name, source in sets.items():
        file = digest_file(out, name)
        changed = file.exists() and read_json(file) != source.digest
        if changed and any(map(is_finished, cells_of(name, out))):
            raise InputError(
                f"{out} keeps results of other rows called {name}; rename the set, or pass another"
                " --out."
            )


def cells_of(name: str, out: Path) -> list[Path]:
    """Return the files of a set's cells, of whatever method; of `a-b` none is one of `a`."""
    form = re.compile(rf"{re.escape(name)}-({'|'.join(data.PROTOCOLS)})-[\d-]+\.json")
    return [file for file in out.glob("cells/*/*.json") if form.fullmatch(file.name)]


def digest_file(out: Path, name: str) -> Path:
    """Return where the digest of a set's rows is kept."""
    return out / "sets" / f"{name}.json"


def is_finished(file: Path) -> bool:
    """Tell whether a file of a cell keeps more than an error."""
    kept = read_json(file)
    return isinstance(kept, list) or not kept["error"]


def run_grid(settings: GridSettings, table: Mapping[str, Factory]) -> pd.DataFrame:
    """Run the chosen cells that are not finished, all sets of a seed before the next seed.

    A cell that failed is kept with its error, and is tried again by the next run. `results.csv`
    gets all that the folder keeps, from further runs too.

    Args:
        settings: what to run.
        table: makes each method from a seed, by name.

    Returns:
        the chosen cells that ran, one row each, failed ones included.

    Raises:
        InputError: a setting, a method or a source cannot be used, or there is no cell to return.
    """
    settings.check()
    names = settings.methods or tuple(table)
    check_names("method", names, table)
    methods = {} if settings.tables_only else find_methods(names, table)
    sets = find_sets(settings.data, settings.out, read_only=settings.tables_only)
    if not settings.tables_only:
        cells = [
            Cell(name, source, protocol, seed, method)
            for seed in dict.fromkeys(settings.seeds)
            for name, source in sets.items()
            for protocol in dict.fromkeys(settings.protocols)
            for method in methods
        ]
        run_cells(cells, methods, settings.out, settings.workers)
    kept = read_results(settings.out)
    chosen = kept["method"].isin(names) & kept["protocol"].isin(settings.protocols)
    chosen &= kept["seed"].isin(settings.seeds)
    if sets:
        chosen &= kept["set"].isin(sets)
    if not chosen.any():
        raise InputError(f"{settings.out} holds none of these cells; run without --tables-only.")
    with replacing(settings.out / "results.csv") as temporary:
        kept.to_csv(temporary, index=False)
    return kept[chosen]


def run_cells(
    cells: Sequence[Cell], methods: Mapping[str, Factory], folder: Path, workers: int
) -> None:
    """Run the cells that are not finished, in their order."""
    kept = read_results(folder)
    finished = kept[kept["error"] == ""].set_index(KEY)["auroc"].to_dict()
    left = [cell for cell in cells if cell.key not in finished]
    done = [{"auroc": finished[cell.key], "error": ""} for cell in cells if cell.key in finished]
    jobs = (joblib.delayed(run_cell)(cell, methods[cell.method], folder) for cell in left)
    with tqdm(total=len(cells), initial=len(done), unit="cell") as bar:
        for result in in_processes(jobs, workers):
            done.append(result)
            show(bar, done)


def show(bar: tqdm, results: Sequence[Mapping[str, Any]]) -> None:
    """Advance the bar; show the mean AUROC so far and the failures."""
    scores = [result["auroc"] for result in results if not result["error"]]
    mean = f"{np.mean(scores):.4f}" if scores else "-"
    bar.set_postfix(auroc=mean, failed=len(results) - len(scores), refresh=False)
    bar.update()


def run_cell(cell: Cell, factory: Factory, folder: Path) -> dict[str, Any]:
    """Fit and score on one thread, and write the result or the error."""
    key = dict(zip(KEY, cell.key, strict=True))
    try:
        with single_thread():
            result = {**key, **figures(cell, factory), "error": ""}
    except Exception as error:
        result = {**key, "error": reason(error)}
    write_json(cell.file(folder), result)
    return result


def figures(cell: Cell, factory: Factory) -> dict[str, Any]:
    """Fit on the training rows and score the test rows; times are CPU time."""
    halves = split(cell.source, cell.protocol, cell.seed)
    method, started = factory(cell.seed), process_time()
    method.fit(halves.X_train.copy(), halves.y_train.copy())
    fitted = process_time()
    scores = method.decision_function(halves.X_test.copy())
    scored = process_time()
    return {
        "auroc": float(roc_auc_score(halves.y_test, scores)),
        "average_precision": float(average_precision_score(halves.y_test, scores)),
        "fit_seconds": fitted - started,
        "microseconds_a_row": 1e6 * (scored - fitted) / len(scores),
        "n_train": len(halves.y_train),
        "n_test": len(halves.y_test),
        **unhardened(method, halves),
        **search_totals(method),
    }


def unhardened(method: Method, halves: data.Split) -> dict[str, float]:
    """Score the detector that a method has hardened as it was before; nothing if it has none."""
    if not hasattr(method, "unhardened_"):
        return {}
    scores = method.unhardened_.decision_function(halves.X_test)
    return {"auroc_unhardened": float(roc_auc_score(halves.y_test, scores))}


def search_totals(method: Method) -> dict[str, float]:
    """Sum over the rounds of hardening what the search asked and found; nothing where none ran."""
    rounds = getattr(method, "history_", [])
    return totals(rounds) if rounds else {}


@lru_cache(maxsize=4)
def split(source: Source, protocol: str, seed: int) -> data.Split:
    """Load and split a set; the methods of a set follow one another, so few are kept.

    Raises:
        InputError: the rows are no longer those that were found.
    """
    table = data.load(source.path)
    if digest(table) != source.digest:
        raise InputError(
            f"{source.path} has changed since the run began; restore it, or pass another --out."
        )
    return data.split(table, protocol, seed)


def read_results(folder: Path) -> pd.DataFrame:
    """Read every kept cell of a folder, failed ones included, in the order of their keys.

    What `benchmarks.search` keeps in the same folder are lists.
    """
    files = sorted((folder / "cells").glob("*/[!.]*.json"))
    cells = [kept for kept in map(read_json, files) if isinstance(kept, dict)]
    results = pd.DataFrame(cells, columns=COLUMNS)
    results = results.astype({"auroc_unhardened": float})  # no figure at all has no type
    return results.sort_values(KEY, ignore_index=True)
