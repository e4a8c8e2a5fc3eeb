"""The comparison of algorithms, on a small scale."""

import json

import pytest

from benchmarks.algorithms import COLUMNS, AlgorithmSettings, compare
from common.errors import InputError


def test_every_algorithm_is_measured_on_every_set(tmp_path, capsys):
    settings = AlgorithmSettings(
        algos=("a2c", "random"),
        data=("wine", "breast-cancer"),
        protocol="full",
        detector="sklearn:svm.SVC",
        rounds=1,
        timesteps=512,
        seeds=1,
        out=tmp_path / "figures.json",
    )
    records = compare(settings)
    assert [(r["data"], r["algo"]) for r in records] == [
        (source, algo) for source in settings.data for algo in settings.algos
    ]
    for record in records:
        assert 0 <= record["successes_per_1000"] <= record["bypasses_per_1000"] <= 1000
        assert 0.5 < record["auroc_after"] <= 1
    first, second = records[:2]
    assert first["auroc_before"] == second["auroc_before"], "both must start alike"
    assert json.loads(settings.out.read_text())["runs"] == records
    printed = capsys.readouterr().out
    assert "wine, full" in printed
    assert all(name.replace("_", " ") in printed for name in COLUMNS)


def test_unknown_algorithm_is_refused_before_anything_runs(tmp_path):
    settings = AlgorithmSettings(algos=("ppo", "pppo"), out=tmp_path / "figures.json")
    with pytest.raises(InputError, match="did you mean ppo"):
        compare(settings)
    assert not settings.out.exists()
