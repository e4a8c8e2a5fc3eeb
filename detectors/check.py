"""The conformance check of a detector backend, for its author."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_X_y

import detectors
from common.conformance import faults, made_up_rows
from common.errors import InputError
from common.labels import encode_labels
from common.rows import check_float32
from detectors.base import Detector
from detectors.replay import retrained

FAR = 10.0  # times the rows: what an agent may ask of


@dataclass(frozen=True)
class Trial:
    """A backend on trial: how to make one, one that is fitted, and the rows it was fitted on."""

    id: str
    make: Callable[[], Detector]
    fitted: Detector
    X: np.ndarray
    y: np.ndarray

    def refitted(self) -> Detector:
        """Return another one fitted on copies of the same rows."""
        return self.make().fit(self.X.copy(), self.y.copy())


def check_detector(
    id: str, X: ArrayLike | None = None, y: ArrayLike | None = None, **kwargs: Any
) -> list[str]:
    """Say what is wrong with the backend `id`, one plain sentence a fault; [] if nothing is.

    It is made, fitted and tried in all that the env and the hardening loop ask of it.

    Args:
        id: a registered id, or `family:member`.
        X: rows to try it on, float (n, d); by default 144 of 5 columns.
        y: their labels (n,): 0, and 1 for an anomaly, or as in `Detector`.
        kwargs: arguments to make it with.

    Raises:
        InputError: the id is unknown, its class cannot be imported, or only one of `X` and `y` is
            given.
        ValueError: the rows or the labels are none that a detector takes.
    """
    if X is None and y is None:
        rows, labels = made_up_rows()
    elif X is None or y is None:
        raise InputError("Give check_detector both rows X and labels y, or neither.")
    else:
        rows, kinds = check_X_y(X, y, dtype=np.float64)
        check_float32(rows)
        labels = encode_labels(kinds)[1]
    detectors.registry.load(id)

    def make() -> Detector:
        return detectors.make(id, **{"random_state": 0, **kwargs})

    try:
        unfitted = make()
    except Exception as error:
        return [f"{id}: it must be made with a random_state, but raised {error!r}."]
    try:
        fitted = unfitted.fit(rows.copy(), labels.copy())
        fitted.decision_function(rows.copy())
    except Exception as error:
        return [f"{id}: fit(X, y) and decision_function(X) must work, but raised {error!r}."]
    trial = Trial(id, make, fitted, rows, labels)
    return [f"{id}: {fault}" for check in CHECKS for fault in faults(check, trial)]


def scores_rows(trial: Trial) -> Iterator[str]:
    """It must give every row one finite score."""
    X, y, fitted = trial.X, trial.y, trial.fitted
    scores = fitted.decision_function(X)
    if np.shape(scores) != (len(X),):
        yield f"decision_function must return the shape ({len(X)},), not {np.shape(scores)}."
        return
    far = fitted.decision_function(FAR * X)
    if not (np.isfinite(scores).all() and np.isfinite(far).all()):
        yield "decision_function must return finite numbers only, for rows far from others, too."
    if np.ptp(scores) == 0:
        yield "decision_function gives all rows the same score."
    elif scores[y == 1].mean() <= scores[y == 0].mean():
        yield (
            "the labelled anomalies score lower than the rows labelled 0 on average; higher must"
            " mean more anomalous."
        )
    alone = np.array([fitted.decision_function(row[None])[0] for row in X[:5]])
    if not np.allclose(alone, scores[:5], rtol=1e-3, atol=1e-3):
        yield "a row's score must not depend on the other rows of the batch."


def keeps_its_input(trial: Trial) -> Iterator[str]:
    """It must leave the arrays that it is given as they are."""
    rows, labels = trial.X.copy(), trial.y.copy()
    trial.make().fit(rows, labels).decision_function(rows)
    if not (np.array_equal(rows, trial.X) and np.array_equal(labels, trial.y)):
        yield "fit and decision_function must not write into the arrays that they are given."


def is_reproducible(trial: Trial) -> Iterator[str]:
    """It must score alike when fitted twice with the same random_state."""
    again = trial.refitted().decision_function(trial.X)
    if not np.array_equal(again, trial.fitted.decision_function(trial.X)):
        yield "two fits with the same random_state must score alike; take and use random_state."


def leaves_the_global_seed(trial: Trial) -> Iterator[str]:
    """It must leave NumPy's global generator as it is."""
    before = str(np.random.get_state(legacy=False))  # noqa: NPY002
    trial.refitted().decision_function(trial.X)
    if str(np.random.get_state(legacy=False)) != before:  # noqa: NPY002
        yield "fit must not draw from or seed NumPy's global generator; take random_state."


def learns_found_rows(trial: Trial) -> Iterator[str]:
    """It must learn found rows in partial_fit, on rows whose anomalies are novel."""
    if not trial.fitted.trainable:
        return
    X, y = made_up_rows(trial.X.shape[1])
    bank = np.full((40, X.shape[1]), -1.5) + np.random.default_rng(1).normal(0, 0.2, (40, 1))
    learner = retrained(trial.make().fit(X, y), X, y, bank, 0.5)
    found, normal = learner.decision_function(bank), learner.decision_function(X[y == 0])
    above = float((found[:, None] > normal).mean())
    if above < 0.75:
        yield (
            "rows given to partial_fit as anomalies must come to score above the normal ones, but"
            f" only {above:.0%} of the pairs are in that order."
        )


def survives_saving(trial: Trial) -> Iterator[str]:
    """It must be saved into a folder that is not there yet, and loaded without change."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "detector"
        trial.fitted.save(folder)
        loaded = detectors.load(trial.id, folder).decision_function(trial.X)
        if not np.allclose(loaded, trial.fitted.decision_function(trial.X), atol=1e-5):
            yield "a saved and loaded detector must score as before."


def refuses_bad_rows(trial: Trial) -> Iterator[str]:
    """It must refuse rows that are not finite with a ValueError."""
    spoiled = trial.X.copy()
    spoiled[0, 0] = np.nan
    try:
        trial.fitted.decision_function(spoiled)
    except ValueError:
        return
    yield "decision_function must refuse rows with NaN by a ValueError."


CHECKS = [
    keeps_its_input,
    scores_rows,
    is_reproducible,
    leaves_the_global_seed,
    learns_found_rows,
    survives_saving,
    refuses_bad_rows,
]
