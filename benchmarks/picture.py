"""A picture of the tables: what each method's mean AUROC is in each protocol."""

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.tables import by_protocol, per_set

MARKERS = "osD|"  # of the protocols and their mean


def draw_means(done: pd.DataFrame) -> Figure:
    """Draw mean AUROC as the tables have it: a line a method, the best on top, a marker a protocol.

    Args:
        done: finished cells of the methods and protocols to compare; there must be some.
    """
    columns = {name: per_set(part, "auroc").mean() for name, part in by_protocol(done).items()}
    means = pd.DataFrame(columns)
    means = means.sort_values(means.columns[-1], na_position="first")
    figure = Figure((8, 1.2 + 0.28 * len(means)), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, marker in zip(means, MARKERS, strict=False):
        axes.plot(means[name], means.index, marker, ms=8, mew=2, label=name)
    axes.grid(alpha=0.4)
    axes.set_xlabel("mean AUROC")
    figure.legend(loc="outside upper center", ncols=len(MARKERS))
    return figure
