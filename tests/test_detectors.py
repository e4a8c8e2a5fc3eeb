"""Every backend keeps the detector's contract, and the flagship learns in all its parts."""

import copy
import json
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import blobs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

import detectors
from common.errors import InputError
from common.files import read_json, write_json
from common.randomness import torch_seed
from common.tensors import load_tensors, save_tensors
from detectors.base import sqrt_balanced_weights
from detectors.mamba_moe import MambaMoEDetector, suggest_n_experts
from detectors.memory import Memory, preferred, trust
from detectors.mixture import HARDENED, REAL
from detectors.neighbour_expert import NeighbourExpert, opinions_of_known
from detectors.novelty import Novelty
from detectors.preprocessing import PiecewiseLinearEncoding
from detectors.remembered import ROWS_AT_ONCE, RememberedRows
from detectors.replay import replay_set
from detectors.router import NoisyTopKRouter
from detectors.tree_expert import TreeExperts, boost, boost_briefly
from detectors.trees import CatBoostDetector, ExtraTreesDetector

ROOT = Path(__file__).parent.parent
QUICK = {
    "mamba-moe": {"steps": 60},
    "mamba": {"steps": 60},
    "extra-trees": {"n_estimators": 30},
    "catboost": {"iterations": 30},
    "forest": {"n_estimators": 30},
}
BACKENDS = sorted(QUICK)


@pytest.fixture(scope="module")
def fitted(rows):
    return {id: detectors.make(id, **QUICK[id]).fit(*rows) for id in BACKENDS}


def test_every_registered_backend_is_tested():
    """Asked in a process of its own, apart from what other tests register."""
    code = "import detectors; print(*sorted(detectors.ids()))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert there.stdout.split() == BACKENDS


@pytest.mark.parametrize("id", BACKENDS)
def test_vocabulary(fitted, rows, id):
    (X, y), detector = rows, fitted[id]
    scores = detector.decision_function(X)
    assert scores.shape == (len(X),)
    assert scores.dtype == np.float64
    assert roc_auc_score(y, scores) > 0.9
    probability = detector.predict_proba(X)
    assert probability.shape == (len(X), 2)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    np.testing.assert_allclose(probability[:, 1], 1 / (1 + np.exp(-scores)), atol=1e-6)
    certain = scores > 0
    np.testing.assert_allclose(np.log(probability[certain, 0]), -np.logaddexp(0, scores[certain]))
    np.testing.assert_array_equal(detector.predict(X), (scores > detector.threshold_).astype(int))
    assert detector.n_features_in_ == X.shape[1]


@pytest.mark.parametrize("id", BACKENDS)
def test_save_and_load_keep_the_scores(fitted, rows, id, tmp_path):
    fitted[id].save(tmp_path)
    loaded = detectors.load(id, tmp_path)
    np.testing.assert_allclose(
        loaded.decision_function(rows[0]), fitted[id].decision_function(rows[0]), atol=1e-6
    )
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_weights_of_another_network_are_refused_in_one_sentence(fitted, tmp_path):
    fitted["mamba-moe"].save(tmp_path)
    settings = read_json(tmp_path / "settings.json")
    settings["params"]["d_model"] = 8
    write_json(tmp_path / "settings.json", settings)
    with pytest.raises(InputError, match=r"another version; train it again"):
        detectors.load("mamba-moe", tmp_path)


@pytest.mark.parametrize("id", BACKENDS)
def test_broken_folder_is_one_sentence(fitted, id, tmp_path):
    fitted[id].save(tmp_path)
    for name in ("settings.json", *(p.name for p in tmp_path.glob("*.safetensors"))):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=name):
            detectors.load(id, tmp_path)
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "settings.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"settings\.json is not readable JSON"):
        detectors.load(id, tmp_path)


@pytest.mark.parametrize("id", BACKENDS)
def test_same_seed_same_scores(rows, id):
    probes = np.random.default_rng(1).uniform(-4, 4, (200, rows[0].shape[1]))
    first, second, other = (
        detectors.make(id, random_state=seed, **QUICK[id]).fit(*rows).decision_function(probes)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("id", BACKENDS)
def test_random_state_of_scikit_learn_and_numbers_of_numpy_are_taken(rows, id, tmp_path):
    """What was drawn of a `RandomState` is saved, so that the detector is the same when loaded."""
    X, y = rows
    probes = np.random.default_rng(1).uniform(-4, 4, (200, X.shape[1]))
    settings = {name: np.int64(value) for name, value in QUICK[id].items()}

    def fit(random_state):
        return detectors.make(id, random_state=random_state, **settings).fit(X, y)

    plain = detectors.make(id, random_state=3, **QUICK[id]).fit(X, y).decision_function(probes)
    np.testing.assert_array_equal(fit(np.int64(3)).decision_function(probes), plain)
    detector, twin, other = (fit(np.random.RandomState(seed)) for seed in (0, 0, 1))
    scores = detector.decision_function(probes)
    np.testing.assert_array_equal(twin.decision_function(probes), scores)
    assert not np.array_equal(other.decision_function(probes), scores)
    for detector in (twin, fit(None)):
        detector.partial_fit(*replay_set(X, y, X[:9] - 6, 0.5)).save(tmp_path)
        scores = detector.decision_function(probes)
        loaded = detectors.load(id, tmp_path)
        np.testing.assert_allclose(loaded.decision_function(probes), scores, atol=1e-6)


@pytest.mark.parametrize("id", BACKENDS)
def test_partial_fit_learns_the_new_rows(rows, id):
    X, y = rows
    bank = np.full((40, X.shape[1]), -6.0) + np.random.default_rng(0).standard_normal((40, 1))
    detector = detectors.make(id, **QUICK[id]).fit(X[: len(X) - 20], y[: len(X) - 20])
    before = detector.decision_function(bank).mean()
    detector.partial_fit(*replay_set(X, y, bank, 0.5))
    assert detector.decision_function(bank).mean() > before
    assert detector.predict(bank).mean() > 0.9


@pytest.mark.parametrize("id", BACKENDS)
def test_a_detector_that_goes_on_is_one_that_began_with_all_rows(rows, id):
    """In turn the real rows are other ones, the same, and the same with another label or seed."""
    X, y = rows
    bank = np.random.default_rng(0).uniform(-6, 6, (60, X.shape[1]))
    relabelled = np.concatenate([y[:-1], 1 - y[-1:]])
    detector = detectors.make(id, **QUICK[id]).fit(X[20:], y[20:])

    def goes_on(X, y, found, **settings):
        replayed = replay_set(X, y, found, 0.5)
        anew = detectors.make(id, **QUICK[id], **settings).fit(*replayed)
        scores = detector.set_params(**settings).partial_fit(*replayed).decision_function(bank)
        np.testing.assert_array_equal(scores, anew.decision_function(bank))

    goes_on(X, y, bank[:30])
    goes_on(X, y, bank)
    goes_on(X, relabelled, bank)
    goes_on(X, relabelled, bank, random_state=5)


@pytest.mark.parametrize("id", ["extra-trees", "catboost", "forest"])
def test_rows_overwritten_after_fit_are_not_what_was_learned(rows, id, tmp_path):
    X, y = (array.copy() for array in rows)
    detector = detectors.make(id, **QUICK[id]).fit(X, y)
    scores = detector.decision_function(rows[0])
    X[:] = X[::-1].copy()
    detector.save(tmp_path)
    np.testing.assert_array_equal(detectors.load(id, tmp_path).decision_function(rows[0]), scores)
    anew = detectors.make(id, **QUICK[id]).fit(X, y)
    np.testing.assert_array_equal(
        detector.partial_fit(X, y).decision_function(X), anew.decision_function(X)
    )


@pytest.mark.parametrize("id", BACKENDS)
def test_synthetic_rows_do_not_stand_in_for_real_anomalies(rows, id):
    X, y = rows
    with pytest.raises(ValueError, match="not synthetic have one class"):
        detectors.make(id, **QUICK[id]).fit(X, y, synthetic=y == 1)


@pytest.mark.parametrize("id", BACKENDS)
@pytest.mark.parametrize("spoil", ["nan", "infinite", "huge", "one class", "label 2", "length"])
def test_bad_rows_are_refused(rows, id, spoil):
    X, y = (array.copy() for array in rows)
    if spoil in ("nan", "infinite", "huge"):
        X[3, 1] = {"nan": np.nan, "infinite": np.inf, "huge": -1e39}[spoil]
    elif spoil == "one class":
        y[:] = 0
    elif spoil == "label 2":
        y[0] = 2
    else:
        y = y[1:]
    with pytest.raises(ValueError, match=r"NaN|infinity|float32|labels|inconsistent"):
        detectors.make(id, **QUICK[id]).fit(X, y)


@pytest.mark.parametrize("id", BACKENDS)
def test_wrong_columns_and_unfitted_are_refused(fitted, rows, id):
    with pytest.raises(ValueError, match="features"):
        fitted[id].decision_function(rows[0][:, 1:])
    with pytest.raises(NotFittedError):
        detectors.make(id).decision_function(rows[0])


@settings(max_examples=20, deadline=None)
@given(
    X=arrays(
        np.float64,
        st.tuples(st.integers(8, 40), st.integers(1, 5)),
        elements=st.floats(-1e9, 1e9, width=32),
    ),
    n_anomalies=st.integers(1, 4),
    n_synthetic=st.integers(0, 3),
)
def test_flagship_scores_are_finite_whatever_the_rows(X, n_anomalies, n_synthetic):
    y = (np.arange(len(X)) < n_anomalies).astype(int)
    detector = MambaMoEDetector(steps=3).fit(*replay_set(X, y, X[:n_synthetic] + 1, 0.5))
    scores = detector.decision_function(X)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(detector.decision_function(X[:1]), scores[:1], rtol=1e-3, atol=1e-3)


def test_every_parameter_of_the_flagship_learns(rows):
    X, y = rows
    bank = X[y == 1] * -1.5
    detector = MambaMoEDetector(n_experts=2, steps=1).fit(*replay_set(X, y, bank, 0.5))
    network, generator = detector.network_.train(), torch.Generator().manual_seed(0)
    network.zero_grad()
    scaled = [network.encoding.scaler(part) for part in (X[:30], X[-30:], bank[:30])]
    batches = [network.encoding(part, network.compare(part)) for part in scaled]
    network.loss(batches, 0.5, generator).backward()
    still = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert still == []


def test_log_odds_are_differentiable_and_equal_the_scores(fitted, rows):
    X = torch.from_numpy(rows[0][:9]).requires_grad_()
    log_odds = fitted["mamba-moe"].log_odds(X)
    log_odds.sum().backward()
    assert (X.grad.abs().sum(dim=1) > 0).all()
    np.testing.assert_allclose(
        log_odds.detach().numpy(),
        fitted["mamba-moe"].decision_function(rows[0][:9]),
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize("id", ["mamba-moe", "extra-trees", "catboost"])
def test_synthetic_rows_do_not_count_where_known_anomalies_are_no_outliers(id):
    """Anomalies in the middle of the normal rows say that rows far away are not of their kind."""
    X, y = np.random.default_rng(0).standard_normal((120, 3)), np.repeat([0, 1], [100, 20])
    X[y == 1] *= 0.1
    fresh = np.random.default_rng(1).standard_normal(X.shape)
    plain, hardened = (
        detectors.make(id, **QUICK[id]).fit(*replay_set(X, y, bank, 0.1)) for bank in (X[:0], 5 + X)
    )
    np.testing.assert_allclose(
        hardened.decision_function(fresh), plain.decision_function(fresh), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    "id", ["mamba-moe", "extra-trees", "catboost", "sklearn:ensemble.IsolationForest"]
)
def test_synthetic_rows_of_no_weight_do_not_count(rows, id):
    """Here they are there; `replay_set` itself leaves a bank of no weight out."""
    X, y, _, synthetic = replay_set(*rows, rows[0] + 5, 0.1)
    weight = np.concatenate([sqrt_balanced_weights(rows[1]), np.zeros(synthetic.sum())])
    hardened = detectors.make(id, **QUICK.get(id, {})).fit(X, y, weight, synthetic)
    plain = detectors.make(id, **QUICK.get(id, {})).fit(*rows)
    np.testing.assert_allclose(
        hardened.decision_function(X), plain.decision_function(X), rtol=1e-4, atol=1e-4
    )


def test_rows_of_no_weight_do_not_count(rows):
    X, y = rows
    more = np.concatenate([X, np.full((60, X.shape[1]), 9.0)])
    weight = np.repeat([1.0, 0.0], [len(X), 60])
    detector = MambaMoEDetector(steps=30).fit(more, np.r_[y, np.zeros(60, int)], weight)
    assert detector.labels_[: len(X)][y == 0].mean() == pytest.approx(0.1, abs=0.02)
    assert detector.predict(more[-1:]).all()


@pytest.mark.parametrize("id", BACKENDS)
def test_a_bank_of_no_weight_changes_nothing(fitted, rows, id):
    bank = np.random.default_rng(0).uniform(-6, 6, (60, rows[0].shape[1]))
    detector = detectors.make(id, **QUICK[id]).fit(*replay_set(*rows, bank, 0))
    np.testing.assert_array_equal(
        detector.decision_function(bank), fitted[id].decision_function(bank)
    )


@pytest.mark.parametrize(
    ("id", "wrong"), [("mamba-moe", {"contamination": 2}), ("extra-trees", {"n_estimators": 0})]
)
def test_a_detector_whose_first_fit_failed_is_not_fitted(id, wrong, rows):
    detector = detectors.make(id, **{**QUICK[id], **wrong})
    with pytest.raises(ValueError, match=next(iter(wrong))):
        detector.fit(*rows)
    with pytest.raises(NotFittedError):
        detector.decision_function(rows[0])
    detector.set_params(**{name: type(detector)().get_params()[name] for name in wrong})
    assert len(detector.partial_fit(*rows).decision_function(rows[0])) == len(rows[0])


@pytest.mark.parametrize(
    "setting", [{"d_model": 12}, {"d_model": 0}, {"learning_rate": -1}, {"learning_rate": None}]
)
def test_settings_that_make_no_network_are_one_sentence(setting, rows):
    with pytest.raises(InputError, match=next(iter(setting))):
        detectors.make("mamba-moe", **setting).fit(*rows)


def test_equal_normal_rows_leave_log_odds_of_a_moderate_size():
    """There is no deviation among them to measure anomalies by."""
    anomalies = np.random.default_rng(0).normal(2, 1, (10, 5))
    X = np.concatenate([np.zeros((200, 5)), anomalies])
    detector = detectors.make("mamba-moe", **QUICK["mamba-moe"]).fit(X, np.arange(210) >= 200)
    scores = detector.decision_function(X)
    assert scores[:200].max() < scores[200:].min()
    assert np.abs(scores).max() < 200


def test_fits_in_threads_are_those_of_their_seeds(rows):
    def scores(seed):
        detector = detectors.make("mamba-moe", **{**QUICK["mamba-moe"], "random_state": seed})
        return detector.fit(*rows).decision_function(rows[0])

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(scores, [0, 1, 0, 1]))
    for seed in (0, 1):
        alone = scores(seed)
        np.testing.assert_array_equal(together[seed], alone)
        np.testing.assert_array_equal(together[seed + 2], alone)


@pytest.mark.parametrize("id", ["mamba-moe", "mamba", "extra-trees", "catboost"])
def test_times_that_float32_does_not_tell_apart_are_told_apart(id):
    """Float32 knows Unix seconds in steps of 128 only."""
    y = np.arange(200) % 2
    X = 1.7e9 + np.random.default_rng(0).integers(0, 10, (200, 1)) + 20 * y[:, None]
    detector = detectors.make(id, **QUICK[id]).fit(X, y)
    later = detector.decision_function(np.array([[1.7e9 + 5], [1.7e9 + 25]]))
    assert later[0] < 0 < later[1]
    hardened = detector.partial_fit(*replay_set(X, y, 1.7e9 + np.full((20, 1), 60.0), 0.5))
    assert hardened.decision_function(np.array([[1.7e9 + 5]])) < 0


@pytest.mark.parametrize("id", ["mamba-moe", "extra-trees", "catboost"])
def test_a_few_zeros_for_missing_times_leave_the_others_apart(id):
    rng, y = np.random.default_rng(0), np.arange(400) % 2
    X = 1.7e9 + rng.integers(0, 10, (400, 1)) + 20 * y[:, None]
    X[rng.choice(400, 20, replace=False)] = 0
    detector = detectors.make(id, **QUICK[id]).fit(X, y)
    later = detector.decision_function(np.array([[1.7e9 + 5], [1.7e9 + 25]]))
    assert later[0] < later[1]


@pytest.mark.parametrize("id", ["mamba-moe", "extra-trees", "catboost"])
@pytest.mark.parametrize("unit", [1e-9, 1e-30, 1e30])
def test_what_a_column_is_measured_in_does_not_matter(rows, id, unit):
    X, y = rows
    detector = detectors.make(id, **QUICK[id]).fit(*replay_set(unit * X, y, 3 * unit * X[:50], 0.1))
    assert roc_auc_score(y, detector.decision_function(unit * X)) > 0.9
    assert np.isfinite(detector.decision_function(np.full((1, 4), 1e300))).all()


@pytest.mark.parametrize("id", BACKENDS)
def test_weights_count_relative_to_each_other(rows, fitted, id):
    """Such as weights that sum to 1 in a large table."""
    X, y = rows
    detector = detectors.make(id, **QUICK[id]).fit(X, y, 2.0**-30 * sqrt_balanced_weights(y))
    np.testing.assert_allclose(
        detector.decision_function(X), fitted[id].decision_function(X), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("id", "later"),
    [
        ("mamba-moe", {"n_bins": 3, "n_trees": 7, "random_state": 5}),
        ("extra-trees", {"n_estimators": 9, "random_state": 5}),
        ("pyod:KNN", {"settings": {"n_neighbors": 1}}),
    ],
)
def test_settings_of_the_next_fit_are_not_saved_with_this_one(rows, tmp_path, id, later):
    detector = detectors.make(id, **QUICK.get(id, {})).fit(*rows)
    scores = detector.decision_function(rows[0])
    detector.set_params(**later).save(tmp_path / "first")
    loaded = detectors.load(id, tmp_path / "first")
    np.testing.assert_allclose(loaded.decision_function(rows[0]), scores, atol=1e-5)
    loaded.save(tmp_path / "second")
    again = detectors.load(id, tmp_path / "second").decision_function(rows[0])
    np.testing.assert_allclose(again, scores, atol=1e-5)


@pytest.mark.parametrize(
    ("id", "setting"),
    [
        ("extra-trees", {"n_estimators": 0}),
        ("catboost", {"iterations": -3}),
        ("catboost", {"iterations": "many"}),
        ("extra-trees", {"n_jobs": 0}),
        ("catboost", {"n_jobs": 2.5}),
    ],
)
def test_settings_of_the_trees_out_of_range_are_refused(rows, id, setting):
    with pytest.raises(InputError, match=f"{next(iter(setting))} is .*; give"):
        detectors.make(id, **setting).fit(*rows)


@pytest.mark.parametrize("bank", [np.empty((0, 2)), np.random.default_rng(0).normal(size=(9, 2))])
def test_catboost_without_a_column_that_varies_is_one_sentence(bank):
    rows = replay_set(np.full((20, 2), 0.1), np.arange(20) % 2, bank, 0.1)
    with pytest.raises(ValueError, match="No column of X varies"):
        detectors.make("catboost").fit(*rows)


@pytest.mark.parametrize("id", ["extra-trees", "catboost"])
def test_trees_learn_from_synthetic_rows_all_around_the_normal_ones(id):
    """Known anomalies lie on one side; those asked about, on the others."""
    rng, y = np.random.default_rng(0), np.repeat([0, 1], [600, 20])
    X = rng.normal(size=(620, 4)) * np.where(y, 0.2, 1)[:, None] + np.outer(y, [4, 0, 0, 0])
    around, elsewhere = rng.normal(size=(2000, 4)), -np.abs(rng.normal(size=(300, 4)))
    bank = rng.uniform(3, 5, (2000, 1)) * around / np.linalg.norm(around, axis=1, keepdims=True)
    unseen = 3.5 * elsewhere / np.linalg.norm(elsewhere, axis=1, keepdims=True)
    asked = np.concatenate([rng.normal(size=(600, 4)), unseen])
    label = np.repeat([0, 1], [600, 300])
    plain = detectors.make(id).fit(X, y)
    hardened = detectors.make(id).fit(*replay_set(X, y, bank, 0.1))
    before, after = (roc_auc_score(label, d.decision_function(asked)) for d in (plain, hardened))
    assert before < 0.9
    assert after > 0.94


@pytest.mark.parametrize("id", ["mamba-moe", "mamba", "extra-trees", "catboost"])
def test_what_learned_from_real_rows_is_kept_while_the_bank_grows(rows, id):
    X, y = rows
    detector = detectors.make(id, **QUICK[id]).fit(X, y)
    of_real = detector.of_real_
    for n in (30, 50, 70):
        detector.partial_fit(*replay_set(X, y, X[:n] + 1, 0.1))
        assert detector.of_real_ is of_real
    detector.partial_fit(*replay_set(X[1:], y[1:], X[:70] + 1, 0.1))
    assert detector.of_real_ is not of_real


@pytest.mark.parametrize("id", BACKENDS)
@pytest.mark.parametrize("unit", [1e-50, 1e37, 1e300])
def test_weights_beyond_float32_are_refused(rows, id, unit):
    X, y = rows
    with pytest.raises(ValueError, match="beyond float32; divide it by its mean"):
        detectors.make(id, **QUICK[id]).fit(X, y, np.full(len(y), unit))


@pytest.mark.parametrize("id", BACKENDS)
def test_real_anomalies_without_weight_are_refused(rows, id):
    X, y, weight, synthetic = replay_set(*rows, rows[0] + 1, 0.5)
    weight[(y == 1) & ~synthetic] = 0
    with pytest.raises(ValueError, match="real rows of one class have the weight 0"):
        detectors.make(id, **QUICK[id]).fit(X, y, weight, synthetic)


def test_synthetic_rows_do_not_outvote_the_labelled_ones(rows):
    """A thousand synthetic rows around the others leave the ranking of known kinds as it was."""
    X, y = rows
    bank = np.random.default_rng(0).uniform(-3, 3, (1000, X.shape[1]))
    plain, hardened = (
        MambaMoEDetector().fit(*replay_set(X, y, part, 0.5)) for part in (bank[:0], bank)
    )
    assert hardened.predict(bank).mean() > plain.predict(bank).mean()
    before, after = (roc_auc_score(y, d.decision_function(X)) for d in (plain, hardened))
    assert after > before - 0.02


@pytest.mark.parametrize("id", ["extra-trees", "forest"])
def test_detectors_that_are_fitted_again_tell_of_scores_that_have_changed(fitted, id, tmp_path):
    fitted[id].save(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detectors.load(id, tmp_path)
    saved = load_tensors(tmp_path / "rows.safetensors")
    saved["scores"] += 0.25 * (torch.arange(len(saved["scores"])) == 7)
    save_tensors(tmp_path / "rows.safetensors", saved)
    with pytest.warns(UserWarning, match=r"scores rows otherwise than before, by up to 0\.25"):
        detectors.load(id, tmp_path)


@pytest.mark.parametrize("id", BACKENDS)
def test_settings_that_this_version_does_not_know_are_refused_in_one_sentence(fitted, id, tmp_path):
    fitted[id].save(tmp_path)
    write_json(tmp_path / "settings.json", {"params": {"width": 3}, "width": 3})
    with pytest.raises(InputError, match="another version; train it again, or load it as"):
        detectors.load(id, tmp_path)


def test_a_refitted_detector_without_its_settings_is_refused(fitted, tmp_path):
    fitted["extra-trees"].save(tmp_path)
    wrong = {"random_state": 0, "n_estimators": "x"}
    for foreign, told in (
        ({}, "was saved by another version"),
        ([], "was saved by another version"),
        (None, "was saved by another version"),
        (wrong, "cannot be fitted again: n_estimators is 'x'"),
    ):
        write_json(tmp_path / "settings.json", foreign)
        with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path))} {told}"):
            detectors.load("extra-trees", tmp_path)


def test_flagship_of_a_version_that_counted_less_is_refused_in_one_sentence(fitted, tmp_path):
    fitted["mamba-moe"].save(tmp_path)
    settings = read_json(tmp_path / "settings.json")
    del settings["fitted"]["n_known_"]
    write_json(tmp_path / "settings.json", settings)
    with pytest.raises(InputError, match="another version; train it again, or load it as"):
        detectors.load("mamba-moe", tmp_path)


def test_model_of_a_device_that_is_not_there_is_loaded_on_the_cpu(fitted, tmp_path):
    fitted["mamba-moe"].save(tmp_path)
    settings = read_json(tmp_path / "settings.json")
    settings["params"]["device"] = "abacus"
    write_json(tmp_path / "settings.json", settings)
    assert detectors.load("mamba-moe", tmp_path).device == "cpu"


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"steps": "x"}, {"contamination": 5}])
def test_saved_settings_out_of_range_are_refused(fitted, wrong, tmp_path):
    fitted["mamba-moe"].save(tmp_path)
    settings = read_json(tmp_path / "settings.json")
    settings["params"] |= wrong
    write_json(tmp_path / "settings.json", settings)
    with pytest.raises(InputError, match=next(iter(wrong))):
        detectors.load("mamba-moe", tmp_path)


def test_a_device_that_gives_nothing_back_is_refused(rows):
    with pytest.raises(InputError, match="torch device 'meta' is not there"):
        MambaMoEDetector(device="meta").fit(*rows)


def test_a_device_without_float64_is_refused(rows, monkeypatch):
    def as_on_mps(*sizes, dtype=None, **unused):
        if dtype is torch.float64:
            raise TypeError
        return torch.zeros(*sizes, dtype=dtype)

    monkeypatch.setattr(torch, "empty", as_on_mps)
    with pytest.raises(InputError, match="torch device 'mps' is not there, or has no float64"):
        MambaMoEDetector(device="mps").fit(*rows)


def test_a_device_may_be_torchs_own(rows, tmp_path):
    device = torch.device("cpu")
    detector = MambaMoEDetector(steps=2, n_trees=2, device=device).fit(*rows)
    detector.save(tmp_path)
    loaded = MambaMoEDetector.load(tmp_path)
    expected = detector.decision_function(rows[0])
    np.testing.assert_array_equal(loaded.decision_function(rows[0]), expected)
    with pytest.raises(InputError, match="torch device None is not there"):
        MambaMoEDetector(device=None).fit(*rows)


def test_flagship_calls_at_most_one_training_normal_in_ten_an_anomaly(rows):
    """Fewer than one, for the threshold is set where no row is measured against itself."""
    X, y = rows
    bank = np.random.default_rng(0).uniform(-8, 8, (300, X.shape[1]))
    for part in (bank[:0], bank):
        detector = MambaMoEDetector(steps=30).fit(*replay_set(X, y, part, 0.5))
        assert 0 < detector.predict(X[y == 0]).mean() < 0.11


@pytest.mark.parametrize("contamination", [0.05, 0.3])
def test_flagships_contamination_is_the_share_of_new_normals(contamination):
    X, y = blobs(n_normal=1500)
    detector = MambaMoEDetector(steps=30, contamination=contamination).fit(X, y)
    new_normals = blobs(n_normal=1500, seed=1)[0][:1500]
    assert detector.predict(new_normals).mean() == pytest.approx(contamination, rel=0.3)


def test_scores_of_duplicate_rows_do_not_depend_on_the_batch():
    X = np.full((28, 2), 2.0)
    X[1:3] = [[12, 0], [0, 0]]
    y = (np.arange(28) < 2).astype(int)
    detector = MambaMoEDetector(steps=3).fit(*replay_set(X, y, X[:1] + 1, 0.5))
    one_by_one = [detector.decision_function(row[None])[0] for row in X]
    np.testing.assert_allclose(one_by_one, detector.decision_function(X), atol=1e-4)


def alike(d):
    """Units of columns, (d,), that are all the same."""
    return torch.ones(d, dtype=torch.float64)


def test_memory_measures_most_where_known_anomalies_stand_out():
    with torch_seed(0) as generator:
        normals = torch.randn(200, 2, generator=generator)
        known = torch.randn(20, 2, generator=generator) + torch.tensor([4.0, 0.0])
        memory = Memory(200, 2)
        memory.fit(normals, known, alike(2), generator)
    along, across = memory(torch.tensor([[5.0, 0.0], [0.0, 5.0]]))
    assert (along > across).all()


def test_memory_sees_novelty_where_no_known_anomaly_stands_out():
    with torch_seed(0) as generator:
        normals = torch.randn(200, 2, generator=generator)
        memory = Memory(200, 2)
        known = normals[:50] + torch.tensor([4.0, 0.0])
        memory.fit(normals, known, alike(2), generator)
    assert (memory(torch.tensor([[0.0, 8.0]])) > memory(normals).amax(dim=0)).all()


def test_trust_is_not_told_by_the_columns_that_it_was_chosen_by():
    """Weighed as the known anomalies stand out, columns of noise would flatter it."""
    with torch_seed(0) as generator:
        normals = torch.randn(200, 50, generator=generator)
        known = torch.randn(20, 50, generator=generator)
        known[:, 0] += 4
        memory = Memory(200, 50)
        memory.fit(normals, known, alike(50), generator)
    assert 0 < memory.trust < 0.4


@pytest.mark.parametrize("n", [2, 3, 40, 700])
def test_memory_does_not_measure_a_row_against_itself(n):
    with torch_seed(0) as generator:
        normals = torch.randn(n, 3, generator=generator)
        memory = Memory(n, 3)
        measures = memory.fit(normals, normals[:1] + 5, alike(3), generator)
    assert measures.isfinite().all()
    torch.testing.assert_close(measures.mean(dim=0), torch.zeros(2), atol=1e-4, rtol=0)
    seen_again = memory(normals)
    assert (seen_again <= measures + 1e-4).all()
    assert (seen_again < measures - 1e-4).any()


def widely_spread(generator, n):
    """Rows of 40 columns, (n, 40), that are anomalies in three, and units: those spread most."""
    rows = torch.randn(n, 40, generator=generator)
    rows[:, :3] += 2
    unit = torch.full((40,), 0.05, dtype=torch.float64)
    unit[:3] = 1
    return rows, unit


def test_memory_measures_in_the_units_in_which_known_anomalies_are_told():
    with torch_seed(0) as generator:
        normals = torch.randn(600, 40, generator=generator)
        known, unit = widely_spread(generator, 20)
        new, _ = widely_spread(generator, 100)
    told, trusts = [], []
    for units in (alike(40), unit, unit / 1e9):
        memory = Memory(300, 40)
        memory.fit(normals[:300], known, units, torch.Generator().manual_seed(0))
        told.append(trust(memory(normals[300:])[:, 0], memory(new)[:, 0]))
        trusts.append(memory.trust)
    assert told[1] > told[0] + 0.02
    assert told[2] == pytest.approx(told[1])
    assert trusts[0] == trusts[1]


def test_memory_measures_in_scaled_columns_where_units_tell_nothing():
    with torch_seed(0) as generator:
        normals = torch.randn(300, 40, generator=generator)
        known, unit = widely_spread(generator, 20)
    measures = []
    for units in (alike(40), unit.flip(0)):
        memory = Memory(300, 40)
        memory.fit(normals, known, units, torch.Generator().manual_seed(0))
        measures.append(memory(known))
    torch.testing.assert_close(*measures)


def test_memory_undoes_correlations_where_anomalies_break_a_correlation():
    with torch_seed(0) as generator:
        common = torch.randn(600, 1, generator=generator)
        normals = common + 0.1 * torch.randn(600, 4, generator=generator)
        anomalies = torch.randn(110, 4, generator=generator)
        memory = Memory(300, 4)
        memory.fit(normals[:300], anomalies[:10], alike(4), generator)
    assert trust(memory(normals[300:])[:, 0], memory(anomalies[10:])[:, 0]) > 0.7
    memory.fit(normals[:300].sign(), anomalies[:10].sign(), alike(4), generator)
    assert memory.axes.count_nonzero() == 4


def test_memory_is_finite_whatever_the_units():
    with torch_seed(0) as generator:
        normals = torch.randn(50, 4, generator=generator)
        normals[:, 3] = 0
        known = torch.randn(5, 4, generator=generator) + 3
    for units in ([1e-300, 1e-30, 1e-20, 1], [1e-9, 1e-9, 1e-9, 1], [1, 1, 1, 1e-300]):
        memory = Memory(50, 4)
        measures = memory.fit(normals, known, torch.tensor(units).double(), generator)
        assert measures.isfinite().all()
        assert memory(known).isfinite().all()


def test_decorrelated_axes_of_few_rows_do_not_make_new_normals_novel():
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((5, 300))
    rows = rng.standard_normal((930, 5)) @ factors + 0.3 * rng.standard_normal((930, 300))
    rows[600:] += 0.3
    normals, new, known, anomalies = np.split(rows, [300, 600, 630])
    novelty = Novelty(np.concatenate([normals, known]), np.repeat([0, 1], [300, 30]), seed=0)
    assert -0.5 < np.median(novelty(new)) < 0.5
    assert np.median(novelty(anomalies)) > 5


def test_other_axes_are_taken_if_they_are_trusted_much_more():
    assert preferred([0.8, 0.84, 0.7]) == 0
    assert preferred([0.8, 0.7, 0.86]) == 2
    assert preferred([0.5]) == 0


def test_neighbours_learn_from_five_anomalies_that_break_a_correlation():
    with torch_seed(0) as generator:
        common = torch.randn(700, 1, generator=generator)
        normals = common + 0.1 * torch.randn(700, 4, generator=generator)
        anomalies = torch.randn(105, 4, generator=generator)
        expert = NeighbourExpert(400, 5, 4)
        expert.fit(normals[:400], anomalies[:5], generator)
    label = np.repeat([0, 1], [300, 100])
    opinions = expert(torch.cat([normals[400:], anomalies[5:]]))
    assert roc_auc_score(label, opinions.numpy()) > 0.9


def test_neighbours_are_not_misled_by_axes_that_hardly_vary():
    with torch_seed(0) as generator:
        rows = torch.randn(360, 55, generator=generator)
        rows[300:, :5] += 2
        expert = NeighbourExpert(60, 5, 55)
        expert.fit(rows[:60], rows[300:305], generator)
    label = np.repeat([0, 1], [240, 55])
    opinions = expert(torch.cat([rows[60:300], rows[305:]]))
    assert roc_auc_score(label, opinions.numpy()) > 0.95


def test_neighbours_do_not_count_a_row_as_its_own():
    with torch_seed(0) as generator:
        normals = torch.randn(600, 3, generator=generator)
        expert = NeighbourExpert(600, 9, 3)
        opinions = expert.fit(normals, torch.randn(9, 3, generator=generator) + 2, generator)
    torch.testing.assert_close(opinions.std(correction=0), torch.ones(()))
    assert (opinions >= expert(normals) - 1e-4).all()
    assert (opinions > expert(normals) + 1e-4).any()


@pytest.mark.parametrize("n", [1, 2, 5, 40, 300, 700])
def test_rows_are_remembered_equally_often_and_a_group_holds_different_ones(n):
    remembered = RememberedRows(n, 1)
    chosen = remembered.choose(n, torch.Generator().manual_seed(0))
    remembered.remember(chosen[:, None].float())
    times = torch.bincount(chosen, minlength=n)
    assert times.max() - times.min() <= 1
    assert all(len(group.unique()) >= min(n, 2) for group in remembered.rows)


@pytest.mark.parametrize("n", [1, 2, 5, 40, 700])
def test_rows_are_measured_alike_however_many_at_once(n, monkeypatch):
    rows = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    remembered = RememberedRows(n, 3)
    chosen = remembered.choose(n, torch.Generator().manual_seed(1))
    remembered.remember(rows[chosen])
    at_once = remembered(rows, chosen)
    monkeypatch.setattr("detectors.remembered.ROWS_AT_ONCE", 7)
    torch.testing.assert_close(remembered(rows, chosen), at_once)


@pytest.mark.parametrize("n_known", [2, 5, 40])
def test_neighbours_see_nothing_in_known_anomalies_of_noise(n_known):
    """Though what stands out in each column by chance is learned from these anomalies."""
    with torch_seed(0) as generator:
        normals = torch.randn(300, 100, generator=generator)
        known = torch.randn(n_known, 100, generator=generator)
        opinions = opinions_of_known(normals, known, generator)
        expert = NeighbourExpert(300, n_known, 100)
        expert.fit(normals, known, generator)
    assert opinions.mean() < 0.7
    assert expert(known).mean() > 3


def test_the_only_known_anomaly_is_like_an_average_normal_row():
    with torch_seed(0) as generator:
        normals = torch.randn(30, 3, generator=generator)
        opinions = opinions_of_known(normals, normals[:1] + 5, generator)
    torch.testing.assert_close(opinions, torch.zeros(1))


def test_neighbours_do_not_depend_on_the_order_of_columns_of_which_some_are_sums():
    with torch_seed(0) as generator:
        free = torch.randn(210, 4, generator=generator)
        free[200:] *= 3
        rows = torch.cat([free, free @ torch.randn(4, 5, generator=generator)], dim=1)
        fresh = rows[:50] + torch.randn(50, 9, generator=generator)
        order = torch.randperm(9, generator=generator)
    opinions = []
    for columns in (torch.arange(9), order):
        expert = NeighbourExpert(200, 10, 9)
        expert.fit(rows[:200, columns], rows[200:, columns], torch.Generator().manual_seed(0))
        opinions.append(expert(fresh[:, columns]))
    torch.testing.assert_close(*opinions, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("grow", [boost, boost_briefly])
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(4, 60), st.integers(1, 5)),
        elements=st.floats(-100, 100, width=16),
    ),
    st.integers(1, 3),
)
def test_tree_expert_answers_as_catboost_does(grow, X, n_anomalies):
    y = (np.arange(len(X)) < n_anomalies).astype(int)
    rows, weight = torch.from_numpy(X).float(), sqrt_balanced_weights(y)
    experts = TreeExperts(3, 20, 2).fit(1, rows, y, weight, seed=0, grow=grow)
    silent, logits, unfitted = experts(rows).T
    assert not silent.any()
    assert not unfitted.any()
    if (X.astype(np.float32) == X.astype(np.float32)[0]).all():
        assert (logits == 0).all()
        return
    booster = grow(rows.numpy(), y, weight, 20, seed=0)
    assert booster.tree_count_ == 20
    expected = booster.predict(rows.numpy(), prediction_type="RawFormulaVal")
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_router_gives_each_row_top_k_gates_that_sum_to_one():
    with torch_seed(0) as generator:
        router = NoisyTopKRouter(5, 4, 2)
        x = torch.randn(50, 5, generator=generator)
        noisy, chosen, _ = router(x, generator)
    quiet, best = router.choose(router.gate(x))
    for gates, experts in ((noisy, chosen), (quiet, best)):
        assert gates.shape == experts.shape == (50, 2)
        assert (experts[:, 0] != experts[:, 1]).all()
        assert (gates > 0).all()
        torch.testing.assert_close(gates.sum(dim=1), torch.ones(50))
    assert not torch.equal(quiet, noisy)


def test_routers_balance_is_0_where_experts_are_used_alike_and_3_where_one_of_4_is():
    router = NoisyTopKRouter(3, 4, 1)
    for parameter in (router.gate.weight, router.gate.bias):
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(router.noise.bias, -50)
    balances = []
    for logit in (0.0, 50.0):
        torch.nn.init.constant_(router.gate.bias[:1].data, logit)
        balances.append(router(torch.ones(10, 3), torch.Generator())[2].item())
    assert balances == pytest.approx([0, 3], abs=1e-6)


@pytest.mark.parametrize("label", [0, 1])
def test_synthetic_anomalies_without_weight_count_for_nothing(rows, label):
    """Whether or not there are synthetic normal rows that have one."""
    X, y = rows
    detector = detectors.make("mamba-moe", **QUICK["mamba-moe"])
    scores = detector.fit(X, y).decision_function(X)
    more, labels = np.concatenate([X, X[:2] + 9]), np.append(y, [1, label])
    weight, synthetic = np.append(sqrt_balanced_weights(y), [0, 1 - label]), np.arange(len(more))
    detector.fit(more, labels, weight, synthetic >= len(X))
    np.testing.assert_array_equal(detector.decision_function(X), scores)


def test_number_of_experts_grows_with_complexity():
    rng = np.random.default_rng(0)
    simple = np.outer(rng.standard_normal(300), np.ones(12)) + 0.01 * rng.standard_normal((300, 12))
    assert suggest_n_experts(simple) == 4
    assert suggest_n_experts(rng.standard_normal((300, 40))) == 8
    assert suggest_n_experts(np.ones((50, 3))) == 4


@given(
    X=arrays(
        np.float64,
        st.tuples(st.integers(1, 30), st.integers(1, 4)),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
@settings(deadline=None)
def test_encoding_is_finite_monotone_and_of_the_right_shape(X):
    encoding = PiecewiseLinearEncoding(X.shape[1], 4).fit(X)
    encoded = encoding(encoding.scaler(X))
    assert encoded.shape == (len(X), X.shape[1] * 5)
    assert encoded.dtype == torch.float32
    assert encoded.isfinite().all()
    higher = encoding(encoding.scaler(X + 1))
    assert (higher >= encoded - 1e-5).all()


def test_classes_weigh_as_the_roots_of_their_sizes():
    y = np.repeat([0, 1], [90, 10])
    weight = sqrt_balanced_weights(y)
    assert (weight[y == 0] == 1).all()
    assert weight[y == 1].sum() / weight[y == 0].sum() == pytest.approx((10 / 90) ** 0.5)


def test_typo_is_answered_with_the_nearest_id():
    with pytest.raises(InputError, match="did you mean mamba-moe"):
        detectors.make("mamba-mo")


def test_id_cannot_be_taken_twice():
    detectors.register("extra-trees", "detectors.trees:ExtraTreesDetector")
    with pytest.raises(InputError, match="take another id"):
        detectors.register("extra-trees", "detectors.trees:CatBoostDetector")
    assert type(detectors.make("extra-trees")).__name__ == "ExtraTreesDetector"


def test_settings_are_plain_json(fitted, tmp_path):
    fitted["mamba-moe"].save(tmp_path)
    settings_ = json.loads((tmp_path / "settings.json").read_text())
    assert settings_["params"]["steps"] == 60


@pytest.fixture(scope="module")
def training(rows):
    """A network in training, with encoded normal, known and synthetic rows."""
    X, y = rows
    network = MambaMoEDetector(n_experts=1, steps=1, n_trees=2).fit(X, y).network_.train()
    parts = [network.encoding.scaler(part) for part in (X[:30], X[-30:], X[-30:] - 5, X[-30:] + 5)]
    return network, [network.encoding(part, network.compare(part)) for part in parts]


def test_synthetic_rows_teach_the_second_head_alone_and_as_anomalies(training):
    network, (normal, known, *synthetic) = training
    slopes, push = [], []
    for batch, ratio in ((synthetic[0], 0.5), (synthetic[1], 0.5), (synthetic[0], 0.0)):
        network.zero_grad()
        network.loss([normal, known, batch], ratio, torch.Generator().manual_seed(0)).backward()
        slopes.append(network.experts[0].head.weight.grad.clone())
        push.append(network.experts[0].head.bias.grad[HARDENED].item())
    torch.testing.assert_close(slopes[0][REAL], slopes[1][REAL])
    assert not torch.allclose(slopes[0][HARDENED], slopes[1][HARDENED])
    assert push[0] < push[2]


def test_synthetic_rows_count_by_their_weight_and_the_root_of_the_trust(training):
    network, (normal, known, synthetic, _) = training

    def loss(ratio, trust):
        network.memory.trust.fill_(trust)
        with torch.no_grad():
            batches = [normal, known, synthetic]
            return network.loss(batches, ratio, torch.Generator().manual_seed(0))

    share = loss(1, 1) - loss(0, 1)
    assert share > 0
    torch.testing.assert_close(loss(0.5, 1) - loss(0, 1), share / 2)
    torch.testing.assert_close(loss(1, 0.25) - loss(0, 1), share / 2)


def test_trees_and_memory_of_more_rows_and_novelty_of_more_trust_weigh_more(training):
    network = copy.deepcopy(training[0])

    def weights(n_rows, trust, hardened=True):
        network.memory.trust.fill_(trust)
        network.weigh(n_rows, hardened)
        return network.weight.tolist()

    few, many, trusting = weights(50, 0.5), weights(5000, 0.5), weights(50, 1)
    assert few[2] < 0.5 < 3 < many[2]
    assert few[3] + 1 < many[3]
    assert few[:2] + few[4:] == many[:2] + many[4:]
    assert few[:3] == trusting[:3]
    assert all(less < more for less, more in zip(few[3:], trusting[3:], strict=True))
    assert weights(50, 0)[3] > 0
    assert weights(50, 0)[4:] == [0, 0]
    assert weights(50, 0.5, hardened=False) == [*few[:4], 0, 0]


def test_settings_reach_the_network(rows):
    sizes = {"n_experts": 3, "top_k": 2, "d_model": 24, "depth": 2, "n_tokens": 4, "n_bins": 5}
    trees = {"n_trees": 7, "n_hardened_trees": 4}
    network = MambaMoEDetector(steps=1, **sizes, **trees).fit(*rows).network_
    assert (len(network.experts), network.router.top_k) == (3, 2)
    assert [len(expert.blocks) for expert in network.experts] == [2, 2, 2]
    assert network.tokenizer.out_features == 4 * 24
    assert network.encoding.edges.shape == (4, 5 + 1)
    assert network.trees.ends == [0, 7, 7 + 4]


def test_more_experts_a_row_than_there_are_means_all(rows):
    detector = MambaMoEDetector(n_experts=2, top_k=5, steps=2, n_trees=2).fit(*rows)
    assert detector.network_.router.top_k == 2


def test_rate_and_steps_of_learning_are_taken(rows):
    def weights(**settings):
        detector = MambaMoEDetector(n_experts=1, n_trees=1, **settings).fit(*rows)
        return detector.network_.experts[0].head.weight

    slow, fast, longer = weights(steps=5), weights(steps=5, learning_rate=0.03), weights(steps=6)
    assert not torch.allclose(slow, fast, atol=1e-3)
    assert not torch.equal(slow, longer)


def test_no_training_row_is_measured_against_itself():
    """Neither for its own score nor in what trees and Mamba experts learn from."""
    rng, y = np.random.default_rng(0), np.repeat([0, 1], [200, 20])
    X = rng.standard_normal((220, 60))
    detector = MambaMoEDetector(steps=5).fit(X, y)
    seen_again = detector.decision_function(X)
    assert detector.decision_scores_[y == 0].mean() > seen_again[y == 0].mean() + 0.1
    assert detector.decision_scores_[y == 1].mean() < seen_again[y == 1].mean() / 2


def test_weights_count_in_every_member():
    """Two kinds of anomalies, of which one hardly weighs anything."""
    rng, y = np.random.default_rng(0), np.repeat([0, 1, 1], [200, 20, 20])
    X = rng.standard_normal((240, 3))
    X[200:220, 0] += 5
    X[220:, 1] += 5
    weight = np.where(np.arange(240) < 220, sqrt_balanced_weights(y), 1e-4)
    network = MambaMoEDetector().fit(X, y, weight).network_
    with torch.no_grad():
        opinions = network.opinions(*network.measure(torch.from_numpy(X)))
    for member in (0, 2):
        assert opinions[200:220, member].mean() > opinions[220:, member].mean() + 1


def test_trust_grows_with_novelty_and_with_the_number_of_known_anomalies():
    normal = torch.arange(100.0)
    few, many = torch.full((10,), 1000.0), torch.full((90,), 1000.0)
    assert trust(normal, few) == pytest.approx(10 / 20)
    assert trust(normal, many) == pytest.approx(90 / 100)
    assert trust(normal, torch.full((10,), 74.5)) == pytest.approx(0.5**2 / 2)
    assert trust(normal, -few) == 0


@pytest.mark.parametrize("make", [ExtraTreesDetector, CatBoostDetector])
def test_trees_mix_both_classifiers_and_novelty_by_the_trust(make, rows):
    X, y = rows
    detector = make(20).fit(*replay_set(X, y, X[y == 1] - 6, 0.5))
    novelty = Novelty(X, y, 0)
    real, every = (detector.ask(part, X) for part in (detector.of_real_, detector.of_all_))
    share = 2 * novelty.trust
    expected = (real + share * every) / (1 + share) + share * novelty(X)
    np.testing.assert_allclose(detector.decision_function(X), expected)


@pytest.mark.parametrize("make", [ExtraTreesDetector, CatBoostDetector])
def test_hardened_trees_call_rows_the_more_anomalous_the_farther_out_they_are(make, rows):
    X, y = rows
    detector = make(20).fit(*replay_set(X, y, X[y == 1] - 6, 0.5))
    out = np.outer([20, 200, 2000], np.ones(X.shape[1]))
    scores = detector.decision_function(out)
    assert (np.diff(scores) > 0).all()
    unhardened = make(20).fit(X, y).decision_function(out)
    assert np.ptp(unhardened) == pytest.approx(0)


def test_novelty_is_in_deviations_of_normal_rows_however_many_are_asked_about(rows):
    X, y = rows
    novelty = Novelty(X, y, 0)
    of_normal = novelty(X[y == 0])
    assert of_normal.dtype == np.float64
    assert abs(of_normal.mean()) < 1
    assert novelty(X[y == 1]).mean() > of_normal.mean() + 1
    many = novelty(np.resize(X, (2 * ROWS_AT_ONCE + 1, X.shape[1])))
    np.testing.assert_allclose(many[: len(X)], novelty(X), atol=1e-4)


@pytest.mark.parametrize("make", [ExtraTreesDetector, CatBoostDetector])
def test_trees_take_the_trust_from_rows_that_have_a_weight(make, rows):
    X, y = rows
    more = np.concatenate([X, np.full((60, X.shape[1]), 9.0)])
    every, labels, weight, synthetic = replay_set(more, np.r_[y, np.ones(60, int)], X + 1, 0.1)
    weight[len(X) : len(more)] = 0
    detector = make(20).fit(every, labels, weight, synthetic)
    assert detector.novelty_.trust == Novelty(X, y, 0).trust


def test_extra_trees_vote_as_the_library_says(rows):
    X, y = rows
    detector = ExtraTreesDetector(20).fit(X, y)
    new = X + np.random.default_rng(0).standard_normal(X.shape)
    share = detector.of_real_.predict_proba(new)[:, 1]
    scores = detector.decision_function(new)
    np.testing.assert_allclose(expit(scores), share.clip(1e-3, 1 - 1e-3))


def test_bins_are_the_quantile_map_and_full_or_empty_beyond_the_rows():
    X = np.exp(2 * np.random.default_rng(0).standard_normal((400, 1)))
    encoding = PiecewiseLinearEncoding(1, 4).fit(X)
    filled = encoding.bins(encoding.scaler(X)).mean(dim=1)
    quarters = np.linspace(0, 1, 5)
    np.testing.assert_allclose(np.quantile(filled, quarters), quarters, atol=1e-3)
    beyond = encoding.bins(encoding.scaler([[-1e6], [1e6]]))
    assert beyond[:, :, 0].tolist() == [[0.0] * 4, [1.0] * 4]


def test_gates_weigh_the_experts_errors(rows):
    X, y = rows
    network = MambaMoEDetector(n_experts=2, top_k=2, steps=1, n_trees=2).fit(X, y).network_.train()
    parts = [network.encoding.scaler(part) for part in (X[:30], X[-30:])]
    batches = [network.encoding(part, network.compare(part)) for part in parts]
    torch.nn.init.constant_(network.router.noise.bias, -50)
    torch.nn.init.zeros_(network.router.gate.weight)
    with torch.no_grad():
        network.router.gate.bias.copy_(torch.tensor([20.0, 0.0]))
    network.zero_grad()
    network.loss(batches, 0.0, torch.Generator().manual_seed(0)).backward()
    first, second = (expert.head.weight.grad.abs().sum() for expert in network.experts)
    assert second < 1e-3 * first


def test_rows_far_out_score_finitely(rows):
    X, y = rows
    X = X * 1e-3
    detector = MambaMoEDetector(steps=3, n_trees=5).fit(X, y)
    assert np.isfinite(detector.decision_function(np.full((1, 4), 3e38))).all()


@pytest.mark.parametrize("setting", ["top_k", "depth", "n_bins", "steps", "n_trees", "n_experts"])
def test_settings_of_the_flagship_out_of_range_are_refused(rows, setting):
    with pytest.raises(InputError, match=f"{setting} is 0; give at least 1"):
        MambaMoEDetector(**{setting: 0}).fit(*rows)


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize("id", BACKENDS)
def test_seed_out_of_range_is_refused(rows, id, seed):
    with pytest.raises(InputError, match=f"random_state is {seed}; give at least 0"):
        detectors.make(id, random_state=seed).fit(*rows)


def test_opinions_are_combined_by_a_noisy_or(training):
    """Each weighs its log-probability that the row is normal, 1/2 at one deviation."""
    network = copy.deepcopy(training[0])
    center, spread = torch.linspace(-1, 1, 6), torch.linspace(0.5, 2, 6)
    weight = torch.tensor([0.5, 4.0, 0.0, 1.0, 2.0, 3.0])
    for name, values in (("center", center), ("spread", spread), ("weight", weight)):
        getattr(network, name).copy_(values)
    network.offset.fill_(0.25)
    opinions = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    says_normal = torch.sigmoid(1 - (opinions - center) / spread).double()
    normal = (says_normal**weight).prod(dim=1)
    expected = torch.log((1 - normal) / normal) - 0.25
    torch.testing.assert_close(network.combine(opinions).double(), expected, atol=1e-4, rtol=1e-4)


def test_a_bank_does_not_count_as_real_rows(rows):
    bank = np.random.default_rng(0).uniform(-6, 6, (300, rows[0].shape[1]))
    quick = {"n_experts": 1, "steps": 1, "n_trees": 2, "n_hardened_trees": 2}
    plain, hardened = (
        MambaMoEDetector(**quick).fit(*replay_set(*rows, part, 0.1)).network_.weight
        for part in (bank[:0], bank)
    )
    assert hardened[:4].tolist() == plain[:4].tolist()
    assert (hardened[4:] > 0).all()


def test_the_first_partial_fit_takes_weights_and_synthetic_rows(rows):
    replayed = replay_set(*rows, rows[0][:50] + 3, 0.3)
    probes = np.random.default_rng(0).uniform(-4, 4, (200, rows[0].shape[1]))
    scores = [
        learn(*replayed).decision_function(probes)
        for learn in (ExtraTreesDetector(5).fit, ExtraTreesDetector(5).partial_fit)
    ]
    np.testing.assert_array_equal(*scores)
