"""What each part of the method earns, in accuracy and in bypasses found.

python -m benchmarks.ablation --data FOLDER
"""

from functools import partial
from itertools import pairwise

import pandas as pd
import tyro

from benchmarks.methods import (
    FROZEN_GENERATOR,
    OURS,
    PERCEPTRON_MIXTURE,
    Factory,
    hydra,
)
from benchmarks.settings import GridSettings
from benchmarks.tables import (
    by_protocol,
    comparable,
    coverage,
    failures,
    markdown,
    p_value,
    per_set,
    rates,
    times,
    write_text,
)
from common.command import run_command

ROWS: dict[str, tuple[str, Factory]] = {
    "mamba-moe": ("no augmentation", OURS["mamba-moe"]),
    "background": ("background only", partial(hydra, rounds=0)),
    "random": ("random latents", partial(hydra, agent="random")),
    "gradient": ("gradient", partial(hydra, agent="gradient")),
    "swift-hydra": ("PPO (default)", OURS["swift-hydra"]),
    "union": ("PPO and random latents", partial(hydra, agent="benchmarks.variants:UnionPPO")),
    "ungated": ("PPO, no feasibility gate", partial(hydra, agent="benchmarks.variants:UngatedPPO")),
    "single-minded": (
        "PPO, no diversity term",
        partial(hydra, agent="benchmarks.variants:SingleMindedPPO"),
    ),
    "frozen-generator": (
        "PPO, generator not refreshed",
        partial(hydra, generator=FROZEN_GENERATOR),
    ),
    "hardened-mamba": ("single Mamba, PPO", partial(hydra, detector="mamba")),
    "hardened-mlp": ("MLP for Mamba, PPO", partial(hydra, detector=PERCEPTRON_MIXTURE)),
    "unhardened-extra-trees": ("ExtraTrees, unhardened", OURS["unhardened-extra-trees"]),
    "random-extra-trees": (
        "ExtraTrees, random latents",
        partial(hydra, agent="random", detector="extra-trees"),
    ),
    "hardened-extra-trees": ("ExtraTrees, PPO", OURS["hardened-extra-trees"]),
    "unhardened-catboost": ("CatBoost, unhardened", OURS["unhardened-catboost"]),
    "random-catboost": (
        "CatBoost, random latents",
        partial(hydra, agent="random", detector="catboost"),
    ),
    "hardened-catboost": ("CatBoost, PPO", OURS["hardened-catboost"]),
}
PAIRS = (
    ("swift-hydra", "mamba-moe"),
    ("swift-hydra", "random"),
    ("union", "random"),
    ("union", "swift-hydra"),
    ("swift-hydra", "ungated"),
    ("swift-hydra", "single-minded"),
    ("swift-hydra", "frozen-generator"),
    ("swift-hydra", "hardened-mamba"),
    ("swift-hydra", "hardened-mlp"),
    ("hardened-extra-trees", "unhardened-extra-trees"),
    ("hardened-extra-trees", "random-extra-trees"),
    ("hardened-catboost", "unhardened-catboost"),
    ("hardened-catboost", "random-catboost"),
)
POLICIES = {
    "mamba-moe": ("random", "swift-hydra"),
    "extra-trees": ("random-extra-trees", "hardened-extra-trees"),
    "catboost": ("random-catboost", "hardened-catboost"),
}


def ablate(settings: GridSettings) -> None:
    """Run what is missing; write and print the tables."""
    from benchmarks.grid import run_grid

    results = run_grid(settings, {name: factory for name, (_, factory) in ROWS.items()})
    done = results[results["error"] == ""]
    parts = by_protocol(done).items()
    coverages = "; ".join(f"{protocol}: {coverage(part)}" for protocol, part in parts)
    sections = [
        "Bypasses are candidates that the detector calls normal; found are those also feasible and"
        " new, without a gate only new. p is the paired test against the row before.\n",
        f"{coverages}\n\n{markdown(summarise(done))}\n",
        *(
            f"{markdown(table)}\n"
            for table in (differences(done), policy_ratios(done))
            if len(table)
        ),
        failures(results),
    ]
    text = "\n".join(sections)
    write_text(text, settings.out / "ablation.md")
    print(text)


def summarise(done: pd.DataFrame) -> pd.DataFrame:
    """Return AUROC, bypasses and finds per 1,000 queries, times and p of each row.

    Args:
        done: finished cells.
    """
    columns: dict[str, pd.Series] = {}
    tests: dict[str, pd.Series] = {}
    for protocol, part in by_protocol(done).items():
        auroc = per_set(part, "auroc")
        rows = [name for name in ROWS if name in auroc]
        columns[protocol] = auroc.mean()
        tests[f"p, {protocol}"] = pd.Series(
            {row: p_value(auroc[row], auroc[before]) for before, row in pairwise(rows)}
        )
    shared = comparable(done)
    table = pd.DataFrame(columns | rates(shared) | times(shared) | tests)
    table = table.loc[[name for name in ROWS if name in table.index]]
    return table.rename(index={name: label for name, (label, _) in ROWS.items()})


def differences(done: pd.DataFrame) -> pd.DataFrame:
    """Return how much AUROC the first of each of `PAIRS` has over the second, and p.

    What was hardened is compared, too, with the very detector that it was before: one that is
    fitted apart has another seed.
    """
    columns: dict[str, dict[str, float]] = {}
    for protocol, part in by_protocol(done).items():
        auroc, before = per_set(part, "auroc"), per_set(part, "auroc_unhardened")
        pairs = {
            f"{ROWS[first][0]} less {ROWS[second][0]}": (auroc[first], auroc[second])
            for first, second in PAIRS
            if {first, second} <= set(auroc)
        }
        pairs |= {
            f"{ROWS[name][0]} less itself unhardened": (auroc[name], before[name])
            for name in ROWS
            if name in before
        }
        columns[protocol] = {name: (a - b).mean() for name, (a, b) in pairs.items()}
        columns[f"p, {protocol}"] = {name: p_value(a, b) for name, (a, b) in pairs.items()}
    return pd.DataFrame(columns)


def policy_ratios(done: pd.DataFrame) -> pd.DataFrame:
    """Compare what PPO and the random policy find per query, by detector.

    The ratio is the median over the sets on which the random policy finds anything.
    """
    sums = comparable(done).groupby(["set", "method"])[["successes", "queries"]].sum()
    rate = (sums["successes"] / sums["queries"]).unstack()
    lines = {}
    for detector, (random, ppo) in POLICIES.items():
        if {random, ppo} <= set(rate):
            ratio = (rate[ppo] / rate[random])[rate[random] > 0]
            lines[detector] = {"sets": len(ratio), "PPO finds, times random's": ratio.median()}
    return pd.DataFrame.from_dict(lines, orient="index")


if __name__ == "__main__":
    run_command(lambda: ablate(tyro.cli(GridSettings, description=__doc__)))
