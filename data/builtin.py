"""Tables made of the sets that ship with scikit-learn; they need no network."""

from collections.abc import Callable

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from data.table import Table


def digits() -> Table:
    """Handwritten digits: 2 to 9 are normal, 0 is the anomaly of kind 1 and 1 that of kind 2."""
    bunch = load_digits()
    kind = np.select([bunch.target == 0, bunch.target == 1], [1, 2], default=0).astype(np.int64)
    y = (kind > 0).astype(np.int64)
    return Table(bunch.data, y, list(bunch.feature_names), "digits", kind)


def breast_cancer() -> Table:
    """Cell nuclei of breast masses; malignant is the anomaly."""
    bunch = load_breast_cancer()
    malignant = list(bunch.target_names).index("malignant")
    y = (bunch.target == malignant).astype(np.int64)
    return Table(bunch.data, y, bunch.feature_names.tolist(), "breast-cancer")


def wine() -> Table:
    """Chemical analyses of wines of three growers; the smallest class is the anomaly."""
    bunch = load_wine()
    y = (bunch.target == np.bincount(bunch.target).argmin()).astype(np.int64)
    return Table(bunch.data, y, list(bunch.feature_names), "wine")


LOADERS: dict[str, Callable[[], Table]] = {
    "digits": digits,
    "breast-cancer": breast_cancer,
    "wine": wine,
}
BUILTIN = tuple(LOADERS)
