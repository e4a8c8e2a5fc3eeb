"""A picture of a run: held-out rows before and after, if any, the search by round, the bank."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

from agents.hardening import Hardened
from detectors.base import Detector
from envs.rendering import draw_rows


def draw_overview(hardened: Hardened, X: np.ndarray, y: np.ndarray) -> Figure:
    """Draw ROC and precision-recall curves before and after, the rounds, and the bank.

    Args:
        hardened: what the loop left.
        X: held-out rows, float64 (n, d); without any, the curves are left out.
        y: their true labels, int (n,).
    """
    n_lines = 2 if len(y) else 1
    figure = Figure(figsize=(11, 4.5 * n_lines), layout="constrained")
    *curves, rounds, rows = figure.subplots(n_lines, 2).flat
    if curves:
        draw_curves(curves, hardened.detectors, X, y)
    draw_rounds(rounds, hardened.history)
    scenario = hardened.scenario
    draw_rows(rows, scenario, scenario.gate.scaler(scenario.bank))
    rows.set_title("Training rows and bank")
    return figure


def draw_curves(
    axes: Sequence[Axes], detectors: Mapping[str, Detector], X: np.ndarray, y: np.ndarray
) -> None:
    """Draw how detectors, by name, do on held-out rows: ROC, then precision and recall."""
    roc, precision_recall = axes
    for name, detector in detectors.items():
        scores = detector.decision_function(X)
        RocCurveDisplay.from_predictions(y, scores, name=name, ax=roc)
        PrecisionRecallDisplay.from_predictions(y, scores, name=name, ax=precision_recall)
    roc.set_title("ROC curve on held-out rows")
    precision_recall.set_title("Precision and recall on held-out rows")


def draw_rounds(axes: Axes, history: Sequence[Mapping[str, float]]) -> None:
    """Draw which share of a round's candidates, or of its episodes, went past the detector."""
    numbers = [record["round"] for record in history]
    for label, part, whole in (
        ("bypasses, of the candidates", "bypasses", "queries"),
        ("successes, of the episodes", "successes", "episodes"),
    ):
        shares = [record[part] / max(record[whole], 1) for record in history]
        axes.plot(numbers, shares, "o-", label=label)
    axes.set(title="Search", xlabel="round", ylabel="share", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
