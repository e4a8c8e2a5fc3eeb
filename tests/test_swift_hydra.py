"""The estimator."""

import numpy as np
import pandas as pd
import pytest
from conftest import Reached, blobs, stop
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

import detectors
from agents.calibration import held_out_scores
from agents.hardening import background_bank, harden, make_detector
from agents.settings import HardeningSettings
from common.errors import InputError
from data import load, split
from swift_hydra import SwiftHydra

QUICK = {"generator": "background", "rounds": 1, "timesteps": 512}


@pytest.fixture(scope="module")
def fitted(rows) -> SwiftHydra:
    return SwiftHydra(**QUICK).fit(*rows)


def test_vocabulary(fitted, rows):
    X, y = rows
    scores = fitted.decision_function(X)
    assert roc_auc_score(y, scores) > 0.9
    np.testing.assert_array_equal(fitted.predict(X), (scores > fitted.threshold_).astype(int))
    np.testing.assert_allclose(fitted.predict_proba(X)[:, 1], 1 / (1 + np.exp(-scores)), atol=1e-6)
    assert fitted.classes_.tolist() == [0, 1]
    assert fitted.n_features_in_ == X.shape[1]


def test_numbers_written_as_text_are_taken(fitted, rows):
    text = rows[0].astype(str)
    expected = fitted.decision_function(rows[0])
    np.testing.assert_array_equal(fitted.decision_function(text), expected)
    np.testing.assert_array_equal(fitted.predict_proba(text), fitted.predict_proba(rows[0]))


def test_bank_and_history_tell_what_was_kept(fitted, rows):
    assert fitted.bank_.shape[1] == rows[0].shape[1]
    assert fitted.bank_.dtype == np.float64
    assert [record["round"] for record in fitted.history_] == [1]
    assert fitted.history_[0]["bank"] == len(fitted.bank_)
    assert fitted.history_[0]["queries"] >= 512


def test_hardening_finds_anomalies_of_a_new_kind():
    rng = np.random.default_rng(0)
    normals, known, new = (rng.standard_normal((n, 6)) for n in (400, 15, 60))
    known[:, 0] += 6
    new[:, 1] -= 6
    X, y = np.concatenate([normals[:200], known]), np.repeat([0, 1], [200, 15])
    X_test, y_test = np.concatenate([normals[200:], new]), np.repeat([0, 1], [200, 60])
    model = SwiftHydra(rounds=1, timesteps=1024).fit(X, y)
    before, after = (
        roc_auc_score(y_test, detector.decision_function(X_test))
        for detector in (model.unhardened_, model.detector_)
    )
    assert after > 0.9
    assert after > before


def test_same_random_state_same_scores_and_global_state_untouched(fitted, rows):
    state = str(np.random.get_state(legacy=False))  # noqa: NPY002
    again = SwiftHydra(**QUICK).fit(*rows)
    np.testing.assert_array_equal(
        again.decision_function(rows[0]), fitted.decision_function(rows[0])
    )
    assert str(np.random.get_state(legacy=False)) == state  # noqa: NPY002


def test_bad_input_is_refused(rows):
    X, y = rows
    with pytest.raises(ValueError, match="NaN"):
        SwiftHydra().fit(np.where(X > 1, np.nan, X), y)
    with pytest.raises(ValueError, match="labels 0 and 1"):
        SwiftHydra().fit(X, np.zeros(len(X)))
    with pytest.raises(InputError, match="did you mean mamba-moe"):
        SwiftHydra(detector="mamba-mo").fit(X, y)
    with pytest.raises(NotFittedError):
        SwiftHydra().decision_function(X)


@pytest.mark.parametrize("contamination", [0.05, 0.2])
def test_contamination_is_the_share_of_new_normals(contamination):
    X, y = blobs(n_normal=600)
    model = SwiftHydra(**QUICK, contamination=contamination).fit(X, y)
    new_normals = blobs(n_normal=1500, seed=1)[0][:1500]
    assert model.predict(new_normals).mean() == pytest.approx(contamination, rel=0.35)


@pytest.mark.parametrize("detector", ["catboost", "extra-trees", "pyod:KNN"])
@pytest.mark.parametrize("contamination", [0.05, 0.2])
def test_contamination_of_a_backend_that_takes_none_is_the_share_of_new_normals(
    detector, contamination
):
    X, y = blobs(n_normal=600)
    model = SwiftHydra(detector, **QUICK, contamination=contamination).fit(X, y)
    new_normals = blobs(n_normal=1500, seed=1)[0][:1500]
    assert model.predict(new_normals).mean() == pytest.approx(contamination, rel=0.35)
    improbable = model.predict_proba(new_normals)[:, 1] <= 0.5
    np.testing.assert_array_equal(model.predict(new_normals) == 0, improbable)


def test_contamination_is_not_told_by_rows_that_synthetic_ones_were_made_of():
    halves = split(load("breast-cancer"), "full", 0)
    model = SwiftHydra("extra-trees", **QUICK, agent="random", contamination=0.2)
    model.fit(halves.X_train, halves.y_train)
    called = model.predict(halves.X_test[halves.y_test == 0]).mean()
    assert called == pytest.approx(0.2, rel=0.4)


def test_the_loop_refuses_a_contamination_that_the_backend_does_not_take():
    with pytest.raises(InputError, match="catboost takes no contamination"):
        make_detector(HardeningSettings("catboost", contamination=0.2), 0)
    with pytest.raises(InputError, match="contamination is 10"):
        make_detector(HardeningSettings(contamination=10), 0)


@pytest.mark.parametrize("detector", ["mamba-moe", "catboost"])
def test_rows_in_reversed_order_are_taken(rows, detector):
    X, y = (array[::-1] for array in rows)
    scores = [
        SwiftHydra(detector, rounds=1, timesteps=64).fit(*arrays).decision_function(X)
        for arrays in ((X, y), (X.copy(), y.copy()))
    ]
    np.testing.assert_array_equal(*scores)


def test_a_fit_that_is_refused_changes_nothing(rows):
    X, y = rows
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = SwiftHydra("extra-trees", **QUICK).fit(frame, y)
    before = model.decision_function(frame)
    model.set_params(synthetic_weight=1)
    with pytest.raises(InputError, match="synthetic_weight"):
        model.fit(frame[list("dcba")], np.where(y == 1, "odd", "normal"))
    np.testing.assert_array_equal(model.decision_function(frame), before)
    assert model.classes_.tolist() == [0, 1]
    with pytest.raises(ValueError, match="feature names"):
        model.decision_function(frame[list("dcba")])


@pytest.mark.parametrize("id", ["mamba-moe", "catboost", "pyod:KNN"])
def test_a_fit_of_a_detector_that_is_refused_changes_nothing(rows, id):
    X, y = rows
    frame = pd.DataFrame(X, columns=list("abcd"))
    detector = detectors.make(id).fit(frame, y)
    before = detector.decision_function(frame)
    with pytest.raises(ValueError, match="one class"):
        detector.fit(frame[list("dcba")], np.zeros(len(y)))
    np.testing.assert_array_equal(detector.decision_function(frame), before)


def test_contamination_needs_rows_to_hold_out_before_hardening(rows, monkeypatch):
    monkeypatch.setattr("swift_hydra.harden", stop)
    X, y = rows[0], np.arange(len(rows[0])) > 0
    with pytest.raises(InputError, match="One row only is labelled 0"):
        SwiftHydra("extra-trees", contamination=0.1).fit(X, y)
    for possible in ({"detector": "extra-trees"}, {"contamination": 0.1}):
        with pytest.raises(Reached):
            SwiftHydra(**possible).fit(X, y)


@pytest.mark.parametrize("contamination", [0, 10, -0.1])
def test_contamination_out_of_range_is_refused_before_hardening(rows, contamination):
    with pytest.raises(InputError, match="contamination is"):
        SwiftHydra(contamination=contamination).fit(*rows)
    with pytest.raises(InputError, match="contamination is"):
        detectors.make("mamba-moe", contamination=contamination).fit(*rows)


@pytest.mark.parametrize(
    "setting",
    [
        {"rounds": "2"},
        {"rounds": None},
        {"rounds": 1.5},
        {"timesteps": 1e2},
        {"synthetic_weight": "a"},
        {"contamination": "auto"},
    ],
)
def test_a_setting_of_another_type_is_refused_before_anything_is_fitted(rows, setting, monkeypatch):
    monkeypatch.setattr("detectors.base.Detector.fit", stop)
    ((name, value),) = setting.items()
    with pytest.raises(InputError, match=f"{name} is {value!r}; give"):
        SwiftHydra(**setting).fit(*rows)


def test_settings_of_the_estimator_reach_the_loop(rows, monkeypatch):
    monkeypatch.setattr("swift_hydra.harden", stop)
    with pytest.raises(Reached) as reached:
        SwiftHydra("catboost", "background", "a2c", 2, 64, 0.3, random_state=5).fit(*rows)
    settings = HardeningSettings("catboost", "background", "a2c", 2, 64, synthetic_weight=0.3)
    assert reached.value.args[2:4] == (settings, 5)


def test_device_of_the_settings_is_that_of_the_flagship(monkeypatch):
    assert make_detector(HardeningSettings(device="cuda"), 0).device == "cuda"
    monkeypatch.setattr(detectors.registry, "specs", dict(detectors.registry.specs))
    flagship = detectors.registry.spec("mamba-moe").entry_point
    detectors.register("on-cuda", flagship, {"device": "cuda"})
    for chosen, device in ((None, "cuda"), ("cpu", "cpu")):
        assert make_detector(HardeningSettings("on-cuda", device=chosen), 0).device == device


def test_rows_are_held_out_at_random_from_all_that_a_fit_learns(monkeypatch):
    X, y = blobs(n_normal=200)
    order = np.lexsort((X[:, 0], y))
    X, y, found = X[order], y[order], np.full((3, 4), 9.0)
    gates, learned, held_out = [], [], []

    class Recorder:
        def fit(self, *replayed):
            learned.append(replayed)
            return self

        def decision_function(self, X):
            held_out.append(X)
            return X[:, 0]

    def background(X, y, gate, n, rng):
        gates.append((len(gate.references), (y == 0).sum()))
        return background_bank(X, y, gate, n, rng)

    monkeypatch.setattr("agents.calibration.make_detector", lambda *_: Recorder())
    monkeypatch.setattr("agents.calibration.background_bank", background)
    settings = HardeningSettings("extra-trees", n_background=20, synthetic_weight=0.3)
    scores = held_out_scores(X, y, found, settings, 0)
    np.testing.assert_array_equal(np.sort(scores), X[y == 0, 0])
    assert all(fold[:, 0].min() < 0 < fold[:, 0].max() for fold in held_out)
    assert gates == [(180, 180)] * 10
    for (rows, labels, weight, synthetic), fold in zip(learned, held_out, strict=True):
        assert not {row.tobytes() for row in rows} & {row.tobytes() for row in fold}
        np.testing.assert_array_equal(rows[-3:], found)
        assert 3 < synthetic.sum() <= 23
        assert weight[synthetic].sum() == pytest.approx(0.3 * weight[labels == 1].sum())


def test_the_threshold_is_told_by_fits_that_learn_what_the_search_found(rows, monkeypatch):
    monkeypatch.setattr("swift_hydra.held_out_scores", stop)
    open_to_all_sides = "sklearn:linear_model.LogisticRegression"
    parts = (open_to_all_sides, "background", "random", 1, 640)
    settings = HardeningSettings(*parts)
    hardened = harden(*rows, settings, 3)
    added = hardened.history[0]["added"]
    assert 0 < added < len(hardened.scenario.bank)
    with pytest.raises(Reached) as reached:
        SwiftHydra(*parts, contamination=0.1, random_state=3).fit(*rows)
    *same, found, told, seed = reached.value.args
    np.testing.assert_equal(same, list(rows))
    np.testing.assert_array_equal(found, hardened.scenario.bank[-added:])
    assert (told, seed) == (settings, 3)


def test_the_estimators_defaults_are_the_loops(rows, monkeypatch):
    monkeypatch.setattr("swift_hydra.harden", stop)
    with pytest.raises(Reached) as reached:
        SwiftHydra().fit(*rows)
    assert reached.value.args[2:4] == (HardeningSettings(), 0)
