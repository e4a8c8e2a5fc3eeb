"""A picture of the search: rows, bank and candidates on the rows' two main directions."""

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from envs.core import LatentCore

SHOWN_ROWS = 1000


def draw_scene(core: LatentCore) -> np.ndarray:
    """Draw the core's scenario, bank and current candidates as an RGB image, uint8 (480, 640, 3).

    The plane is that of the first two principal components of the scaled training rows.
    """
    scaler = core.scenario.gate.scaler
    rows, y = scaler(core.scenario.X), core.scenario.y
    center = rows.mean(dim=0)
    plane = torch.linalg.svd(rows - center, full_matrices=False).Vh[:2].T
    figure = Figure(figsize=(6.4, 4.8), dpi=100)
    axes = figure.subplots()
    clouds = [
        ("normal", rows[y == 0][:SHOWN_ROWS], "tab:gray", ".", 12),
        ("known anomaly", rows[y == 1][:SHOWN_ROWS], "tab:orange", ".", 24),
        ("bank", core.scaled_bank[-SHOWN_ROWS:], "tab:red", "x", 24),
        ("candidate", scaler(core.samples), "tab:blue", "*", 160),
    ]
    for label, points, color, marker, size in clouds:
        flat = ((points - center) @ plane).numpy()
        second = flat[:, 1] if flat.shape[1] > 1 else np.zeros(len(flat))
        axes.scatter(flat[:, 0], second, s=size, c=color, marker=marker, label=label)
    axes.set(xlabel="first principal component", ylabel="second principal component")
    axes.legend(loc="upper right")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
