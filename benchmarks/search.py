"""What learning agents find against frozen hardened detectors, beside the random policy.

python -m benchmarks.search --data FOLDER
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import pandas as pd
import tyro
from tqdm import tqdm

from benchmarks.settings import check_data
from common.command import run_command
from common.errors import InputError, check_at_least, reason
from common.files import read_json, write_json
from common.names import check_names

if TYPE_CHECKING:
    from benchmarks.grid import Source

FOUND = ["bypasses", "successes"]
RANDOM = "random"


@dataclass(frozen=True)
class SearchSettings:
    """Harden each detector on each set, freeze it, and let each algorithm attack it.

    Finished sets are kept in the output folder and never run again.

    Attributes:
        data: folders of .npz files (X, y), files, adbench:NAME, or built-in sets.
        detectors: ids of detector backends.
        algos: names that `--algo` of train.py takes, compared with the random policy.
        protocol: full, few or unseen.
        timesteps: env steps of an attack, those of learning included.
        seed: of the split, of hardening and of the attacks.
        workers: processes at once, of one thread each.
        out: folder for the counts and the table.
    """

    data: tuple[str, ...]
    detectors: tuple[str, ...] = ("mamba-moe", "extra-trees", "catboost")
    algos: tuple[str, ...] = ("ppo",)
    protocol: str = "unseen"
    timesteps: int = 40_000
    seed: int = 0
    workers: int = 2
    out: Path = Path("results/search")

    def check(self) -> None:
        """Raise `InputError` where a name is unknown or a number is out of range."""
        import benchmarks.methods  # noqa: F401  registers backends
        import detectors
        from agents.algorithms import load_algorithm
        from data import PROTOCOLS

        check_data(self.data)
        for algo in self.algos:
            load_algorithm(algo)
        for detector in self.detectors:
            detectors.make(detector)
        check_names("protocol", [self.protocol], PROTOCOLS)
        check_at_least(self, timesteps=1, seed=0, workers=1)


def search(settings: SearchSettings) -> pd.DataFrame:
    """Run what is missing; print and write the table of `summarise`."""
    from benchmarks.grid import find_sets
    from benchmarks.processes import in_processes
    from benchmarks.tables import markdown, write_text

    settings.check()
    cells = [
        (name, source, detector)
        for name, source in find_sets(settings.data, settings.out).items()
        for detector in dict.fromkeys(settings.detectors)
    ]
    jobs = (joblib.delayed(kept_or_run)(settings, *cell) for cell in cells)
    results = tqdm(in_processes(jobs, settings.workers), total=len(cells), unit="cell")
    records = [record for cell in results for record in cell]
    failed = [record for record in records if "error" in record]
    attacks = [record for record in records if "error" not in record]
    if not attacks:
        raise InputError(f"No detector was attacked: {failed[0]['error']}")
    table = summarise(pd.DataFrame(attacks))
    lines = [f"- {record['set']}, {record['detector']}: {record['error']}" for record in failed]
    title = f"{settings.protocol}, {settings.timesteps} queries an attack"
    text = "\n\n".join([title, markdown(table), *lines])
    write_text(text, settings.out / "search.md")
    print(text)
    return table


def kept_or_run(
    settings: SearchSettings, name: str, source: "Source", detector: str
) -> list[dict[str, Any]]:
    """Return the records of a cell, from its file or else by running it.

    A set that cannot be split or fitted gives a record of its error, and so does an algorithm that
    cannot attack the detector; these are not kept.
    """
    from benchmarks.threads import single_thread

    asked = dict.fromkeys((RANDOM, *settings.algos))
    attack = f"{settings.protocol}-{settings.timesteps}-{settings.seed}"
    file = settings.out / "cells" / detector / f"{name}-{attack}.json"
    records: list[dict[str, Any]] = read_json(file) if file.exists() else []
    left = [algo for algo in asked if algo not in {record["algo"] for record in records}]
    failed = []
    if left:
        with single_thread():
            new = run(settings, name, source, detector, left)
        failed = [record for record in new if "error" in record]
        records += [record for record in new if "error" not in record]
        if len(failed) < len(new):
            write_json(file, records)
    return [record for record in records if record["algo"] in asked] + failed


def run(
    settings: SearchSettings, name: str, source: "Source", detector: str, algos: list[str]
) -> list[dict[str, Any]]:
    """Harden, freeze and attack; return one record an algorithm: its counts, or its error."""
    import benchmarks.methods  # noqa: F401  registers backends
    from agents.agent import make_agent
    from agents.hardening import harden
    from agents.monitor import SearchMonitor
    from agents.settings import HardeningSettings
    from benchmarks.grid import split
    from common.randomness import global_seed
    from envs.sb3 import SB3VecEnv
    from envs.vector import LatentAnomalyVectorEnv

    cell = {"set": name, "detector": detector}
    loop = HardeningSettings(detector=detector)
    try:
        halves = split(source, settings.protocol, settings.seed)
        hardened = harden(halves.X_train, halves.y_train, loop, settings.seed)
    except Exception as error:
        return [{**cell, "error": reason(error)}]
    records = []
    for algo in algos:
        env = LatentAnomalyVectorEnv(loop.n_lanes, scenario=hardened.scenario)
        monitor = SearchMonitor(env)
        try:
            agent = make_agent(algo, SB3VecEnv(monitor), settings.seed)
            with global_seed(settings.seed):
                agent.learn(settings.timesteps, reset_num_timesteps=True)
        except Exception as error:
            records.append({**cell, "error": reason(error)})
        else:
            records.append({**cell, "algo": algo, **asdict(monitor.counts)})
    return records


def summarise(records: pd.DataFrame) -> pd.DataFrame:
    """Return what each algorithm finds per 1,000 queries, and its ratio to the random policy.

    A ratio is the median over the sets on which the random policy finds any. A query is a step;
    "starts counted" is the ratio of successes per row that the detector scored, those that episodes
    start from among them, of which whoever succeeds soon has more.

    Args:
        records: one row a set, detector and algorithm.
    """
    rates = {f"{name} per 1000": 1000 * records[name] / records["queries"] for name in FOUND}
    scored = records["queries"] + records["episodes"]
    records = records.assign(**rates, scored=records["successes"] / scored)
    rows = {}
    for (detector, algo), part in records.groupby(["detector", "algo"]):
        chance = records[(records["detector"] == detector) & (records["algo"] == RANDOM)]
        row: dict[str, float] = {"sets": len(part)}
        for name in FOUND:
            column = f"{name} per 1000"
            row[column] = part[column].mean()
            row[f"{name}, times random's"] = median_ratio(part, chance, column)
        row["starts counted"] = median_ratio(part, chance, "scored")
        rows[f"{detector}, {algo}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def median_ratio(records: pd.DataFrame, chance: pd.DataFrame, column: str) -> float:
    """Return the median ratio of a column to that of `chance`, over sets where that is not 0.

    NaN where there are none; sets that only one of them attacked are left out.
    """
    found, by_chance = (table.set_index("set")[column] for table in (records, chance))
    found, by_chance = found.align(by_chance, join="inner")
    return (found / by_chance)[by_chance > 0].median()


if __name__ == "__main__":
    run_command(lambda: search(tyro.cli(SearchSettings)))
