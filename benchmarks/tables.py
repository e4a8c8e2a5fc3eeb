"""Markdown tables of finished cells: means, ranks, wins, times and paired tests."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon

from common.files import replacing

MEAN = "mean of the protocols"


def per_set(results: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Average a measure over seeds, then over protocols.

    Only what all methods have finished counts: seeds of a set and protocol that one lacks are left
    out for all, and so are sets that lack one of the protocols.

    Args:
        results: finished cells of the methods and protocols to compare.
        measure: a column.

    Returns:
        one row a set, one column a method.
    """
    cells = results.pivot_table(index=["set", "protocol", "seed"], columns="method", values=measure)
    seeds_averaged = cells.dropna().groupby(["set", "protocol"]).mean()
    n_protocols = results["protocol"].nunique()
    complete = seeds_averaged.groupby("set").filter(lambda rows: len(rows) == n_protocols)
    return complete.groupby("set").mean()


def summarise(results: pd.DataFrame, against: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Compare methods over sets; one row a method, best mean AUROC first.

    Ranks are taken within a set, on the AUROC averaged over its seeds (and protocols); ties share
    the mean rank, and a win. Time to fit is the mean over cells, time to score is over all test
    rows of all cells.

    Args:
        results: finished cells of the methods and protocols to compare.
        against: for each heading, the method that each method is tested against.
    """
    auroc = per_set(results, "auroc")
    pooled = results.assign(microseconds=results["microseconds_a_row"] * results["n_test"])
    sums = pooled.groupby("method")[["microseconds", "n_test"]].sum()
    table = pd.DataFrame(
        {
            "mean AUROC": auroc.mean(),
            "mean AP": per_set(results, "average_precision").mean(),
            "mean rank": auroc.rank(axis=1, ascending=False).mean(),
            "wins": auroc.eq(auroc.max(axis=1), axis=0).sum(),
            "fit, s": results.groupby("method")["fit_seconds"].mean(),
            "score, us a row": sums["microseconds"] / sums["n_test"],
        }
    )
    for heading, other in against.items():
        table[heading] = [
            p_value(auroc[method], auroc[other[method]]) if other.get(method) in auroc else np.nan
            for method in table.index
        ]
    return table.sort_values("mean AUROC", ascending=False)


def p_value(first: pd.Series, second: pd.Series) -> float:
    """Two-sided Wilcoxon signed-rank test of paired figures; 1 where they do not differ at all."""
    if (first == second).all():
        return 1.0
    return float(wilcoxon(first, second).pvalue)


DIGITS = {
    "mean AUROC": ".4f",
    "mean AP": ".4f",
    "mean rank": ".2f",
    "wins": ".0f",
    "fit, s": ".2f",
    "score, us a row": ".1f",
}


def markdown(table: pd.DataFrame) -> str:
    """Lay out a table; p values take two significant digits, a missing figure is a dash."""
    lines = [["method", *table.columns], ["---", *["---:"] * len(table.columns)]]
    for method, row in table.iterrows():
        figures = [
            "-" if pd.isna(value) else format(value, DIGITS.get(name, ".2g"))
            for name, value in row.items()
        ]
        lines.append([str(method), *figures])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def report(
    results: pd.DataFrame, methods: Sequence[str], against: Mapping[str, Mapping[str, str]]
) -> str:
    """Write a section for each protocol and for their mean, and one for cells that failed.

    Args:
        results: cells, failed ones included.
        methods: what to compare, as far as it has finished cells.
        against: as in `summarise`.
    """
    results = results[results["method"].isin(methods)]
    failed = results[results["error"] != ""]
    done = results[results["error"] == ""]
    protocols = list(dict.fromkeys(done["protocol"]))
    parts = {name: done[done["protocol"] == name] for name in protocols}
    if len(protocols) > 1:
        parts[MEAN] = done
    sections = []
    for name, part in parts.items():
        n_sets = len(per_set(part, "auroc"))
        seeds = sorted(part["seed"].unique())
        count = f"{n_sets} of {part['set'].nunique()} sets, seeds {', '.join(map(str, seeds))}"
        sections.append(f"## {name}\n\n{count}\n\n{markdown(summarise(part, against))}\n")
    if len(failed):
        errors = [
            f"- {row['set']}, {row['protocol']}, seed {row['seed']}, {row['method']}:"
            f" {row['error']}"
            for _, row in failed.iterrows()
        ]
        sections.append("\n".join([f"## Failed: {len(failed)} cells", "", *errors, ""]))
    return "\n".join(sections)


def write_report(text: str, file: str) -> None:
    """Write a report, atomically."""
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
