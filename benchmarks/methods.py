"""The methods by name: ours, and the peers of `requirements-benchmarks.txt`.

A method has `fit(X, y)` and `decision_function(X)`. Peers are imported when they are made; each has
its own standard settings, one thread, and columns standardised on the training rows.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, Self

import numpy as np
from sklearn.preprocessing import StandardScaler

import detectors
import generators
from common.errors import InputError
from common.imports import load_attribute


class Method(Protocol):
    """What the benchmarks run."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Learn from rows, float64 (n, d), and labels, int64 (n,): 1 is a known anomaly."""

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return scores, float (n,), of rows, float64 (n, d); higher is more anomalous."""


class Peer:
    """An estimator behind a standard scaler.

    Args:
        estimator: it has `fit`, and `decision_function` or `predict_proba`.
        one_class: fit it on the rows labelled 0 alone, without labels.
    """

    def __init__(self, estimator: Any, one_class: bool) -> None:
        self.estimator, self.one_class, self.scaler = estimator, one_class, StandardScaler()

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Fit scaler and estimator."""
        scaled = self.scaler.fit_transform(X)
        if self.one_class:
            self.estimator.fit(scaled[y == 0])
        else:
            self.estimator.fit(scaled, y)
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return the estimator's scores, or its probabilities where it has no others."""
        scaled = self.scaler.transform(X)
        if hasattr(self.estimator, "decision_function"):
            return self.estimator.decision_function(scaled)
        return self.estimator.predict_proba(scaled)[:, 1]


def supervised(entry_point: str, seed: int, **settings: Any) -> Method:
    """Make a peer that learns from the labels."""
    return Peer(load_attribute(entry_point)(**settings, random_state=seed), one_class=False)


def one_class(entry_point: str, seed: int, draws: bool = False) -> Method:
    """Make a peer that learns from the rows labelled 0; it gets the seed if it `draws`."""
    settings = {"random_state": seed} if draws else {}
    return Peer(load_attribute(entry_point)(**settings), one_class=True)


def backend(name: str, seed: int) -> Method:
    """Make a detector backend, unhardened."""
    return detectors.make(name, random_state=seed)


def hydra(seed: int, **settings: Any) -> Method:
    """Make the estimator with settings that differ from its defaults."""
    from swift_hydra import SwiftHydra

    return SwiftHydra(**settings, random_state=seed)


PERCEPTRON_MIXTURE = "mlp-moe"
FROZEN_GENERATOR = "cvae-frozen"
detectors.register(PERCEPTRON_MIXTURE, "benchmarks.variants:PerceptronMoEDetector")
generators.register(FROZEN_GENERATOR, "benchmarks.variants:FrozenVAE")

Factory = Callable[[int], Method]

OURS: dict[str, Factory] = {
    "swift-hydra": hydra,
    "hardened-extra-trees": partial(hydra, detector="extra-trees"),
    "hardened-catboost": partial(hydra, detector="catboost"),
    "mamba-moe": partial(backend, "mamba-moe"),
    "mamba": partial(backend, "mamba"),
    "unhardened-extra-trees": partial(backend, "extra-trees"),
    "unhardened-catboost": partial(backend, "catboost"),
}
PEERS: dict[str, Factory] = {
    "logistic-regression": partial(
        supervised,
        "sklearn.linear_model:LogisticRegression",
        class_weight="balanced",
        max_iter=1000,
    ),
    "catboost": partial(
        supervised,
        "benchmarks.catboost_peer:OneThreadCatBoost",
        iterations=500,
        thread_count=1,
        verbose=False,
        allow_writing_files=False,
    ),
    "extra-trees": partial(supervised, "sklearn.ensemble:ExtraTreesClassifier", n_estimators=200),
    "random-forest": partial(
        supervised, "sklearn.ensemble:RandomForestClassifier", n_estimators=200
    ),
    "xgboost": partial(supervised, "xgboost:XGBClassifier", n_jobs=1),
    "lightgbm": partial(supervised, "lightgbm:LGBMClassifier", n_jobs=1, verbose=-1),
    "rbf-svm": partial(supervised, "sklearn.svm:SVC", class_weight="balanced"),
    "knn": partial(one_class, "pyod.models.knn:KNN"),
    "lof": partial(one_class, "pyod.models.lof:LOF"),
    "iforest": partial(one_class, "pyod.models.iforest:IForest", draws=True),
    "ecod": partial(one_class, "pyod.models.ecod:ECOD"),
    "xgbod": partial(supervised, "pyod.models.xgbod:XGBOD"),
    "devnet": partial(supervised, "benchmarks.devnet:DevNet"),
    "tabm": partial(supervised, "benchmarks.tabm_peer:TabMClassifier"),
}
METHODS = OURS | PEERS


def find_methods(names: Sequence[str], table: Mapping[str, Factory]) -> dict[str, Factory]:
    """Return the named factories; each is tried once, so that nothing fails hours later.

    Raises:
        InputError: a method's package is not installed.
    """
    for name in names:
        try:
            table[name](0)
        except InputError as error:
            raise InputError(
                f"The method {name!r} cannot run: {error} Install requirements-benchmarks.txt,"
                " or leave it out of --methods."
            ) from error
    return {name: table[name] for name in names}
