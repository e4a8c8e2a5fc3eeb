"""Two-class labels: how those of a user become 0 and 1."""

import warnings

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.multiclass import check_classification_targets, type_of_target


def encode_labels(y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Take two kinds of labels apart; of the two the higher one is the anomaly.

    Args:
        y: labels (n,): 0 and 1, or any other two values that can be sorted.

    Returns:
        the two labels, lower one first; 0 or 1 for each row, int64 (n,).

    Raises:
        ValueError: there are not exactly two kinds of labels.
    """
    check_classification_targets(y)
    classes, encoded = np.unique(np.asarray(y), return_inverse=True)
    if len(classes) > 2:
        raise ValueError(
            "Only binary classification is supported. The type of the target is"
            f" {type_of_target(y)}; a detector learns from labels 0 and 1."
        )
    if len(classes) < 2:
        raise ValueError(
            "A detector learns from labels 0 and 1, both present; y has one class,"
            f" {classes.tolist()[0]!r}."
        )
    if classes[0] == -1:
        warnings.warn(
            f"Of the labels -1 and {classes[1]} the latter is taken for the anomaly, other than in"
            " the predictions of scikit-learn's outlier detectors.",
            stacklevel=4,
        )
    elif set(classes.tolist()) != {0, 1} and encoded.mean() > 0.5:
        warnings.warn(
            f"The label {classes[1]} is taken for the anomaly, being the higher one, though"
            f" {encoded.mean():.0%} of the rows have it; give 1 to anomalies and 0 to the others.",
            stacklevel=4,
        )
    return classes, encoded.astype(np.int64)
