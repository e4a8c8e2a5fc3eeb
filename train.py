"""Harden a detector on a table and keep everything in a run folder.

python train.py --data my.csv --label-column fraud --protocol full
"""

import re
import shlex
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

import detectors
import generators
from agents.algorithms import ALGORITHMS
from agents.settings import HardeningSettings
from common.command import choice, run_command
from common.errors import check_at_least
from common.files import check_folder, scratch_folder
from common.imports import load_plugins

if TYPE_CHECKING:
    from agents.hardening import Hardened
    from data import Split

NAME_BYTES = 100  # of a data set's name in that of a run folder, for which systems take 255


@dataclass(frozen=True)
class TrainConfig(HardeningSettings):
    """Harden a detector on a table and keep everything in a run folder.

    Attributes:
        data: built-in set (digits, breast-cancer, wine), adbench:NAME, or a .npz, .csv, .parquet.
        label_column: column of the labels, 1 for an anomaly and 0 for everything else.
        protocol: full, few or unseen: which training anomalies are labelled, which are held out; or
            all: every distinct row is for training, which leaves none to measure on.
        seed: of the split, the models and the search.
        out: folder that run folders are written into.
        plugin: modules to import first, which register detectors or generators of their own.
    """

    detector: Annotated[str, choice(detectors.registry.choices())] = HardeningSettings.detector
    generator: Annotated[str, choice(generators.registry.choices())] = HardeningSettings.generator
    algo: Annotated[str, choice([*ALGORITHMS, "module:Class"])] = HardeningSettings.algo
    data: str = "digits"
    label_column: str = "label"
    protocol: str = "unseen"
    seed: int = 0
    out: Path = Path("runs")
    plugin: tuple[str, ...] = ()


def train(config: TrainConfig) -> Path:
    """Run the hardening loop; print the detector before and after and return the run folder."""
    import numpy as np

    from agents.hardening import make_parts
    from agents.report import format_detection, held_out_metrics
    from agents.runs import write_run
    from data import load, split

    check_at_least(config, seed=0)
    check_folder(config.out, "--out")
    load_plugins(config.plugin)
    make_parts(config, np.random.default_rng(config.seed))  # refuses them before rows are read
    table = load(config.data, config.label_column)
    halves = split(table, config.protocol, config.seed)
    held_out = f", {len(halves.y_test)} test rows with {halves.y_test.sum()} anomalies"
    print(
        f"{table.name}, {len(table.y)} rows, {config.protocol}: {len(halves.y_train)} training rows"
        f" with {halves.y_train.sum()} labelled anomalies{held_out if len(halves.y_test) else ''}"
    )
    with scratch_folder(config.out) as scratch:
        folder = scratch / "run"
        hardened = harden_logged(halves, config, folder / "tensorboard")
        detection = held_out_metrics(hardened.detectors, halves.X_test, halves.y_test)
        metrics = {"detection": detection, "history": hardened.history}
        settings = {**asdict(config), "out": str(config.out)}
        write_run(folder, hardened, halves, table, settings, metrics)
        draw(hardened, halves, folder / "overview.png")
        command = f"{shlex.join([sys.executable, *sys.argv])}\n".encode(errors="surrogateescape")
        (folder / "command.txt").write_bytes(command)
        final = keep(folder, config.out / run_name(table.name, config))
    print(format_detection(f"{config.detector} on held-out rows", detection))
    print(f"bank of {len(hardened.scenario.bank)} rows and everything else in {final}")
    return final


def run_name(source: str, config: TrainConfig) -> str:
    """Name a run folder by the time, the set, a file by its stem, the algorithm and the seed."""
    path = Path(source)
    name = path.stem if path.exists() else source
    name = name.encode()[:NAME_BYTES].decode(errors="ignore")
    parts = f"{datetime.now():%Y%m%d-%H%M%S}-{name}-{config.algo}-{config.seed}"
    return re.sub(r"[^\w.-]", "-", parts)


def harden_logged(split: "Split", config: TrainConfig, log_folder: Path) -> "Hardened":
    """Harden on the training half, with progress bars; rounds and agent go to TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    from agents.hardening import harden

    with SummaryWriter(str(log_folder)) as writer:

        def log(record: dict[str, float]) -> None:
            for key, value in record.items():
                writer.add_scalar(f"round/{key}", value, int(record["round"]))

        return harden(
            split.X_train,
            split.y_train,
            config,
            config.seed,
            progress=True,
            tensorboard_log=log_folder,
            on_round=log,
        )


def draw(hardened: "Hardened", split: "Split", file: Path) -> None:
    """Draw the run; matplotlib, which takes a second to import, is not waited for before."""
    from agents.overview import draw_overview
    from common.figures import write_figure

    write_figure(draw_overview(hardened, split.X_test, split.y_test), file)


def keep(folder: Path, path: Path, tries: int = 5) -> Path:
    """Move a folder to `path`, or to the first of `path`-2, `path`-3 and so on that is free.

    Windows refuses while a virus scanner reads a file in it; two seconds later it is tried again.
    """
    others = (path.with_name(f"{path.name}-{number}") for number in count(2))
    candidate = next(other for other in chain([path], others) if not other.exists())
    try:
        return folder.rename(candidate)
    except OSError as error:
        if not candidate.exists():  # else another run was quicker
            if tries <= 1 or not isinstance(error, PermissionError):
                raise
            time.sleep(2)
    return keep(folder, path, tries - 1)


if __name__ == "__main__":
    run_command(lambda: train(tyro.cli(TrainConfig)))
