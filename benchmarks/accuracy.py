"""Compare methods on the same rows: known, few-label and unseen anomalies.

python -m benchmarks.accuracy --data FOLDER --methods swift-hydra catboost knn
"""

import tyro

from benchmarks.settings import GridSettings
from common.command import run_command

REFERENCE = "swift-hydra"


def compare(settings: GridSettings) -> None:
    """Run what is missing; write and print the tables, and draw their means."""
    from benchmarks.grid import run_grid
    from benchmarks.methods import METHODS
    from benchmarks.picture import draw_means
    from benchmarks.tables import report, write_text
    from common.figures import write_figure

    results = run_grid(settings, METHODS)
    text = report(results, REFERENCE)
    write_text(text, settings.out / "accuracy.md")
    done = results[results["error"] == ""]
    if len(done):
        write_figure(draw_means(done), settings.out / "accuracy.png")
    print(text)


if __name__ == "__main__":
    run_command(lambda: compare(tyro.cli(GridSettings, description=__doc__)))
