"""A picture of the search: rows, bank and candidates on the rows' two main directions."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

from envs.core import LatentCore
from envs.scenario import Scenario

SHOWN_ROWS = 1000


def draw_scene(core: LatentCore) -> np.ndarray:
    """Draw a core's rows, bank and current candidates as an RGB image, uint8 (480, 640, 3)."""
    figure = Figure(figsize=(6.4, 4.8), dpi=100)
    candidates = core.scenario.gate.scaler(core.samples)
    draw_rows(figure.subplots(), core.scenario, core.scaled_bank, candidates)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_rows(
    axes: Axes, scenario: Scenario, bank: Tensor, candidates: Tensor | None = None
) -> None:
    """Draw scaled rows in the plane of the first two principal components of the training rows.

    Args:
        axes: what to draw on.
        scenario: whose training rows are shown.
        bank: scaled rows of the bank, float32 (m, d), of which the last ones are shown.
        candidates: scaled rows that stand out, float32 (k, d).
    """
    rows, y = scenario.gate.scaler(scenario.X), scenario.y
    plane = PCA(min(2, rows.shape[1]), random_state=0).fit(rows.numpy())
    clouds = [
        ("bank", bank[-SHOWN_ROWS:], "tab:red", "x", 12),
        ("normal", rows[y == 0][:SHOWN_ROWS], "tab:gray", ".", 12),
        ("known anomaly", rows[y == 1][:SHOWN_ROWS], "tab:orange", ".", 24),
    ]
    if candidates is not None:
        clouds.append(("candidate", candidates, "tab:blue", "*", 160))
    for label, points, color, marker, size in clouds:
        flat = (points.numpy() - plane.mean_) @ plane.components_.T
        second = flat[:, 1] if flat.shape[1] > 1 else np.zeros(len(flat))
        axes.scatter(flat[:, 0], second, s=size, c=color, marker=marker, label=label)
    axes.set(xlabel="first principal component", ylabel="second principal component")
    axes.legend(loc="upper right")
