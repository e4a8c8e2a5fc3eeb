"""Markdown tables of finished cells: means, ranks, wins, times and paired tests."""

from pathlib import Path

import pandas as pd
from scipy.stats import wilcoxon

from common.files import replacing
from data import PROTOCOLS

MEAN = "mean of the protocols"
EXACT = 12  # decimals; what differs after them are rounding errors of means


def comparable(results: pd.DataFrame) -> pd.DataFrame:
    """Return the cells that all methods have finished, of sets that have some in each protocol.

    A method that has finished none in one of the protocols is left out.

    Args:
        results: finished cells of the methods and protocols to compare.
    """
    covered = results.groupby("method")["protocol"].transform("nunique")
    results = results[covered == results["protocol"].nunique()]
    methods = results.groupby(["set", "protocol", "seed"])["method"].transform("nunique")
    shared = results[methods == results["method"].nunique()]
    protocols = shared.groupby("set")["protocol"].transform("nunique")
    return shared[protocols == results["protocol"].nunique()]


def per_set(results: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Average a measure of the `comparable` cells over seeds, then over protocols.

    Args:
        results: finished cells of the methods and protocols to compare.
        measure: a column.

    Returns:
        one row a set, one column a method.
    """
    seeds_averaged = comparable(results).pivot_table(
        index=["set", "protocol"], columns="method", values=measure
    )
    return seeds_averaged.groupby("set").mean().round(EXACT)


def summarise(results: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Compare methods over sets; one row a method, best mean AUROC first.

    Ranks are taken within a set, on the AUROC averaged over its seeds (and protocols); ties share
    the mean rank, and a win. Time to fit is the mean over cells that every method finished, time to
    score is over all their test rows; both are CPU time on one thread.

    Args:
        results: finished cells of the methods and protocols to compare.
        reference: the method that the others are tested against.
    """
    auroc = per_set(results, "auroc")
    table = pd.DataFrame(
        {
            "mean AUROC": auroc.mean(),
            "mean AP": per_set(results, "average_precision").mean(),
            "mean rank": auroc.rank(axis=1, ascending=False).mean(),
            "wins": auroc.eq(auroc.max(axis=1), axis=0).sum(),
            **times(comparable(results)),
        }
    )
    if reference in auroc:
        table[f"p v. {reference}"] = {
            method: p_value(auroc[method], auroc[reference])
            for method in auroc.drop(columns=reference)
        }
    return table.sort_values("mean AUROC", ascending=False)


def times(results: pd.DataFrame) -> dict[str, pd.Series]:
    """Seconds to fit, the mean over cells, and microseconds to score a row, over all test rows."""
    pooled = results.assign(microseconds=results["microseconds_a_row"] * results["n_test"])
    cells = pooled.groupby("method")
    return {
        "fit, s": cells["fit_seconds"].mean(),
        "score, us a row": cells["microseconds"].sum() / cells["n_test"].sum(),
    }


def rates(results: pd.DataFrame) -> dict[str, pd.Series]:
    """Bypasses and finds per 1,000 queries of each method; NaN for one that did not search."""
    sums = results.groupby("method")[["queries", "bypasses", "successes"]].sum(min_count=1)
    return {
        "bypasses per 1000": 1000 * sums["bypasses"] / sums["queries"],
        "found per 1000": 1000 * sums["successes"] / sums["queries"],
    }


def p_value(first: pd.Series, second: pd.Series) -> float:
    """Two-sided Wilcoxon signed-rank test of paired figures; 1 where they do not differ at all.

    NaN where there are none.
    """
    if first.empty:
        return float("nan")
    differences = (first - second).round(EXACT)
    if (differences == 0).all():
        return 1.0
    return float(wilcoxon(differences).pvalue)


DIGITS = {
    **dict.fromkeys(["mean AUROC", "mean AP", *PROTOCOLS, MEAN], "z.4f"),
    **dict.fromkeys(["AUROC before", "AUROC after"], ".4f"),
    "mean rank": ".2f",
    "wins": ".0f",
    "fit, s": ".2f",
    "score, us a row": ".1f",
    "batch, us a row": ".2f",
    "one row, us": ".0f",
    "steps a second": ".0f",
    "us a row and column": ".1f",
    "peak memory, MB": ".0f",
    "bypasses per 1000": ".1f",
    "found per 1000": ".2f",
    "successes per 1000": ".1f",
}


def markdown(table: pd.DataFrame, corner: str = "method") -> str:
    """Lay out a table; a missing figure is a dash, and `corner` heads the column of the index."""
    lines = [[corner, *table.columns], ["---", *["---:"] * len(table.columns)]]
    for method, row in table.iterrows():
        figures = [
            "-" if pd.isna(value) else format(value, DIGITS.get(str(name), two_digits(value)))
            for name, value in row.items()
        ]
        lines.append([str(method), *figures])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def two_digits(value: float) -> str:
    """Return the format of a p value or a ratio: two significant digits, or its whole part."""
    return ".2g" if abs(value) < 100 else ".0f"


def by_protocol(done: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Part finished cells by protocol; all together follow where there is more than one."""
    parts = {name: part for name in PROTOCOLS if len(part := done[done["protocol"] == name])}
    return parts | {MEAN: done} if len(parts) > 1 else parts


def report(results: pd.DataFrame, reference: str) -> str:
    """Write a section for each protocol and for their mean, and one for cells that failed."""
    sections = []
    for name, part in by_protocol(results[results["error"] == ""]).items():
        table = markdown(summarise(part, reference))
        sections.append(f"## {name}\n\n{coverage(part)}\n\n{table}\n")
    return "\n".join([*sections, failures(results)])


def coverage(done: pd.DataFrame) -> str:
    """Say which cells a table is made of."""
    shared = comparable(done)
    seeds = ", ".join(map(str, sorted(shared["seed"].unique()))) or "none"
    return f"{shared['set'].nunique()} of {done['set'].nunique()} sets, seeds {seeds}"


def failures(results: pd.DataFrame) -> str:
    """List the cells that failed, alike ones in one line; empty where none did."""
    failed = results[results["error"] != ""]
    alike = failed.groupby(["set", "protocol", "seed", "error"])["method"]
    lines = [
        f"- {name}, {protocol}, seed {seed}, {', '.join(methods)}: {error}"
        for (name, protocol, seed, error), methods in alike
    ]
    return "\n".join([f"## Failed: {len(failed)} cells", "", *lines, ""]) if lines else ""


def write_text(text: str, file: Path) -> None:
    """Write `text`, atomically."""
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
