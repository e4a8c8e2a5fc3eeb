"""Score the rows of a file with a run's hardened detector.

python score.py --data new.csv --out scores.csv
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from common.command import run_command
from common.errors import InputError
from common.files import check_file, replacing
from common.imports import load_plugins

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet")
ADDED = ("score", "probability", "predicted")


@dataclass(frozen=True)
class ScoreConfig:
    """Score the rows of a file with a run's hardened detector.

    Attributes:
        data: a .csv or .parquet file that holds the columns that the run was trained on, in any
            order, and others or not; or a .npz file whose array X has just these, in their order.
            No label is needed.
        run: folder of a run written by train.py; by default the latest in `runs`.
        runs: folder that run folders are looked for in.
        out: .csv or .parquet file, replaced if it is there, for the rows with three more columns:
            score, on the scale of log-odds; probability, not calibrated, the logistic function of
            the score less the detector's threshold; predicted, 1 where the score exceeds that.
            Where the run was trained on a column of one of these names, theirs begin with hydra_.
        label_column: column of a .csv or .parquet file, no feature of the run, that is 1 for an
            anomaly and 0 for everything else: by it the detector is measured before and after
            hardening. Leave out rows that the run learned from.
        plugin: modules to import first, which register detectors of their own.
    """

    data: Path
    run: Path | None = None
    runs: Path = Path("runs")
    out: Path = Path("scores.csv")
    label_column: str | None = None
    plugin: tuple[str, ...] = ()


def score(config: ScoreConfig) -> None:
    """Write the rows and their scores; say how many are called anomalies, and how rightly."""
    from scipy.special import expit

    from agents.report import format_detection, score_metrics
    from agents.runs import find_run, open_run, same
    from data import PROTOCOLS
    from data.files import read_rows

    check_file(config.out, "--out")
    suffix = config.out.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{config.out} is no {' or '.join(SUFFIXES)} file; name one with --out.")
    if same(config.out, config.data):
        raise InputError(f"{config.out} holds the rows to score; name another file with --out.")
    load_plugins(config.plugin)
    run = open_run(config.run) if config.run else find_run(config.runs)
    if run is None:
        raise InputError(f"No run in {config.runs}; write one with train.py, or pass --run.")
    run.check_parts("detector")
    print(f"Run {run.folder}, {run.config['detector']}")
    names = run.feature_names()
    prefix = "" if set(ADDED).isdisjoint(names) else "hydra_"
    added = [prefix + name for name in ADDED]
    if config.label_column in names:
        raise InputError(
            f"The run learned from the column {config.label_column!r}; name that of the labels."
        )
    frame, X, y = read_rows(config.data, names, config.label_column, verbatim=suffix == ".csv")
    for column in frame.columns.intersection(added):
        raise InputError(f"{config.data} has a column {column!r} already; rename it.")
    detector = run.detector()
    scores = detector.decision_function(X)
    figures = {}
    if y is not None:
        before = run.detector("unhardened")
        figures = {
            "before hardening": score_metrics(before.decision_function(X), before.threshold_, y),
            "after hardening": score_metrics(scores, detector.threshold_, y),
        }
    probability = expit(scores - detector.threshold_)
    predicted = (scores > detector.threshold_).astype(int)
    scored = frame.assign(**dict(zip(added, (scores, probability, predicted), strict=True)))
    with replacing(config.out) as temporary:
        if suffix == ".csv":
            write_csv(scored, temporary)
        else:
            scored.to_parquet(temporary, index=False)
    if figures:
        print(format_detection(f"on {config.data}", figures))
    print(
        f"{len(X)} rows scored, of which {predicted.sum()} are called anomalies; see {config.out}"
    )
    if run.config.get("protocol") in PROTOCOLS:
        print("This run held rows out to measure on; train with --protocol all to learn from all.")


def write_csv(frame: "pd.DataFrame", path: Path) -> None:
    """Write a .csv file; all is quoted where text holds a lone carriage return.

    Python 3.11 does not quote that by itself, and readers take it for a line's end.
    """
    text = frame.select_dtypes(exclude="number")
    broken = any("\r" in str(name) for name in frame) or any(
        text[name].map(str).str.contains("\r", regex=False).any() for name in text
    )
    frame.to_csv(path, index=False, quoting=csv.QUOTE_ALL if broken else csv.QUOTE_MINIMAL)


if __name__ == "__main__":
    run_command(lambda: score(tyro.cli(ScoreConfig)))
