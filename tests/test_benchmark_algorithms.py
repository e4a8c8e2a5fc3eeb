"""The comparison of algorithms, on a small scale."""

from functools import partial

import pandas as pd
import pytest

from benchmarks import methods
from benchmarks.algorithms import AlgorithmSettings, compare, summarise
from common.errors import InputError

FIGURES = {
    **{"queries": 500, "bypasses": 20, "auroc_unhardened": 0.5},
    **{"fit_seconds": 2.0, "microseconds_a_row": 3.0, "n_test": 9},
}


def test_every_algorithm_is_measured_on_every_set(tmp_path, capsys, monkeypatch):
    quick = partial(methods.hydra, detector="sklearn:svm.SVC", rounds=1, timesteps=512)
    monkeypatch.setattr("benchmarks.methods.hydra", quick)
    settings = AlgorithmSettings(
        data=("wine", "breast-cancer"),
        methods=("a2c", "random"),
        seeds=(0,),
        workers=1,
        out=tmp_path,
    )
    compare(settings)
    printed = capsys.readouterr().out
    assert printed.strip() == (tmp_path / "algorithms.md").read_text().strip()
    for name in settings.data:
        section = printed.partition(f"## {name}, unseen")[2].partition("##")[0]
        assert "seeds 0" in section
        assert all(f"| {algo} |" in section for algo in settings.methods)
    cells = pd.read_csv(tmp_path / "results.csv")
    assert (cells.groupby("set")["auroc_unhardened"].nunique() == 1).all(), "both must start alike"
    assert cells["auroc"].between(0.5, 1).all()
    assert (cells["successes"] <= cells["bypasses"]).all()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"methods": ("ppo", "pppo")}, "did you mean ppo"),
        ({"methods": ("ppo", "nowhere:Nothing")}, "Cannot import 'nowhere'"),
        ({"data": ("wine", "nosuch")}, "nosuch"),
        ({"data": ()}, "There is no data"),
        ({"protocols": ("fw",)}, "did you mean few"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_runs(tmp_path, wrong, told):
    settings = AlgorithmSettings(**{"data": ("wine",), "out": tmp_path, **wrong})
    with pytest.raises(InputError, match=told):
        compare(settings)
    assert not list(tmp_path.iterdir())


def test_figures_are_of_the_seeds_that_all_algorithms_finished():
    where = {"set": "wine", "protocol": "unseen", **FIGURES}
    cells = pd.DataFrame(
        [
            {**where, "method": method, "seed": seed, "successes": found, "auroc": auroc}
            for method, seed, found, auroc in (
                ("ppo", 0, 1, 0.6),
                ("ppo", 1, 2, 0.8),
                ("ppo", 2, 99, 0.1),
                ("sac", 0, 4, 0.7),
                ("sac", 1, 4, 0.9),
            )
        ]
    )
    table = summarise(cells)
    assert table["bypasses per 1000"].tolist() == [40, 40]
    assert table["found per 1000"].tolist() == [3, 8]
    assert table["AUROC before"].tolist() == [0.5, 0.5]
    assert table["AUROC after"].tolist() == pytest.approx([0.7, 0.8])
