"""The comparison of algorithms, on a small scale."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from agents.settings import HardeningSettings
from benchmarks.algorithms import COLUMNS, AlgorithmSettings, compare, means, measure
from common.errors import InputError
from data import load, split


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


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"algos": ("ppo", "pppo")}, "did you mean ppo"),
        ({"data": ("wine", "nosuch")}, "nosuch"),
        ({"data": ()}, "There is no data"),
        ({"detector": "catbost"}, "did you mean catboost"),
        ({"out": Path()}, "is a folder"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_runs(tmp_path, monkeypatch, wrong, told):
    monkeypatch.setattr("agents.hardening.harden", None)
    settings = AlgorithmSettings(**{"data": ("wine",), "out": tmp_path / "figures.json", **wrong})
    with pytest.raises(InputError, match=told):
        compare(settings)
    assert not list(tmp_path.iterdir())


def test_figures_of_an_algorithm_are_means_over_its_seeds():
    runs = [
        {"algo": algo, **dict.fromkeys(COLUMNS, value)}
        for algo, value in (("a", 1), ("b", 5), ("a", 3))
    ]
    assert means(runs) == {"a": dict.fromkeys(COLUMNS, 2.0), "b": dict.fromkeys(COLUMNS, 5.0)}


def test_a_record_tells_of_the_held_out_rows_before_and_after(monkeypatch):
    halves = split(load("breast-cancer"), "few", 1)
    before, after = (
        SimpleNamespace(decision_function=lambda X, column=column: X[:, column])
        for column in (1, 0)
    )

    def harden(X, y, loop, seed):
        np.testing.assert_array_equal(X, halves.X_train)
        assert loop == HardeningSettings("catboost", algo="a2c", rounds=3, timesteps=99)
        assert seed == 1
        history = [{"queries": 500, "bypasses": 20, "successes": number} for number in (1, 2)]
        return SimpleNamespace(
            history=history, unhardened=before, scenario=SimpleNamespace(detector=after)
        )

    monkeypatch.setattr("agents.hardening.harden", harden)
    settings = AlgorithmSettings(protocol="few", detector="catboost", rounds=3, timesteps=99)
    record = measure(halves, "a2c", 1, settings)
    aurocs = [roc_auc_score(halves.y_test, halves.X_test[:, column]) for column in (1, 0)]
    assert [record["auroc_before"], record["auroc_after"]] == pytest.approx(aurocs)
    assert [record["bypasses_per_1000"], record["successes_per_1000"]] == [40, 3]
