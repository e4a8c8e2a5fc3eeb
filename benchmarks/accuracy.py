"""Compare methods on the same rows: known, few-label and unseen anomalies.

python -m benchmarks.accuracy --data FOLDER --methods swift-hydra catboost knn
"""

from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from benchmarks.settings import GridSettings
from common.command import run_command

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "swift-hydra"


def compare(settings: GridSettings) -> None:
    """Run what is missing; write and print the tables, and draw their means."""
    from benchmarks.grid import run_grid
    from benchmarks.methods import METHODS
    from benchmarks.tables import report, write_text

    results = run_grid(settings, METHODS)
    text = report(results, REFERENCE)
    write_text(text, settings.out / "accuracy.md")
    draw(results[results["error"] == ""], settings.out / "accuracy.png")
    print(text)


def draw(done: "pd.DataFrame", file: Path) -> None:
    """Draw the means of finished cells, if there are any; matplotlib is slow to import."""
    from benchmarks.picture import draw_means
    from common.figures import write_figure

    if len(done):
        write_figure(draw_means(done), file)


if __name__ == "__main__":
    run_command(lambda: compare(tyro.cli(GridSettings, description=__doc__)))
