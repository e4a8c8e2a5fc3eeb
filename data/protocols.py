"""The three ways to split a table into training and test rows, and the one not to."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans

from common.divisor import divisor
from common.errors import InputError, check_at_least
from common.names import check_names
from common.seeds import draw_seed
from data.table import Table

MAX_ROWS = 10_000
MIN_KEPT = 30
TRAIN_SHARE = 0.4
FEW = 5
CLUSTERS = 4
ROWS_PER_CLUSTER = 5


@dataclass(frozen=True, eq=False)
class Split:
    """Training and test rows, float64 (n, d), with labels, int64 (n,); with "all" no test rows.

    In `y_train` 1 is a known anomaly and 0 anything else; `y_test` holds the truth.
    """

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def split(table: Table, protocol: str, seed: int) -> Split:
    """Split `table` by one of `PROTOCOLS` or by "all"; the same seed gives the same split.

    Exact duplicates of rows are dropped. Unless all of the others are for training, at most 10,000
    of them are kept, and 40 % of these are for training, both by class. Nothing is scaled: scalers
    are fitted on the training rows by whoever trains. The same seed gives `full` and `few` the same
    rows.

    Raises:
        InputError: the protocol is unknown, or would leave a side without either class, or the seed
            is no whole number of at least 0.
    """
    check_protocol(protocol)
    check_at_least(SimpleNamespace(seed=seed), seed=0)
    rng = np.random.default_rng(seed)
    rows = distinct(table)
    result = everything(rows) if protocol == ALL else SPLITTERS[protocol](capped(rows, rng), rng)
    check_labels(table.name, protocol, "training", result.y_train)
    if protocol != ALL:
        check_labels(table.name, protocol, "test", result.y_test)
    return result


def check_protocol(name: str) -> None:
    """Raise `InputError` unless `name` is one of `PROTOCOLS`, or "all"."""
    check_names("protocol", [name], (*PROTOCOLS, ALL))


def check_labels(name: str, protocol: str, side: str, y: np.ndarray) -> None:
    """Raise `InputError` where one side's labels, int (n,), are all the same."""
    for label, word in enumerate(("normal row", "anomaly")):
        if not (y == label).any():
            others = "" if protocol == ALL else ", or choose another seed or protocol"
            raise InputError(
                f"{name}: the protocol {protocol!r} leaves no distinct {word} for the {side} rows;"
                f" add rows{others}."
            )


def everything(table: Table) -> Split:
    """Train on every distinct row, with its label, and hold none out to measure on."""
    return Split(table.X, table.y, table.X[:0], table.y[:0])


def full(table: Table, rng: np.random.Generator) -> Split:
    """Label all training anomalies."""
    train, test = partition(table.y, rng)
    return Split(table.X[train], table.y[train], table.X[test], table.y[test])


def few(table: Table, rng: np.random.Generator) -> Split:
    """Label at most five training anomalies; the others stay among the rows labelled 0."""
    train, test = partition(table.y, rng)
    labelled = rng.permutation(np.flatnonzero(table.y[train]))[:FEW]
    y_train = np.zeros_like(train)
    y_train[labelled] = 1
    return Split(table.X[train], y_train, table.X[test], table.y[test])


def unseen(table: Table, rng: np.random.Generator) -> Split:
    """Train on some clusters of the anomalies and test on the others.

    Clusters are the true kinds where the table knows two or more, taken as known from the lowest;
    else those of k-means, in random order. As many are known as come nearest to half of the
    anomalies, which may be far from it where clusters differ in size. Training keeps normal rows
    and anomalies of known clusters, the test set normal rows and anomalies of unseen ones.
    """
    train, test = partition(table.y, rng)
    cluster, order = anomaly_clusters(table, train, rng)
    known = np.isin(cluster, known_clusters(cluster, order))
    train = train[(table.y[train] == 0) | known[train]]
    test = test[(table.y[test] == 0) | ~known[test]]
    return Split(table.X[train], table.y[train], table.X[test], table.y[test])


def distinct(table: Table) -> Table:
    """Drop rows that repeat another's features; where labels conflict, the anomaly stays.

    A row that was an anomaly even once is not evidence of what is normal.
    """
    order = np.argsort(-table.y, kind="stable")
    repeated = pd.DataFrame(table.X[order]).duplicated().to_numpy()
    return table.take(np.sort(order[~repeated]))


def capped(table: Table, rng: np.random.Generator) -> Table:
    """Keep at most 10,000 rows, drawn by class; at least 30 of either where there are so many."""
    if len(table.y) <= MAX_ROWS:
        return table
    normals, anomalies = (rng.permutation(np.flatnonzero(table.y == label)) for label in (0, 1))
    least, spare = min(MIN_KEPT, len(anomalies)), min(MIN_KEPT, len(normals))
    share = round(MAX_ROWS * len(anomalies) / len(table.y))
    n_anomalies = min(max(share, least), MAX_ROWS - spare)
    kept = np.concatenate([normals[: MAX_ROWS - n_anomalies], anomalies[:n_anomalies]])
    return table.take(np.sort(kept))


def partition(y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw 40 % of each class of `y` for training; sorted row numbers of training and test."""
    train = np.zeros(len(y), dtype=bool)
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(y == label))
        train[rows[: max(1, round(TRAIN_SHARE * len(rows)))]] = True
    return np.flatnonzero(train), np.flatnonzero(~train)


def anomaly_clusters(
    table: Table, train: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster the anomalies of a table.

    K-means sees the anomalies of both sides, since they define the protocol, in columns
    standardised on the training rows.

    Returns:
        the cluster of each row, int (n,), 0 for normal rows; the clusters, from 1 up, in the order
        in which they become known.
    """
    anomalies = np.flatnonzero(table.y)
    if table.kind is not None and len(kinds := np.unique(table.kind[anomalies])) > 1:
        return table.kind, kinds
    seen = table.X[train]
    rows = (table.X[anomalies] - seen.mean(axis=0)) / divisor(seen.std(axis=0), seen)
    n_clusters = min(CLUSTERS, max(2, len(anomalies) // ROWS_PER_CLUSTER), len(anomalies))
    kmeans = KMeans(n_clusters, n_init=10, random_state=draw_seed(rng)).fit(rows)
    cluster = np.zeros_like(table.y)
    cluster[anomalies] = kmeans.labels_ + 1
    return cluster, rng.permutation(np.unique(cluster[anomalies]))


def known_clusters(cluster: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return the first clusters of `order` that hold the share of anomalies nearest to half.

    At least one cluster is known; at least one is not, where there are two.
    """
    sizes = np.array([(cluster == c).sum() for c in order])
    shares = sizes.cumsum()[:-1] / sizes.sum()
    return order[: 1 + int(np.abs(shares - 0.5).argmin())] if len(shares) else order


SPLITTERS: dict[str, Callable[[Table, np.random.Generator], Split]] = {
    "full": full,
    "few": few,
    "unseen": unseen,
}
PROTOCOLS = tuple(SPLITTERS)  # that hold rows out
ALL = "all"
