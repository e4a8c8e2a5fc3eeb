"""Runs side by side: where their settings differ, what they found, how their detectors score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.monitor import totals
from agents.report import format_detection, format_table
from agents.runs import open_run
from common.errors import InputError
from common.files import read_json, reading_saved


def compare(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the comparison of run folders, from what `train.py` wrote into them.

    Returns:
        under "settings" those that differ, by name and run; under "search" and "detection" the
        figures of each run, none of detection where it holds no rows out.

    Raises:
        InputError: fewer than two folders, or one is no complete run.
    """
    if len({folder.resolve() for folder in folders}) < 2:
        raise InputError("--compare needs two run folders or more; pass --compare DIR DIR.")
    runs = {shortest(folder, folders): open_run(folder) for folder in folders}
    searches: dict[str, dict[str, float]] = {}
    detection: dict[str, dict[str, float]] = {}
    for name, run in runs.items():
        metrics = read_json(run.folder / "metrics.json")
        with reading_saved(run.folder):
            (bank,) = run.rows("bank")
            searches[name] = search_figures(metrics["history"], len(bank))
            if not metrics["detection"]:
                detection[name] = {}
            for when, measures in metrics["detection"].items():
                detection[f"{name}, {when}"] = dict(measures)
    settings = sorted({key for run in runs.values() for key in run.config} - {"out"})
    values = {key: {name: run.config.get(key) for name, run in runs.items()} for key in settings}
    return {
        "settings": {
            key: by_run
            for key, by_run in values.items()
            if any(value != next(iter(by_run.values())) for value in by_run.values())
        },
        "search": searches,
        "detection": detection,
    }


def shortest(folder: Path, folders: Sequence[Path]) -> str:
    """Name a run by its folder's name, or by its path where two folders have the same name."""
    alone = [other.resolve().name for other in folders].count(folder.resolve().name) == 1
    return folder.resolve().name if alone else str(folder)


def search_figures(history: list[dict[str, float]], bank: int) -> dict[str, float]:
    """Add up the rounds of a run that left a bank of that many rows."""
    total = totals(history)
    return {
        **total,
        "bypasses_per_1000": 1000 * total["bypasses"] / max(total["queries"], 1),
        "bank": bank,
    }


def comparison_text(comparison: dict[str, Any]) -> str:
    """Lay out a comparison as tables for a terminal."""
    settings = comparison["settings"]
    runs = list(comparison["search"])
    differing = {
        name: {key: str(settings[key][name]) for key in settings} for name in runs if settings
    }
    tables = [format_table("settings that differ", differing, list(settings))] if settings else []
    tables.append(format_table("the search", comparison["search"]))
    tables.append(format_detection("on held-out rows", comparison["detection"]))
    return "\n\n".join(tables)
