"""The grid, its tables, the peers and the ablation's variants."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from commands import command
from conftest import blobs, stop
from matplotlib import image
from scipy.special import expit, log_expit
from scipy.stats import wilcoxon
from sklearn.metrics import average_precision_score, roc_auc_score

import data
import detectors
from agents.agent import make_agent
from agents.hardening import Hardened, harden
from agents.settings import HardeningSettings
from benchmarks import ablation, accuracy, tables
from benchmarks.devnet import DevNet, ScoringNetwork, deviation_loss
from benchmarks.grid import Source, find_sets, read_results, run_grid
from benchmarks.methods import METHODS, OURS, PEERS, Peer
from benchmarks.picture import draw_means
from benchmarks.search import SearchSettings, run, search
from benchmarks.search import summarise as summarise_search
from benchmarks.settings import GridSettings
from benchmarks.variants import DefaultPPO, FrozenVAE, OpenGate, PerceptronMoEDetector
from common.errors import InputError
from common.files import write_json
from detectors.mamba2 import Mamba2
from detectors.mamba_moe import MambaMoEDetector
from envs.sb3 import SB3VecEnv
from envs.vector import LatentAnomalyVectorEnv
from swift_hydra import SwiftHydra

PACKAGES = {
    "xgboost": ["xgboost"],
    "lightgbm": ["lightgbm"],
    "xgbod": ["pyod", "xgboost"],
    "tabm": ["tabm"],
    **{name: ["pyod"] for name in ("knn", "lof", "iforest", "ecod")},
}


class FirstColumn:
    """Scores a row by its first column; `fits` are its calls of `fit`."""

    def __init__(self, fits: list[int], before_fit: Callable[[int], None]) -> None:
        self.fits, self.before_fit = fits, before_fit

    def fit(self, X, y):
        self.before_fit(len(self.fits))
        self.fits.append(len(y))
        return self

    def decision_function(self, X):
        return X[:, 0]


def first_column(before_fit: Callable[[int], None] = lambda n: None):
    """Return a method table, and the list of its fits."""
    fits: list[int] = []
    return {"first": lambda seed: FirstColumn(fits, before_fit)}, fits


@pytest.fixture
def settings(tmp_path) -> GridSettings:
    """Two sets, three protocols, two seeds: twelve cells a method."""
    return GridSettings(data=("wine", "breast-cancer"), seeds=(0, 1), workers=1, out=tmp_path)


def test_second_run_recomputes_nothing_and_adds_what_is_new(settings):
    table, fits = first_column()
    first = run_grid(settings, table)
    assert len(fits) == 12
    pd.testing.assert_frame_equal(run_grid(settings, table), first)
    assert len(fits) == 12
    run_grid(replace(settings, seeds=(0, 1, 2)), table)
    assert len(fits) == 18
    more = run_grid(settings, table | {"second": table["first"]})
    assert len(fits) == 30
    assert set(more["method"]) == {"first", "second"}
    assert len(pd.read_csv(settings.out / "results.csv")) == 30


def test_interrupted_run_keeps_finished_cells_and_goes_on(settings):
    def interrupt(n: int) -> None:
        if n == 5:
            raise KeyboardInterrupt

    table, fits = first_column(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_grid(settings, table)
    kept = {file: file.read_bytes() for file in settings.out.glob("cells/*/*.json")}
    assert len(kept) == len(fits) == 5
    table, fits = first_column()
    assert len(run_grid(settings, table)) == 12
    assert len(fits) == 7
    assert all(file.read_bytes() == content for file, content in kept.items())


def test_what_a_killed_run_left_half_written_is_no_cell(settings):
    table, fits = first_column()
    first = run_grid(settings, table)
    (settings.out / "cells" / "first" / ".wine-full-0.json.x1.json").write_text("")
    pd.testing.assert_frame_equal(run_grid(settings, table), first)
    assert len(fits) == 12


def test_seed_0_runs_over_all_sets_first_and_cheap_sets_before_dear_ones(settings):
    table, fits = first_column()
    run_grid(replace(settings, protocols=("full",)), table)
    assert fits == sorted(fits[:2]) * 2


def test_cells_hold_the_figures_of_the_held_out_rows(settings):
    import data

    table, _ = first_column()
    (cell,) = run_grid(
        replace(settings, data=("wine",), protocols=("unseen",), seeds=(1,)), table
    ).to_dict("records")
    halves = data.split(data.load("wine"), "unseen", 1)
    assert cell["auroc"] == pytest.approx(roc_auc_score(halves.y_test, halves.X_test[:, 0]))
    assert (cell["n_train"], cell["n_test"]) == (len(halves.y_train), len(halves.y_test))
    assert cell["microseconds_a_row"] > 0


def test_failed_cell_is_reported_and_tried_again(settings):
    def fail(n: int) -> None:
        if n == 5:
            raise ValueError("no\nluck")

    table, fits = first_column(fail)
    results = run_grid(settings, table)
    assert len(fits) == 5
    assert (results["error"] == "ValueError: no luck").sum() == 7
    text = tables.report(results, "first")
    assert "## Failed: 7 cells" in text
    assert "seed 1, first: ValueError: no luck" in text
    table, fits = first_column()
    assert (run_grid(settings, table)["error"] == "").all()
    assert len(fits) == 7


def test_two_workers_agree_with_one(settings):
    table = {name: METHODS[name] for name in ("logistic-regression", "extra-trees")}
    few = replace(settings, protocols=("full",), seeds=(0,))
    measures = ["set", "method", "auroc", "average_precision", "error"]
    alone = run_grid(few, table)[measures]
    together = run_grid(replace(few, workers=2, out=settings.out / "two"), table)[measures]
    pd.testing.assert_frame_equal(alone, together)


def test_bad_settings_are_refused(settings, tmp_path):
    table, _ = first_column()
    (tmp_path / "empty").mkdir()
    refused = {
        "no data": replace(settings, data=()),
        "did you mean full": replace(settings, protocols=("ful",)),
        "did you mean first": replace(settings, methods=("frist",)),
        "workers": replace(settings, workers=0),
        "seed": replace(settings, seeds=(-1,)),
        "holds none": replace(settings, tables_only=True),
        "no .npz": replace(settings, data=(str(tmp_path / "empty"),)),
    }
    for words, bad in refused.items():
        with pytest.raises(InputError, match=words):
            run_grid(bad, table)
    X, y = blobs()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "same.npz", X=X, y=y)
    same = tuple(str(tmp_path / name) for name in ("a", "b"))
    with pytest.raises(InputError, match="both called same"):
        run_grid(replace(settings, data=same), table)
    for name in (".hidden.npz", os.fsdecode(b"caf\xe9.npz")):
        shutil.copy(tmp_path / "a" / "same.npz", tmp_path / name)
        with pytest.raises(InputError, match=rf"name of .*{name}; rename it"):
            run_grid(replace(settings, data=(str(tmp_path / name),)), table)


def test_a_set_by_two_paths_is_one(settings, tmp_path, monkeypatch):
    X, y = blobs()
    np.savez(tmp_path / "mine.npz", X=X, y=y)
    monkeypatch.chdir(tmp_path)
    both = replace(settings, data=("mine.npz", str(tmp_path / "mine.npz")))
    assert len(run_grid(both, first_column()[0])) == 6


def test_rows_that_change_while_a_run_goes_on_are_refused(settings, tmp_path):
    file, (X, y) = tmp_path / "mine.npz", blobs()
    np.savez(file, X=X, y=y)

    def change(n: int) -> None:
        np.savez(file, X=X[:-5], y=y[:-5])

    mine = replace(settings, data=(str(file),), protocols=("full",))
    results = run_grid(mine, first_column(change)[0])
    assert not results["error"][0]
    assert "mine.npz has changed since the run began; restore it" in results["error"][1]
    with pytest.raises(InputError, match="other rows called mine"):
        run_grid(mine, first_column()[0])
    results = run_grid(replace(mine, out=tmp_path / "another"), first_column()[0])
    assert (results["n_train"] + results["n_test"]).tolist() == [len(y) - 5] * 2


def test_a_process_that_is_killed_ends_the_run_in_one_sentence(settings):
    def kill(n: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match="A process was killed"):
        run_grid(replace(settings, workers=2), first_column(kill)[0])


def test_results_of_a_search_may_be_in_the_same_folder(settings):
    table, fits = first_column()
    first = run_grid(settings, table)
    records = [kept_search("random", 2000, 10, 10)]
    write_json(settings.out / "cells" / "catboost" / "wine-unseen-40000-0.json", records)
    pd.testing.assert_frame_equal(run_grid(settings, table), first)
    assert len(fits) == 12


def test_other_rows_of_the_same_name_are_refused(settings, tmp_path):
    table, fits = first_column()
    file = tmp_path / "mine.npz"
    X, y = blobs()
    np.savez(file, X=X, y=y)
    mine = replace(settings, data=(str(file),), protocols=("full",), seeds=(0,))
    run_grid(mine, table)
    np.savez(file, X=X + 1, y=y)
    with pytest.raises(InputError, match=r"other rows called mine; .* another --out"):
        run_grid(mine, table)
    assert len(fits) == 1
    assert len(run_grid(replace(mine, out=tmp_path / "another"), table)) == 1


def test_results_of_a_longer_name_are_of_another_set(settings, tmp_path):
    table, _ = first_column()
    X, y = blobs()
    named = {name: tmp_path / f"{name}.npz" for name in ("a", "a-b", "a-full")}
    for name, file in named.items():
        np.savez(file, X=X, y=y)
        if name != "a":
            mine = replace(settings, data=(str(file),), protocols=("full",), seeds=(0,))
            run_grid(mine, table)
    find_sets((str(named["a"]),), settings.out)
    np.savez(named["a"], X=X + 1, y=y)
    mine = replace(settings, data=(str(named["a"]),), protocols=("full",), seeds=(0,))
    assert len(run_grid(mine, table)) == 1


def test_rows_of_which_nothing_was_finished_may_change(settings, tmp_path):
    table, _ = first_column()
    file = tmp_path / "mine.npz"
    X, y = blobs()
    np.savez(file, X=np.where(y[:, None], 9, X), y=y)  # anomalies that are all alike
    mine = replace(settings, data=(str(file),), protocols=("full",), seeds=(0,))
    assert run_grid(mine, table)["error"].all()
    np.savez(file, X=X, y=y)
    assert not run_grid(mine, table)["error"].any()
    np.savez(file, X=X + 1, y=y)
    with pytest.raises(InputError, match="other rows called mine"):
        run_grid(mine, table)


def test_tables_alone_leave_nothing_where_there_are_none(settings, tmp_path):
    with pytest.raises(InputError, match="holds none of these cells"):
        run_grid(replace(settings, tables_only=True, out=tmp_path / "typo"), first_column()[0])
    assert not (tmp_path / "typo").exists()


def test_method_whose_package_is_missing_is_refused_before_anything_runs(settings):
    from benchmarks.methods import supervised

    table, fits = first_column()
    table["absent"] = partial(supervised, "no_such_package:Classifier")
    with pytest.raises(InputError, match=r"'absent'.*requirements-benchmarks.txt"):
        run_grid(settings, table)
    assert not fits


def cells(scores: dict[str, list[list[float]]], protocol: str = "full") -> pd.DataFrame:
    """Finished cells from the AUROC of each method, set and seed."""
    records = [
        {
            "set": f"set{number}",
            "protocol": protocol,
            "seed": seed,
            "method": method,
            "auroc": auroc,
            "average_precision": auroc / 2,
            "auroc_unhardened": auroc - 0.01 if method == "swift-hydra" else np.nan,
            "fit_seconds": float(seed),
            "microseconds_a_row": 1.0 + number,
            "n_train": 10,
            "n_test": 10 * (number + 1),
            "error": "",
        }
        for method, sets in scores.items()
        for number, seeds in enumerate(sets)
        for seed, auroc in enumerate(seeds)
    ]
    return pd.DataFrame(records)


SCORES = {
    "a": [[0.9, 0.7], [0.6, 0.6], [1.0, 1.0]],
    "b": [[0.7, 0.7], [0.7, 0.7], [1.0, 1.0]],
    "c": [[0.1, 0.9], [0.9, 0.1], [0.2, 0.4]],
}


def test_summary_agrees_with_figures_worked_out_by_hand():
    summary = tables.summarise(cells(SCORES), "a")
    assert summary.index.tolist() == ["a", "b", "c"] or summary.index.tolist() == ["b", "a", "c"]
    assert summary["mean AUROC"].to_dict() == pytest.approx({"a": 0.8, "b": 0.8, "c": 1.3 / 3})
    assert summary["mean AP"]["a"] == pytest.approx(0.4)
    # ranks: set0 .8 .7 .5, set1 .6 .7 .5, set2 1 1 .3
    assert summary["mean rank"].to_dict() == pytest.approx({"a": 4.5 / 3, "b": 4.5 / 3, "c": 3})
    assert summary["wins"].to_dict() == {"a": 2, "b": 2, "c": 0}
    assert summary["fit, s"]["b"] == 0.5
    assert summary["score, us a row"]["b"] == pytest.approx((1 * 10 + 2 * 20 + 3 * 30) / 60)
    assert np.isnan(summary["p v. a"]["a"])


def test_means_that_differ_by_rounding_are_ties():
    a, b = (np.array(of_seeds) / 144 for of_seeds in ([129, 125, 121], [130, 131, 114]))
    summary = tables.summarise(cells({"a": [a.tolist()] * 6, "b": [b.tolist()] * 6}), "a")
    assert summary["mean rank"].tolist() == [1.5, 1.5]
    assert summary["wins"].tolist() == [6, 6]
    assert summary["p v. a"]["b"] == 1


def test_p_value_is_the_exact_signed_rank_test():
    better = pd.Series([0.9, 0.8, 0.7, 0.95, 0.85, 0.75])
    worse = better - [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    assert tables.p_value(better, worse) == pytest.approx(2 / 2**6)
    assert tables.p_value(better, better) == 1.0


def test_p_value_takes_differences_for_alike_that_differ_by_rounding():
    tenths = np.array([1, -1, 1, 3, 7, -1, 2])
    second = pd.Series([0.2, 0.2, 0.3, 0.2, 0.1, 0.9, 0.5])
    assert tables.p_value(second + tenths / 10, second) == wilcoxon(tenths).pvalue


def test_p_value_of_nothing_is_missing():
    assert np.isnan(tables.p_value(pd.Series(dtype=float), pd.Series(dtype=float)))


def test_cells_that_one_method_lacks_count_for_none():
    results = cells(SCORES)
    lacking = results[~((results["method"] == "b") & (results["set"] == "set0"))]
    assert tables.summarise(lacking, "a")["mean AUROC"]["a"] == pytest.approx(0.8)
    assert tables.coverage(lacking) == "2 of 3 sets, seeds 0, 1"
    one_seed = results[
        ~((results["method"] == "b") & (results["set"] == "set0") & (results["seed"] == 1))
    ]
    assert tables.per_set(one_seed, "auroc")["a"]["set0"] == pytest.approx(0.9)
    first = results[(results["method"] == "a") | (results["seed"] == 0)]
    assert tables.coverage(first) == "3 of 3 sets, seeds 0"


def test_a_method_that_finished_nothing_in_a_protocol_leaves_the_mean_to_the_others():
    both = pd.concat([cells(SCORES), cells({name: SCORES[name] for name in "ab"}, "few")])
    assert tables.summarise(both, "a")["mean AUROC"].to_dict() == pytest.approx(
        {"a": 0.8, "b": 0.8}
    )
    assert tables.coverage(both) == "3 of 3 sets, seeds 0, 1"


def test_mean_of_the_protocols_averages_seeds_within_a_protocol_first():
    full, few = cells(SCORES), cells({name: [[0.5, 0.5]] for name in SCORES}, "few")
    both = pd.concat([full, few[few["seed"] == 0]])
    mean = tables.per_set(both, "auroc")
    assert mean.index.tolist() == ["set0"]
    assert mean["a"]["set0"] == pytest.approx((0.8 + 0.5) / 2)
    text = tables.report(both, "a")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## full",
        "## few",
        "## mean of the protocols",
    ]


def test_markdown_has_a_row_a_method_and_a_dash_for_what_is_missing():
    lines = tables.markdown(tables.summarise(cells(SCORES), "a")).splitlines()
    assert lines[0].startswith("| method | mean AUROC | mean AP | mean rank | wins |")
    (own,) = [line for line in lines if line.startswith("| a |")]
    assert own == "| a | 0.8000 | 0.4000 | 1.50 | 2 | 0.50 | 2.3 | - |"


def test_markdown_writes_no_power_of_ten_for_a_large_ratio():
    line = tables.markdown(pd.DataFrame({"v. a": [123.4], "p, full": [0.00123]}, ["b"]))
    assert line.splitlines()[-1] == "| b | 123 | 0.0012 |"


class Recorder:
    """Remembers what it was fitted on, and scores by the first column."""

    def fit(self, X, y=None):
        self.seen = X, y

    def predict_proba(self, X):
        return np.column_stack([1 - X[:, 0], X[:, 0]])


def test_peers_are_scaled_on_their_training_rows_and_one_class_ones_see_no_labels(rows):
    X, y = rows
    supervised, one_class = (Peer(Recorder(), kind).fit(X, y) for kind in (False, True))
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    np.testing.assert_allclose(supervised.estimator.seen[0], scaled)
    assert supervised.estimator.seen[1] is y
    np.testing.assert_allclose(one_class.estimator.seen[0], scaled[y == 0])
    assert one_class.estimator.seen[1] is None
    shifted = X + 3
    np.testing.assert_allclose(
        supervised.decision_function(shifted), scaled[:, 0] + 3 / X[:, 0].std()
    )


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.filterwarnings("ignore::UserWarning:pyod", "ignore::UserWarning:xgboost")
def test_peer_scores_alike_with_the_same_seed_and_finds_what_stands_out(name):
    for package in PACKAGES.get(name, []):
        pytest.importorskip(package, reason="requirements-benchmarks.txt is not installed")
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((120, 3)), rng.standard_normal((20, 3)) + 3])
    X, y = np.column_stack([X, np.ones(len(X))]), np.repeat([0, 1], [120, 20])
    first, second = (METHODS[name](3).fit(X, y).decision_function(X) for _ in range(2))
    assert first.shape == (len(X),)
    np.testing.assert_array_equal(first, second)
    assert roc_auc_score(y, first) > 0.9


def test_deviation_loss_agrees_with_its_formula_and_refuses_to_pair_all_with_all():
    prior = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    scores, y = torch.tensor([0.5, -2.0, 3.0, 9.0]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    z = [(float(s) - float(prior.mean())) / float(prior.std()) for s in scores]
    expected = (abs(z[0]) + abs(z[1]) + (5 - z[2]) + 0) / 4
    assert float(deviation_loss(scores, y, prior)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="differ in shape"):
        deviation_loss(scores[:, None], y, prior)


def test_every_layer_of_devnet_gets_a_gradient():
    torch.manual_seed(0)
    network, prior = ScoringNetwork(4, 20), torch.randn(5000)
    y = torch.arange(2).repeat_interleave(32).float()
    deviation_loss(network(torch.randn(64, 4)), y, prior).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_devnet_puts_anomalies_a_margin_above_normals():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((200, 4)), rng.standard_normal((10, 4)) + 3])
    y = np.repeat([0, 1], [200, 10])
    scores = DevNet().fit(X, y).decision_function(X)
    assert scores[y == 1].mean() > 3
    assert abs(scores[y == 0].mean()) < 0.5


QUICK = HardeningSettings(rounds=1, timesteps=128, n_lanes=4, n_background=50, detector="catboost")


def quickly(rows, **settings) -> Hardened:
    return harden(*rows, replace(QUICK, **settings), 0)


def test_ungated_search_takes_every_candidate_for_feasible(rows):
    hardened = quickly(rows, algo="benchmarks.variants:UngatedPPO")
    assert all(record["feasible"] == record["queries"] for record in hardened.history)
    core = hardened.agent.core
    assert isinstance(core.scenario.gate, OpenGate)
    assert core.scenario.gate.radius == hardened.scenario.gate.radius
    assert not isinstance(hardened.scenario.gate, OpenGate)


def test_union_of_policies_shares_the_queries_equally(rows):
    hardened = quickly(rows, algo="benchmarks.variants:UnionPPO", timesteps=1024)
    assert all(record["queries"] == 1024 for record in hardened.history)
    assert hardened.agent.num_timesteps == 512


def test_single_minded_search_has_no_diversity_term(rows):
    hardened = quickly(rows, algo="benchmarks.variants:SingleMindedPPO")
    assert hardened.agent.core.weights.diversity == 0
    assert hardened.agent.core.weights.bypass > 0


def test_frozen_generator_stays_as_it_was_fitted(rows):
    generator = FrozenVAE(latent_dim=2, steps=20).fit(*rows)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    generator.partial_fit(*rows)
    assert all(torch.equal(before[name], now) for name, now in generator.state_dict().items())


def test_perceptron_mixture_has_no_mamba_and_as_many_parameters(rows):
    quick = {"n_experts": 2, "steps": 20}
    mamba = MambaMoEDetector(**quick).fit(*rows).network_
    network = PerceptronMoEDetector(**quick).fit(*rows).network_
    assert any(isinstance(module, Mamba2) for module in mamba.modules())
    assert not any(isinstance(module, Mamba2) for module in network.modules())
    counts = [sum(p.numel() for p in net.parameters()) for net in (mamba, network)]
    assert counts[1] == pytest.approx(counts[0], rel=0.02)


def test_perceptron_mixture_is_saved_and_loaded(rows, tmp_path):
    detector = PerceptronMoEDetector(n_experts=2, steps=5, n_trees=5).fit(*rows)
    detector.save(tmp_path)
    loaded = PerceptronMoEDetector.load(tmp_path)
    scores = detector.decision_function(rows[0])
    np.testing.assert_array_equal(loaded.decision_function(rows[0]), scores)


def test_ablation_tests_each_row_against_the_one_before():
    sets = [[0.5 + 0.01 * number] for number in range(6)]
    better = [[auroc + 0.01 * (number + 1)] for number, (auroc,) in enumerate(sets)]
    done = cells({"mamba-moe": sets, "random": better, "swift-hydra": better})
    done = done.assign(queries=np.nan, bypasses=np.nan, successes=np.nan)
    for method, found in (("random", 1), ("swift-hydra", 6)):
        mine = done["method"] == method
        done.loc[mine, ["queries", "bypasses", "successes"]] = [500, 2 * found, found]
    summary = ablation.summarise(done)
    assert summary.index.tolist() == ["no augmentation", "random latents", "PPO (default)"]
    assert np.isnan(summary["p, full"].iloc[0])
    assert summary["p, full"].iloc[1:].tolist() == pytest.approx([2 / 2**6, 1.0])
    assert summary["found per 1000"].iloc[1:].tolist() == pytest.approx([2.0, 12.0])
    assert summary["bypasses per 1000"].iloc[1:].tolist() == pytest.approx([4.0, 24.0])
    gains = ablation.differences(done)
    assert gains.index.tolist() == [
        "PPO (default) less no augmentation",
        "PPO (default) less random latents",
        "PPO (default) less itself unhardened",
    ]
    assert gains["full"].tolist() == pytest.approx([0.035, 0.0, 0.01])
    assert gains["p, full"].tolist() == pytest.approx([2 / 2**6, 1.0, 2 / 2**6])
    ratios = ablation.policy_ratios(done)
    assert ratios.loc["mamba-moe"].tolist() == pytest.approx([6, 6.0])


def test_ablation_says_which_sets_each_protocol_is_of(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ablation, "ROWS", {"mamba-moe": ("first", Remembering)})
    settings = GridSettings(("wine",), (), ("full", "few"), (0,), workers=1, out=tmp_path)
    ablation.ablate(settings)
    ablation.ablate(replace(settings, data=("breast-cancer",), protocols=("full",)))
    ablation.ablate(replace(settings, data=(), tables_only=True))
    told = capsys.readouterr().out
    assert (
        "full: 2 of 2 sets, seeds 0; few: 1 of 1 sets, seeds 0; mean of the protocols: 1 of 2"
        in told
    )


def test_picture_shows_the_means_of_the_tables_best_on_top():
    cells = [
        ("a", "full", "good", 0.9),
        ("a", "full", "fair", 0.6),
        ("b", "full", "good", 0.7),
        ("b", "full", "fair", 0.8),
        ("a", "few", "good", 0.6),
        ("a", "few", "fair", 0.5),
    ]
    done = pd.DataFrame(cells, columns=["set", "protocol", "method", "auroc"]).assign(seed=0)
    full, few, mean = draw_means(done).axes[0].lines
    assert [list(line.get_xdata()) for line in (full, few, mean)] == [
        pytest.approx([0.7, 0.8]),
        pytest.approx([0.5, 0.6]),
        pytest.approx([0.55, 0.75]),
    ]
    assert list(full.get_ydata()) == ["fair", "good"]
    assert [line.get_label() for line in (full, few, mean)] == ["full", "few", tables.MEAN]


def test_no_picture_is_drawn_where_all_cells_failed(tmp_path, monkeypatch):
    def fail(n: int) -> None:
        raise ValueError("no fit today")

    monkeypatch.setitem(METHODS, "failing", first_column(fail)[0]["first"])
    accuracy.compare(GridSettings(("wine",), ("failing",), ("full",), (0,), 1, tmp_path))
    assert "no fit today" in (tmp_path / "accuracy.md").read_text()
    assert not (tmp_path / "accuracy.png").exists()


def test_accuracy_command_writes_csv_and_tables(tmp_path):
    where = ["--protocols", "full", "few", "--seeds", 0, "--out", tmp_path]
    methods = ["--methods", "logistic-regression", "unhardened-extra-trees"]
    run = ["-m", "benchmarks.accuracy", "--data", "wine", *methods, *where]
    done = command(*run, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (tmp_path / "accuracy.md").read_text().strip()
    assert "auroc=" in done.stderr
    results = read_results(tmp_path)
    assert len(results) == 4
    assert (results["error"] == "").all()
    assert len(pd.read_csv(tmp_path / "results.csv")) == 4
    again = command("-m", "benchmarks.accuracy", "--tables-only", *methods, *where)
    assert again.stdout == done.stdout
    assert image.imread(tmp_path / "accuracy.png").std() > 0


@pytest.mark.parametrize("module", ["benchmarks.accuracy", "benchmarks.ablation"])
def test_bad_argument_is_one_sentence(module, tmp_path):
    done = command("-m", module, "--data", "wine", "--methods", "mamba-mo", "--out", tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "did you mean mamba-moe" in done.stderr
    assert not list(tmp_path.iterdir())


def kept_search(algo, queries, bypasses, successes):
    counts = {"queries": queries, "bypasses": bypasses, "successes": successes}
    counts["episodes"] = 200 + successes
    return {"set": "wine", "detector": "extra-trees", "algo": algo, **counts}


def test_search_compares_with_the_random_policy_and_keeps_what_is_finished(tmp_path):
    settings = SearchSettings(data=("wine",), detectors=("extra-trees",), workers=1, out=tmp_path)
    records = [kept_search("random", 2000, 10, 10), kept_search("ppo", 1000, 50, 40)]
    write_json(tmp_path / "cells" / "extra-trees" / "wine-unseen-40000-0.json", records)
    ppo = search(settings).loc["extra-trees, ppo"]
    assert ppo["bypasses per 1000"] == 50
    assert ppo["bypasses, times random's"] == 10
    assert ppo["successes, times random's"] == pytest.approx(8)
    assert ppo["starts counted"] == pytest.approx(4 * 2210 / 1240)
    assert (tmp_path / "search.md").exists()


def test_search_attacks_what_it_hardened_and_lists_what_it_could_not(
    rows, tmp_path, capsys, monkeypatch
):
    X, y = rows
    normals = X[y == 0]
    np.savez(tmp_path / "good.npz", X=X, y=y)
    np.savez(
        tmp_path / "same.npz",
        X=np.concatenate([normals, np.ones((5, 4))]),
        y=np.repeat([0, 1], [len(normals), 5]),
    )
    quick = partial(HardeningSettings, generator="background", rounds=0)
    monkeypatch.setattr("agents.settings.HardeningSettings", quick)
    settings = SearchSettings((str(tmp_path),), ("extra-trees",), timesteps=640, workers=1)
    table = search(replace(settings, out=tmp_path / "out"))
    assert list(table.index) == ["extra-trees, ppo", "extra-trees, random"]
    assert (table["sets"] == 1).all()
    assert "- same, extra-trees: " in capsys.readouterr().out
    assert [file.name for file in (tmp_path / "out" / "cells" / "extra-trees").iterdir()] == [
        "good-unseen-640-0.json"
    ]


def test_search_keeps_what_one_algorithm_found_where_another_does_not_fit(
    rows, tmp_path, capsys, monkeypatch
):
    X, y = rows
    np.savez(tmp_path / "good.npz", X=X, y=y)
    quick = partial(HardeningSettings, generator="background", rounds=0)
    monkeypatch.setattr("agents.settings.HardeningSettings", quick)
    (tmp_path / "broken_agents.py").write_text(
        "from agents.controls import RandomAgent\n"
        "class Broken(RandomAgent):\n"
        "    def learn(self, total_timesteps, **unused):\n"
        "        raise RuntimeError('out of order')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    algos = ("gradient", "broken_agents:Broken", "ppo")
    settings = SearchSettings((str(tmp_path),), ("extra-trees",), algos, timesteps=640, workers=1)
    for _ in range(2):
        table = search(replace(settings, out=tmp_path / "out"))
        assert list(table.index) == ["extra-trees, ppo", "extra-trees, random"]
        told = capsys.readouterr().out
        assert "--algo gradient needs" in told
        assert "RuntimeError: out of order" in told
    (kept,) = (tmp_path / "out" / "cells" / "extra-trees").iterdir()
    assert [record["algo"] for record in json.loads(kept.read_text())] == ["random", "ppo"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"data": ()}, "There is no data"),
        ({"algos": ("pp",)}, "did you mean ppo"),
        ({"algos": ("nowhere:Nothing",)}, "Cannot import 'nowhere'"),
        ({"detectors": ("catbost",)}, "did you mean catboost"),
        ({"protocol": "fw"}, "did you mean few"),
        ({"seed": -1}, "give at least 0"),
        ({"workers": 0}, "give at least 1"),
    ],
)
def test_search_refuses_what_it_cannot_do(settings, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        search(SearchSettings(**{"data": ("wine",), "out": tmp_path, **settings}))
    assert not list(tmp_path.iterdir())


def test_search_takes_a_detector_that_is_named_twice_once(rows, tmp_path, monkeypatch):
    quick = partial(HardeningSettings, generator="background", rounds=0)
    monkeypatch.setattr("agents.settings.HardeningSettings", quick)
    twice = ("extra-trees", "extra-trees")
    settings = SearchSettings(("wine",), twice, (), timesteps=64, workers=1, out=tmp_path)
    assert search(settings)["sets"].tolist() == [1]


def test_search_compares_on_the_sets_that_both_policies_attacked():
    records = [
        {**kept_search(algo, 1000, bypasses, 1), "set": name}
        for algo, name, bypasses in [
            ("random", "a", 10),
            ("ppo", "a", 50),
            ("ppo", "b", 99),
            ("random", "c", 10),
        ]
    ]
    table = summarise_search(pd.DataFrame(records))
    assert table.loc["extra-trees, ppo", "bypasses, times random's"] == 5


def test_search_leaves_out_sets_on_which_the_random_policy_finds_nothing():
    records = [kept_search("random", 1000, 0, 0), kept_search("ppo", 1000, 50, 5)]
    ratio = summarise_search(pd.DataFrame(records)).loc["extra-trees, ppo"]
    assert np.isnan(ratio["bypasses, times random's"])


class Remembering(FirstColumn):
    """Scores by the first column, was another detector before, and tells of two rounds."""

    def __init__(self, seed):
        super().__init__([], lambda n: None)
        self.seed = seed

    def fit(self, X, y):
        self.unhardened_ = SimpleNamespace(decision_function=lambda X: X[:, 1])
        self.history_ = [{"queries": 5, "bypasses": 2, "successes": self.seed}] * 2
        Remembering.seen = X.copy(), y.copy()
        X[:], y[:] = 0, 0  # what a method does to its rows is its own affair
        return self


def test_cells_hold_all_figures_of_what_was_hardened(tmp_path):
    settings = GridSettings(("wine",), (), ("unseen",), (1,), workers=1, out=tmp_path)
    _, cell = run_grid(settings, {"first": Remembering, "second": Remembering}).to_dict("records")
    halves = data.split(data.load("wine"), "unseen", 1)
    np.testing.assert_array_equal(Remembering.seen[0], halves.X_train)
    np.testing.assert_array_equal(Remembering.seen[1], halves.y_train)
    ap = average_precision_score(halves.y_test, halves.X_test[:, 0])
    assert cell["average_precision"] == pytest.approx(ap)
    before = roc_auc_score(halves.y_test, halves.X_test[:, 1])
    assert cell["auroc_unhardened"] == pytest.approx(before)
    assert [cell[name] for name in ("queries", "bypasses", "successes")] == [10, 4, 2]


DIFFERING = {
    "swift-hydra": {},
    "background": {"rounds": 0},
    "random": {"agent": "random"},
    "gradient": {"agent": "gradient"},
    "union": {"agent": "benchmarks.variants:UnionPPO"},
    "ungated": {"agent": "benchmarks.variants:UngatedPPO"},
    "single-minded": {"agent": "benchmarks.variants:SingleMindedPPO"},
    "frozen-generator": {"generator": "cvae-frozen"},
    "hardened-mamba": {"detector": "mamba"},
    "hardened-mlp": {"detector": "mlp-moe"},
    "hardened-extra-trees": {"detector": "extra-trees"},
    "random-extra-trees": {"detector": "extra-trees", "agent": "random"},
    "hardened-catboost": {"detector": "catboost"},
    "random-catboost": {"detector": "catboost", "agent": "random"},
}


def test_rows_of_the_ablation_are_wired_to_what_they_are_called():
    ours = {name: factory for name, (_, factory) in ablation.ROWS.items()} | OURS
    for name, factory in ours.items():
        backend = name.removeprefix("unhardened-")
        expected = (
            SwiftHydra(**DIFFERING[name], random_state=7)
            if name in DIFFERING
            else detectors.make(backend, random_state=7)
        )
        made = factory(7)
        assert type(made) is type(expected), name
        assert made.get_params() == expected.get_params(), name


def test_peers_have_their_settings_and_the_seed():
    settings = {
        "logistic-regression": {"class_weight": "balanced", "max_iter": 1000},
        "catboost": {"iterations": 500},
        "extra-trees": {"n_estimators": 200},
        "random-forest": {"n_estimators": 200},
        "rbf-svm": {"kernel": "rbf", "class_weight": "balanced"},
    }
    for name, expected in settings.items():
        peer = PEERS[name](7)
        made = peer.estimator.get_params()
        assert made.items() >= {**expected, "random_state": 7}.items(), name
        assert not peer.one_class


def test_default_ppo_has_the_settings_of_ppo_here(scenario):
    env = SB3VecEnv(LatentAnomalyVectorEnv(16, scenario=scenario))
    own = DefaultPPO(env=env, policy="MlpPolicy", seed=0)
    ppo = make_agent("ppo", env, 0)
    for name in (
        "gamma",
        "gae_lambda",
        "n_steps",
        "learning_rate",
        "ent_coef",
        "n_epochs",
        "batch_size",
    ):
        assert getattr(own, name) == getattr(ppo, name), name


def test_methods_are_tested_against_the_reference_paired_over_sets():
    sets = np.array([0.50, 0.51, 0.52, 0.53, 0.54, 0.55])
    better, mixed = (
        (sets + np.array(gains) / 1000)[:, None].tolist()
        for gains in ([1, 2, 3, 4, 5, 6], [60, -1, -2, -3, -4, -5])
    )
    done = cells({"own": sets[:, None].tolist(), "better": better, "mixed": mixed})
    p = tables.summarise(done, "own")["p v. own"]
    assert p["better"] == pytest.approx(2 / 2**6)
    assert p["mixed"] == pytest.approx(28 / 2**6)


def test_a_failed_cell_is_in_no_table():
    done = cells({"a": [[0.5], [0.9]], "b": [[0.5], [0.7]]})
    failed = (done["set"] == "set1") & (done["method"] == "b")
    done.loc[failed, ["auroc", "average_precision", "error"]] = [np.nan, np.nan, "no luck"]
    text = tables.report(done, "a")
    assert "1 of 2 sets, seeds 0" in text
    assert "| a | 0.5000 | 0.2500 | 1.50 | 1 |" in text


def test_ratios_are_medians_over_sets_of_each_detector():
    records = [
        {**kept_search(algo, 1000, bypasses, 1), "set": name, "detector": detector}
        for detector, ratios in {"catboost": (1, 2, 9), "mamba-moe": (3, 4, 90)}.items()
        for name, ratio in zip("abc", ratios, strict=True)
        for algo, bypasses in (
            ("random", 10 if detector == "catboost" else 5),
            ("ppo", ratio * (10 if detector == "catboost" else 5)),
        )
    ]
    table = summarise_search(pd.DataFrame(records))["bypasses, times random's"]
    assert table["catboost, ppo"] == 2
    assert table["mamba-moe, ppo"] == 4


def test_search_attacks_the_hardened_detector_for_as_long_as_was_asked(rows, tmp_path, monkeypatch):
    X, y = rows
    np.savez(tmp_path / "good.npz", X=X, y=y)
    quick = partial(HardeningSettings, generator="background", rounds=0)
    attacked = []

    class Watched(LatentAnomalyVectorEnv):
        def __init__(self, n_lanes, scenario):
            attacked.append(scenario.detector)
            super().__init__(n_lanes, scenario=scenario)

    monkeypatch.setattr("agents.settings.HardeningSettings", quick)
    monkeypatch.setattr("envs.vector.LatentAnomalyVectorEnv", Watched)
    settings = SearchSettings((str(tmp_path),), ("catboost",), (), timesteps=640, workers=1)
    search(replace(settings, seed=2, out=tmp_path / "out"))
    (detector,) = attacked
    assert type(detector).__name__ == "CatBoostDetector"
    assert detector.training_rows_["synthetic"].any()
    (file,) = (tmp_path / "out" / "cells" / "catboost").iterdir()
    assert file.name == "good-unseen-640-2.json"
    assert [record["queries"] for record in json.loads(file.read_text())] == [640]


def test_what_was_not_chosen_is_kept_but_not_returned(tmp_path):
    settings = GridSettings(("wine",), (), ("full",), (0, 1), workers=1, out=tmp_path)
    first = {"first": Remembering}
    run_grid(settings, first)
    assert len(run_grid(replace(settings, seeds=(1,)), first)) == 1
    assert (
        len(run_grid(replace(settings, methods=("second",)), first | {"second": Remembering})) == 2
    )
    assert len(run_grid(replace(settings, data=("breast-cancer",)), first)) == 2


def test_other_labels_of_the_same_rows_are_refused(tmp_path):
    X, y = blobs()
    settings = GridSettings(
        (str(tmp_path / "mine.npz"),), (), ("full",), (0,), workers=1, out=tmp_path
    )
    np.savez(tmp_path / "mine.npz", X=X, y=y)
    run_grid(settings, {"first": Remembering})
    np.savez(tmp_path / "mine.npz", X=X, y=np.roll(y, 1))
    with pytest.raises(InputError, match="other rows called mine"):
        run_grid(settings, {"first": Remembering})


def wine(out: Path) -> Source:
    return find_sets(("wine",), out)["wine"]


def test_search_hardens_on_the_rows_of_its_protocol_and_seed(monkeypatch, tmp_path):
    asked = []

    def refuse(*arguments):
        asked.append(arguments)
        stop()

    monkeypatch.setattr("agents.hardening.harden", refuse)
    settings = SearchSettings(("wine",), protocol="full", seed=2)
    run(settings, "wine", wine(tmp_path), "catboost", ["random"])
    ((X, y, loop, seed),) = asked
    halves = data.split(data.load("wine"), "full", 2)
    np.testing.assert_array_equal(X, halves.X_train)
    np.testing.assert_array_equal(y, halves.y_train)
    assert (loop.detector, seed) == ("catboost", 2)


def test_search_refuses_rows_that_change():
    (record,) = run(SearchSettings(("wine",)), "wine", Source("wine", "other"), "x", ["random"])
    assert "wine has changed since the run began" in record["error"]


class Drawing:
    """Tells what it would draw from its own generator and from torch's."""

    drawn: ClassVar[list[tuple[int, float]]] = []

    def __init__(self, env, seed, **unused):
        self.env, self.seed = env, seed

    def predict(self, observation, state=None, episode_start=None):
        return np.zeros((len(observation), 3), np.float32), state

    def set_env(self, env):
        self.env = env

    def learn(self, total_timesteps, **unused):
        Drawing.drawn.append((self.seed, float(torch.rand(()))))
        return self


def test_search_attacks_with_its_seed(scenario, monkeypatch, tmp_path):
    hardened = SimpleNamespace(scenario=scenario)
    monkeypatch.setattr("agents.hardening.harden", lambda *_: hardened)
    Drawing.drawn.clear()
    for seed in (0, 0, 1):
        settings, source = SearchSettings(("wine",), seed=seed), wine(tmp_path)
        run(settings, "wine", source, "x", [f"{__name__}:Drawing"])
    first, again, other = Drawing.drawn
    assert first == again
    assert first[0] != other[0]
    assert first[1] != other[1]


def test_the_ablation_counts_seeds_that_all_rows_finished():
    done = cells({"random": [[0.5, 0.5]], "swift-hydra": [[0.5]]})
    done = done.assign(queries=100.0, bypasses=2.0, successes=1.0)
    done.loc[done["seed"] == 1, ["bypasses", "successes"]] = 50.0
    summary = ablation.summarise(done)
    assert summary["found per 1000"].tolist() == pytest.approx([10, 10])
    assert summary["fit, s"].tolist() == [0, 0]
    assert ablation.policy_ratios(done).loc["mamba-moe"].tolist() == pytest.approx([1, 1])


def test_sets_without_a_find_have_no_ratio():
    done = cells({policy: [[0.5], [0.5], [0.5]] for policy in ("random", "swift-hydra")})
    done = done.assign(queries=100.0, successes=[0.0, 0.0, 2.0, 1.0, 1.0, 6.0])
    assert ablation.policy_ratios(done).loc["mamba-moe"].tolist() == pytest.approx([1, 3])


def test_pairs_and_policies_are_of_one_detector_and_in_order():
    made = {name: factory(0) for name, (_, factory) in ablation.ROWS.items()}
    for detector, (random, ppo) in ablation.POLICIES.items():
        assert (made[random].detector, made[random].agent) == (detector, "random")
        assert (made[ppo].detector, made[ppo].agent) == (detector, "ppo")
    for first, second in ablation.PAIRS:
        assert first.startswith(("swift-hydra", "union", "hardened-")), first
        assert not second.startswith("union")
        if first.startswith("hardened-"):
            assert second.startswith(("unhardened-", "random-")), second


def test_tabm_keeps_the_weights_that_did_best_on_rows_held_out(monkeypatch):
    pytest.importorskip("tabm")
    from benchmarks.tabm_peer import TabMClassifier, split_rows

    monkeypatch.setattr("benchmarks.tabm_peer.BATCH", 8)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((100, 3)), np.arange(100) % 2
    quick = {"k": 2, "d_block": 32, "n_bins": 8, "d_embedding": 8, "patience": 99}
    held_out = split_rows(y, 0)[1]
    losses = []
    for n in (1, 5, 10, 15):
        log_odds = TabMClassifier(**quick, epochs=n).fit(X, y).decision_function(X[held_out])
        losses.append(-log_expit(np.where(y[held_out] == 1, log_odds, -log_odds)).mean())
    assert (np.diff(losses) <= 1e-6).all()


def test_tabm_averages_its_members_probabilities():
    pytest.importorskip("tabm")
    from benchmarks.tabm_peer import TabMClassifier

    X, y = blobs(40, 20)
    model = TabMClassifier(k=4, d_block=16, n_bins=4, d_embedding=4, epochs=5).fit(X, y)
    with torch.no_grad():
        members = model.model_(torch.from_numpy(X).float()).softmax(dim=2)[:, :, 1]
    p = members.mean(dim=1).double().numpy()
    assert members.std(dim=1).max() > 1e-3
    np.testing.assert_allclose(expit(model.decision_function(X)), p, atol=1e-5)


def test_devnets_hidden_layer_is_kept_small():
    X, y = blobs()
    free, held = (
        DevNet(epochs=5, weight_decay=decay).fit(X, y).network_.hidden.weight.norm()
        for decay in (0.0, 1.0)
    )
    assert held < 0.9 * free
