"""Figures in files."""

from pathlib import Path

from matplotlib.figure import Figure

from common.files import replacing


def write_figure(figure: Figure, file: Path) -> None:
    """Write a figure as PNG; it is never half-written. Raises `InputError` as `replacing` does."""
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png")
