"""The comparison of algorithms, on a small scale."""

from functools import partial

import pandas as pd
import pytest

from benchmarks import methods
from benchmarks.algorithms import AlgorithmSettings, compare, summarise
from common.errors import InputError

FIGURES = {"fit_seconds": 2.0, "microseconds_a_row": 3.0, "n_test": 9}


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
        section = printed[printed.index(f"## {name}, unseen") :]
        assert section.index("| a2c |") < section.index("| random |")
    cells = pd.read_csv(tmp_path / "results.csv")
    assert (cells.groupby("set")["auroc_unhardened"].nunique() == 1).all(), "both must start alike"
    assert cells["auroc"].between(0.5, 1).all()
    assert (cells["successes"] <= cells["bypasses"]).all()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"methods": ("ppo", "pppo")}, "did you mean ppo"),
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


def test_figures_of_an_algorithm_are_of_all_its_seeds():
    cells = pd.DataFrame(
        [
            {"method": method, "queries": 500, "bypasses": 20, "successes": found, **FIGURES}
            | {"auroc_unhardened": 0.5, "auroc": auroc}
            for method, found, auroc in (("ppo", 1, 0.6), ("sac", 4, 0.7), ("ppo", 2, 0.8))
        ]
    )
    table = summarise(cells)
    assert table["bypasses per 1000"].tolist() == [40, 40]
    assert table["found per 1000"].tolist() == [3, 8]
    assert table["AUROC before"].tolist() == [0.5, 0.5]
    assert table["AUROC after"].tolist() == pytest.approx([0.7, 0.7])
