"""The detector before and after hardening on held-out rows, and tables for a terminal."""

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from data import PROTOCOLS
from detectors.base import Detector

TIMING_SECONDS = 0.5
DETECTION_COLUMNS = (  # timing would differ between runs
    "auroc",
    "average_precision",
    "recall",
    "false_alarms",
)


def detection_metrics(detector: Detector, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return the `score_metrics` of rows and microseconds a row.

    Args:
        detector: a fitted detector.
        X: held-out rows, float (n, d).
        y: their true labels, int (n,).
    """
    return {
        **score_metrics(detector.decision_function(X), detector.threshold_, y),
        "microseconds_a_row": microseconds_a_row(detector, X),
    }


def score_metrics(scores: np.ndarray, threshold: float, y: np.ndarray) -> dict[str, float]:
    """Return AUROC, average precision and shares above the threshold.

    The shares are the recall, of anomalies, and the false alarms, of rows labelled 0.

    Args:
        scores: float (n,), higher where more anomalous.
        threshold: above which a row is called an anomaly.
        y: true labels, int (n,), 0 and 1.
    """
    called = scores > threshold
    return {
        "auroc": float(roc_auc_score(y, scores)),
        "average_precision": float(average_precision_score(y, scores)),
        "recall": float(recall_score(y, called)),
        "false_alarms": float(called[y == 0].mean()),
    }


def held_out_metrics(
    detectors: Mapping[str, Detector], X: np.ndarray, y: np.ndarray
) -> dict[str, dict[str, float]]:
    """Return the `detection_metrics` of detectors by name; nothing without a held-out row."""
    if not len(y):
        return {}
    return {name: detection_metrics(detector, X, y) for name, detector in detectors.items()}


def format_detection(title: str, figures: Mapping[str, Mapping[str, float]]) -> str:
    """Lay out figures of detection, by name, under a title; a sentence where there are none."""
    if not any(figures.values()):
        return (
            "No row is held out, so detection is not measured;"
            f" the protocols {', '.join(PROTOCOLS)} hold rows out."
        )
    return format_table(title, figures, DETECTION_COLUMNS)


def microseconds_a_row(detector: Detector, X: np.ndarray) -> float:
    """Return the fastest of the batch scorings that fit into half a second."""
    fastest, started = np.inf, perf_counter()
    while perf_counter() - started < TIMING_SECONDS:
        before = perf_counter()
        detector.decision_function(X)
        fastest = min(fastest, perf_counter() - before)
    return 1e6 * fastest / len(X)


def format_table(
    title: str, rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str] | None = None
) -> str:
    """Lay out named rows of numbers under short headings; a missing number is a dash.

    The columns are by default those of the first row, of which there must be one then.
    """
    columns = list(next(iter(rows.values()))) if columns is None else columns
    cells = [[title, *(name.replace("_", " ") for name in columns)]]
    cells += [[name, *(_cell(row.get(column)) for column in columns)] for name, row in rows.items()]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
