"""Backends that others bring: the conformance check, the families, ONNX and a real plugin."""

import copy
import os
import pickle
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from threading import Lock

import gymnasium as gym
import numpy as np
import onnx
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn import config_context
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.datasets import load_wine
from sklearn.ensemble import ExtraTreesClassifier, IsolationForest
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from sklearn.tree import DecisionTreeClassifier

import common.registry
import detectors
from agents.hardening import harden
from agents.settings import HardeningSettings
from common.errors import InputError
from common.files import read_json, write_json
from common.imports import load_attribute, load_plugins
from detectors.adapter import AdaptedDetector
from detectors.base import Detector, checked_scores
from detectors.families import pyod_modules
from detectors.replay import replay_set, retrained
from detectors.trees import CatBoostDetector, ExtraTreesDetector
from envs import env_id
from envs.core import make_core
from envs.latent_anomaly import LatentAnomalyEnv
from envs.registration import find_env
from envs.retrain import DetectorRetrainWrapper, VectorDetectorRetrainWrapper
from envs.scenario import Scenario
from envs.vector import LatentAnomalyVectorEnv
from swift_hydra import SwiftHydra

PLUGIN = Path(__file__).parent / "plugin"
SOUND = [
    "forest",
    "pyod:LOF",
    "pyod:IForest",
    "pyod:KNN",
    "sklearn:ensemble.RandomForestClassifier",
    "sklearn:sklearn.svm.SVC",
    "sklearn:neighbors.LocalOutlierFactor",
    "sklearn:ensemble.IsolationForest",
]
WINE = {"data": "wine", "protocol": "full", "generator": "background"}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Whatever a test registers is gone afterwards."""
    monkeypatch.setattr(detectors.registry, "specs", dict(detectors.registry.specs))


@pytest.mark.parametrize("id", SOUND)
def test_sound_backend_has_no_fault(id):
    assert detectors.check_detector(id) == []


class Sound:
    """Needs nothing but two methods."""

    def fit(self, X, y):
        self.center = X[y == 0].mean(axis=0)

    def decision_function(self, X):
        return np.abs(X - self.center).sum(axis=1)


class Upside(Sound):
    def decision_function(self, X):
        return -super().decision_function(X)


class Column(Sound):
    def decision_function(self, X):
        return super().decision_function(X)[:, None]


class Constant(Sound):
    def decision_function(self, X):
        return np.ones(len(X))


class Infinite(Sound):
    def decision_function(self, X):
        return np.where(X[:, 0] > 1, np.nan, super().decision_function(X))


class ByBatch(Sound):
    def decision_function(self, X):
        return super().decision_function(X - X.mean(axis=0))


class Writes(ExtraTreesDetector):
    def _log_odds(self, X):
        scores = super()._log_odds(X)
        X[:] = 0
        return scores


class Unseeded(Sound):
    def fit(self, X, y):
        super().fit(X, y)
        self.center = self.center + np.random.default_rng().standard_normal(X.shape[1])


class Stubborn:
    """Scores by what it knew from the start."""

    def fit(self, X, y):
        pass

    def decision_function(self, X):
        return X.sum(axis=1)


class Forgetful(ExtraTreesDetector):
    shift = 0.0

    def _log_odds(self, X):
        return super()._log_odds(X) + self.shift

    @classmethod
    def load(cls, folder):
        loaded = super().load(folder)
        loaded.shift = 1.0
        return loaded


class Imputes(ExtraTreesDetector):
    def decision_function(self, X):
        return super().decision_function(np.nan_to_num(X))


class Broken(Sound):
    def fit(self, X, y):
        raise RuntimeError("out of order")


class NeedsFolder(ExtraTreesDetector):
    def save(self, folder):
        (folder / "own").touch()
        super().save(folder)


class Unmade(ExtraTreesDetector):
    save = None

    def __init__(self, n_estimators=100):
        super().__init__(n_estimators)


class Thresholded(OutlierMixin, BaseEstimator):
    """In scikit-learn's manner, with a threshold of its own scores under another sign."""

    def fit(self, X, y=None):
        self.center_ = X.mean(axis=0)
        self.threshold_ = np.quantile(-self.distance(X), 0.1)
        return self

    def distance(self, X):
        return np.abs(X - self.center_).max(axis=1)

    def decision_function(self, X):
        return -self.distance(X) - self.threshold_


class FarInfinite(Sound):
    def decision_function(self, X):
        return np.where(np.abs(X).max(axis=1) > 20, np.inf, super().decision_function(X))


class OwnColumn(ExtraTreesDetector):
    def decision_function(self, X):
        return super().decision_function(X)[:, None]


class OwnInfinite(ExtraTreesDetector):
    def decision_function(self, X):
        return np.where(np.abs(X).max(axis=1) > 20, np.inf, super().decision_function(X))


class Global(ExtraTreesDetector):
    def _fit(self, *rows):
        np.random.rand(5)  # noqa: NPY002
        super()._fit(*rows)


@pytest.mark.parametrize(
    ("cls", "sentence"),
    [
        (Upside, "higher must mean more anomalous"),
        (Column, "shape"),
        (Constant, "same score"),
        (Infinite, "scores a row as nan"),
        (FarInfinite, "scores a row as inf"),
        (OwnColumn, "must return the shape"),
        (OwnInfinite, "must return finite numbers only"),
        (Global, "global generator"),
        (ByBatch, "other rows of the batch"),
        (Writes, "must not write"),
        (Unseeded, "random_state"),
        (Stubborn, "must come to score above"),
        (Forgetful, "must score as before"),
        (Imputes, "refuse rows with NaN"),
        (Broken, "out of order"),
        (Unmade, "must be made with a random_state"),
        (NeedsFolder, "saved into a folder that is not there yet"),
    ],
)
@pytest.mark.filterwarnings("ignore:faulty scores a row otherwise alone")
def test_each_fault_is_told_in_a_sentence(cls, sentence):
    detectors.register("faulty", f"{__name__}:{cls.__name__}")
    faults = detectors.check_detector("faulty")
    assert any(sentence in fault for fault in faults), faults
    assert all(fault.startswith("faulty: ") and fault.endswith(".") for fault in faults)


class Dumper(Sound):
    """Writes a file as soon as it is made."""

    def __init__(self, path):
        Path(path).touch()


class NoFit:
    def decision_function(self, X):
        return X[:, 0]


class NoLabels(NoFit):
    def fit(self, X):
        pass


class Limited(Sound):
    threshold_ = None


class Boundless(Sound):
    threshold_ = np.nan


class Unsure:
    """Knows probabilities only, of which `threshold_` is one."""

    threshold_ = 0.2

    def fit(self, X, y):
        self.model = GaussianNB().fit(X, y)

    def predict_proba(self, X):
        return self.model.predict_proba(X)


class Certain(Unsure):
    threshold_ = 1.5


class Offline(Sound):
    def decision_function(self, X):
        raise ConnectionError("server gone")


class LacksOneNumber(ExtraTreesDetector):
    def _log_odds(self, X):
        scores = super()._log_odds(X)
        scores[-1] = np.nan
        return scores


class GivesColumn(ExtraTreesDetector):
    def _log_odds(self, X):
        return super()._log_odds(X)[:, None]


@pytest.mark.parametrize(
    ("cls", "sentence"),
    [
        (NoFit, "mine has no method fit"),
        (NoLabels, "mine has no method fit"),
        (Limited, "mine has the threshold_ None"),
        (Boundless, "mine has the threshold_ nan"),
        (Certain, "mine has the threshold_ 1.5; make it a number between 0 and 1"),
        (Column, r"mine gives scores of the shape \(180, 1\) for 180 rows"),
        (Broken, r"mine fails \(RuntimeError in test_backends.py, line \d+: out of order\)"),
        (Offline, r"mine fails \(ConnectionError in test_backends.py, line \d+: server gone\)"),
        (LacksOneNumber, r"LacksOneNumber scores a row as nan \(180 of 180\)"),
        (GivesColumn, "GivesColumn gives scores of the shape"),
    ],
)
def test_a_faulty_class_is_refused_in_a_sentence(rows, cls, sentence):
    detectors.register("mine", f"{__name__}:{cls.__name__}")
    with pytest.raises(InputError, match=sentence):
        detectors.make("mine").fit(*rows)


def test_a_threshold_of_probabilities_is_one(rows):
    X, y = rows
    detectors.register("unsure", f"{__name__}:Unsure")
    detector = detectors.make("unsure").fit(X, y)
    anomaly = detector.estimator_.predict_proba(X)[:, 1]
    np.testing.assert_array_equal(detector.predict(X), anomaly > 0.2)


class Spoils(Sound):
    """Writes into what it is given."""

    def fit(self, X, y):
        super().fit(X, y)
        X *= 100
        y[:] = -1

    def decision_function(self, X):
        scores = super().decision_function(X)
        X[:] = 0
        return scores


def test_a_class_that_writes_into_its_rows_changes_its_own_copies(rows):
    scores = []
    for cls in (Sound, Spoils):
        detectors.register(cls.__name__, f"{__name__}:{cls.__name__}")
        scores.append(detectors.make(cls.__name__).fit(*rows).decision_function(rows[0]))
    np.testing.assert_array_equal(*scores)


def test_a_class_whose_scores_depend_on_the_batch_is_told_of(rows):
    detectors.register("by-batch", f"{__name__}:ByBatch")
    with pytest.warns(UserWarning, match="by-batch scores a row otherwise alone"):
        detectors.make("by-batch").fit(*rows)


@pytest.mark.parametrize("id", [Sound, Sound(), None])
def test_what_is_no_id_is_refused_in_a_sentence(rows, id):
    with pytest.raises(InputError, match="detector is named by its id"):
        SwiftHydra(detector=id).fit(*rows)
    with pytest.raises(InputError, match="detector is named by its id"):
        gym.make("envs:LatentAnomaly-v0", detector=id, **WINE)
    if id is not None:
        with pytest.raises(InputError, match="write 'module:Class'"):
            detectors.register("mine", id)


def test_an_abstract_detector_cannot_be_made():
    detectors.register("abstract", "detectors.base:Detector")
    with pytest.raises(InputError, match=r"'abstract' cannot be made: .*abstract"):
        detectors.make("abstract")


def test_an_outlier_detector_of_ones_own_flags_what_it_calls_an_outlier(rows):
    detectors.register("thresholded", f"{__name__}:Thresholded")
    normals = rows[0][rows[1] == 0]
    detector = detectors.make("thresholded").fit(*rows)
    flagged = (
        Thresholded()
        .fit(detector.scaler_.transform(normals))
        .decision_function(detector.scaler_.transform(normals))
    )
    np.testing.assert_array_equal(detector.predict(normals), flagged < 0)
    assert flagged.min() < 0 < flagged.max()


def test_training_scores_of_pyods_detectors_are_their_own(rows):
    X, y = rows
    detector = detectors.make("pyod:KNN").fit(X, y)
    assert detector.labels_[y == 0].mean() == pytest.approx(0.1, abs=0.01)
    assert not np.allclose(detector.decision_scores_, detector.decision_function(X))


def test_two_methods_are_enough(rows, tmp_path):
    X, y = rows
    detectors.register("sound", f"{__name__}:Sound")
    detector = detectors.make("sound").fit(X, y)
    scores = detector.decision_function(X)
    own = Sound()
    own.fit(X, y)
    assert (np.argsort(scores) == np.argsort(own.decision_function(X))).all()
    assert detector.predict(X[y == 0]).mean() == pytest.approx(0.1, abs=0.01)
    np.testing.assert_allclose(detector.predict_proba(X)[:, 1], 1 / (1 + np.exp(-scores)))
    detector.save(tmp_path)
    np.testing.assert_array_equal(detectors.load("sound", tmp_path).decision_function(X), scores)
    env = gym.make("LatentAnomaly/sound-v0", **WINE)
    env.reset(seed=0)
    assert np.isfinite(env.step(env.action_space.sample())[1])


def test_settings_reach_the_class_and_wrong_ones_are_one_sentence(rows):
    detector = detectors.make("sklearn:ensemble.RandomForestClassifier", n_estimators=7)
    assert len(detector.fit(*rows).estimator_) == 7
    with pytest.raises(InputError, match="cannot be made"):
        detectors.make("pyod:LOF", neighbours=3).fit(*rows)


class Novelty(Sound):
    def __init__(self, novelty=0.3):
        self.novelty = novelty


class Weighed(Sound):
    def fit(self, X, y, sample_weight):
        assert len(sample_weight) == len(X)
        super().fit(X, y)


def test_a_class_keeps_the_defaults_of_its_own(rows):
    detectors.register("novelty", f"{__name__}:Novelty")
    assert detectors.make("novelty").fit(*rows).estimator_.novelty == 0.3


def test_a_class_may_insist_on_weights(rows):
    detectors.register("weighed", f"{__name__}:Weighed")
    assert detectors.make("weighed").fit(*rows).decision_function(rows[0]).shape == (len(rows[0]),)


class Unwilling(Sound):
    def __init__(self):
        raise RuntimeError("no device")


class OneProbability:
    def fit(self, X, y):
        pass

    def predict_proba(self, X):
        return np.full((len(X), 1), 0.5)


class BrokenThreshold(Sound):
    @property
    def threshold_(self):
        raise RuntimeError("none yet")


@pytest.mark.parametrize(
    ("cls", "sentence"),
    [
        (Unwilling, r"Unwilling cannot be made \(RuntimeError: no device\)"),
        (OneProbability, r"OneProbability gives probabilities of the shape \(180, 1\).* two a row"),
        (BrokenThreshold, "BrokenThreshold fails .*none yet"),
    ],
)
def test_a_class_that_fails_is_one_sentence(rows, cls, sentence):
    detectors.register(cls.__name__, f"{__name__}:{cls.__name__}")
    with pytest.raises(InputError, match=sentence):
        detectors.make(cls.__name__).fit(*rows)


def test_a_compiled_class_is_asked_for_its_methods(rows):
    detectors.register("compiled", "sklearn.neighbors:KDTree")
    with pytest.raises(InputError, match=r"compiled cannot be made"):
        detectors.make("compiled").fit(*rows)


class Reversed(ExtraTreesDetector):
    def _log_odds(self, X):
        return super()._log_odds(X[::-1])[::-1]


class Wide(ExtraTreesDetector):
    def _log_odds(self, X):
        return super()._log_odds(X).astype(np.longdouble)


class Named(ExtraTreesDetector):
    def _log_odds(self, X):
        return pd.Series(super()._log_odds(X))


@pytest.mark.parametrize("cls", [Reversed, Wide, Named])
def test_scores_of_any_kind_become_plain_ones(cls):
    detectors.register(cls.__name__, f"{__name__}:{cls.__name__}")
    assert detectors.check_detector(cls.__name__, n_estimators=20) == []
    env = gym.make("envs:LatentAnomaly-v0", detector=cls.__name__, **WINE)
    assert np.isfinite(env.reset(seed=0)[0]).all()


@pytest.mark.parametrize("scores", [["high"], [{}], [[1.0], [1.0, 2.0]]])
def test_scores_that_are_no_numbers_are_refused(scores):
    with pytest.raises(InputError, match="mine gives scores that are no numbers"):
        checked_scores(scores, 1, "mine")


@pytest.mark.parametrize("id", ["pyod:KNN", "catboost", "extra-trees", "mamba"])
def test_a_refused_retraining_leaves_the_detector_as_it_was(rows, tmp_path, id):
    X, y = rows
    detector = detectors.make(id, **({"steps": 2} if id == "mamba" else {})).fit(X, y)
    before = detector.decision_function(X)
    few = np.r_[0, len(X) - 1]
    rejected = np.ones_like(X) if id == "catboost" else np.where(y[:, None], 1e39, X)
    refused = (X[few], y[few]) if id == "pyod:KNN" else (rejected, y)
    with pytest.raises(ValueError, match=r"refuses the rows|No column|float32"):
        detector.partial_fit(*refused)
    np.testing.assert_array_equal(detector.decision_function(X), before)
    np.testing.assert_array_equal(detector.labels_, detector.decision_scores_ > 0)
    detector.save(tmp_path)
    np.testing.assert_allclose(detectors.load(id, tmp_path).decision_function(X), before, atol=1e-5)


def test_a_folder_of_another_backend_is_refused(rows, tmp_path):
    detectors.make("pyod:KNN").fit(*rows).save(tmp_path)
    with pytest.raises(InputError, match=r"holds pyod:KNN, not sklearn:svm\.SVC"):
        detectors.load("sklearn:svm.SVC", tmp_path)


def test_a_folder_that_names_another_class_does_not_make_it(rows, tmp_path):
    detectors.make("sklearn:svm.SVC").fit(*rows).save(tmp_path)
    settings = read_json(tmp_path / "settings.json")
    settings |= {"backend": "dumper", "settings": {"path": str(tmp_path / "victim")}}
    write_json(tmp_path / "settings.json", settings)
    detectors.register("dumper", f"{__name__}:Dumper")
    with pytest.raises(InputError, match=r"holds dumper, not sklearn:svm\.SVC"):
        detectors.load("sklearn:svm.SVC", tmp_path)
    assert not (tmp_path / "victim").exists()


class LoadsByItself(ExtraTreesDetector):
    def load(self, folder):
        return self


class LoadsNothing(ExtraTreesDetector):
    @classmethod
    def load(cls, folder):
        return cls()


@pytest.mark.parametrize(
    ("cls", "told"),
    [(LoadsByItself, "load of mine fails .TypeError"), (LoadsNothing, "must return a detector")],
)
def test_what_a_class_gets_wrong_in_load_is_told(rows, tmp_path, cls, told):
    detectors.register("mine", f"{__name__}:{cls.__name__}")
    detectors.make("mine").fit(*rows).save(tmp_path)
    with pytest.raises(InputError, match=told):
        detectors.load("mine", tmp_path)


def test_adapted_detectors_learn_where_scikit_learn_answers_with_frames(rows):
    scores = detectors.make("pyod:LOF").fit(*rows).decision_scores_
    with config_context(transform_output="pandas"):
        framed = detectors.make("pyod:LOF").fit(*rows)
        np.testing.assert_array_equal(framed.decision_scores_, scores)


@pytest.mark.parametrize("id", ["mamba-moe", "catboost", "pyod:KNN"])
def test_what_is_not_fitted_is_not_saved(tmp_path, id):
    with pytest.raises(NotFittedError):
        detectors.make(id).save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("id", "offset"), [("extra-trees", 1000), ("catboost", 0)])
def test_rows_to_check_on_may_lie_anywhere(id, offset):
    rng = np.random.default_rng(0)
    X = offset + np.r_[3 * rng.standard_normal((120, 5)), 0.3 * rng.standard_normal((24, 5))]
    assert detectors.check_detector(id, X, np.repeat([0, 1], [120, 24])) == []


class Large:
    """Scores that are finite, while their squares are not."""

    def fit(self, X, y):
        self.mean = X.mean(axis=0)

    def decision_function(self, X):
        return 1e160 * (1 + ((X - self.mean) ** 2).sum(axis=1))


def test_large_scores_keep_their_ranking(rows):
    detectors.register("large", f"{__name__}:Large")
    X, y = rows
    own = Large()
    own.fit(X, y)
    order = np.argsort(own.decision_function(X))
    scores = detectors.make("large").fit(X, y).decision_function(X)
    assert (np.diff(scores[order]) >= 0).all()
    assert np.ptp(scores) > 1


def test_a_class_under_an_id_of_its_own_gets_rows_as_they_are(rows):
    detectors.register("own:large", f"{__name__}:Large")
    X, y = rows
    fitted = detectors.make("own:large").fit(X + 100, y)
    assert fitted.estimator_.mean == pytest.approx((X + 100).mean(axis=0))


@pytest.mark.parametrize("form", ["integers", "float labels", "frame", "lists", "texts"])
def test_rows_to_check_on_may_have_any_form_that_fit_takes(rows, form):
    X, y = rows
    X = (10 * X).round()
    given = {
        "integers": (X.astype(int), y),
        "float labels": (X, y.astype(float)),
        "frame": (pd.DataFrame(X, columns=list("abcd")), pd.Series(y)),
        "lists": (X.tolist(), y.tolist()),
        "texts": (X, np.where(y == 1, "odd", "normal")),
    }[form]
    assert detectors.check_detector("extra-trees", *given, n_estimators=50) == []


def test_rows_to_check_on_that_no_detector_takes_are_the_callers_fault(rows):
    X, y = rows
    missing = np.where(X > 2, np.nan, X)
    for refused, labels in ((X, y[:-1]), (1e39 * X, y), (missing, y), (X, 0 * y)):
        with pytest.raises(ValueError, match=r"inconsistent|float32|NaN|has one class, 0\."):
            detectors.check_detector("extra-trees", refused, labels)


@pytest.mark.parametrize(
    ("id", "settings", "name"),
    [
        ("ensemble.RandomForestClassifier", {"class_weight": {0: 1, 1: 5}}, "class_weight"),
        ("ensemble.BaggingClassifier", {"estimator": DecisionTreeClassifier()}, "estimator"),
    ],
)
def test_settings_that_json_does_not_hold_are_not_saved(rows, tmp_path, id, settings, name):
    detector = detectors.make(f"sklearn:{id}", n_estimators=5, **settings).fit(*rows)
    with pytest.raises(InputError, match=f"cannot be saved with {name}="):
        detector.save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("id", "sentence"),
    [
        ("pyod:LOFF", "did you mean pyod:LOF"),
        ("sklearn:svm.SVCC", "did you mean sklearn:svm.SVC"),
        ("sklearn:datasets._rcv1.GzipFile", "Unknown scikit-learn class"),
        ("sklearn:IsolationForest", "did you mean sklearn:ensemble.IsolationForest"),
        ("sklearn:HistGradientBoostingClassifier", "ensemble.HistGradientBoostingClassifier"),
        ("pyood:LOF", "pyod:<Class>"),
        ("onnx:nowhere.onnx", "nowhere.onnx"),
        ("sklearn:linear_model.LinearRegression", "neither"),
    ],
)
def test_unknown_member_is_one_sentence(rows, id, sentence):
    with pytest.raises(InputError, match=sentence):
        detectors.make(id).fit(*rows)


def test_outlier_detector_keeps_its_ranking_until_it_is_hardened(rows):
    from pyod.models.lof import LOF

    X, y = rows
    scaler = StandardScaler().fit(X)
    own = LOF().fit(scaler.transform(X[y == 0]))
    detector = detectors.make("pyod:LOF").fit(X, y)
    probes = np.random.default_rng(0).uniform(-5, 5, (300, X.shape[1]))
    raw = own.decision_function(scaler.transform(probes))
    scores = detector.decision_function(probes)
    assert (np.diff(scores[np.argsort(raw)]) >= 0).all()
    assert ((scores > 0) == (raw > own.threshold_)).all()
    bank = np.random.default_rng(1).normal(-4, 0.3, (60, X.shape[1]))
    hardened = copy.deepcopy(detector).partial_fit(*replay_set(X, y, bank, 0.5))
    assert hardened.predict(bank).mean() > 0.9
    assert roc_auc_score(y, hardened.decision_function(X)) > 0.9


def test_confident_classifier_keeps_its_ranking(rows):
    X, seen, labels = 40 * rows[0], 40 * rows[0][:60], rows[1][-60:]
    detector = detectors.make("sklearn:naive_bayes.GaussianNB").fit(seen, labels)
    scaler = StandardScaler().fit(seen)
    naive_bayes = GaussianNB().fit(scaler.transform(seen), labels)
    logarithm = naive_bayes.predict_log_proba(scaler.transform(X))
    order = (logarithm[:, 1] - logarithm[:, 0]).argsort()
    assert (np.diff(detector.decision_function(X)[order]) >= 0).all()
    assert len(np.unique(detector.decision_function(X))) > 0.9 * len(X)


@pytest.fixture
def plain() -> tuple[np.ndarray, np.ndarray]:
    """Rows that a classifier tells apart without doubt."""
    y = np.repeat([0, 1], [1000, 20])
    return np.random.default_rng(0).normal(size=(1020, 4)) + 5 * y[:, None], y


def test_confident_boosted_trees_keep_their_ranking(plain):
    X, y = plain
    detector = CatBoostDetector().fit(X, y, sample_weight=np.ones(len(y)))
    own = detector.of_real_.predict(X, prediction_type="RawFormulaVal")
    scores = detector.decision_function(X)
    assert scores.min() < -7
    assert len(np.unique(scores)) == len(np.unique(own))
    assert (np.diff(scores[own.argsort()]) >= 0).all()


def test_package_that_a_backend_needs_is_named(tmp_path, monkeypatch):
    (tmp_path / "needy.py").write_text("import absent_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="'needy' needs the package 'absent_package'"):
        load_attribute("needy:Mine")
    with pytest.raises(InputError, match="Cannot import 'absent_package'"):
        load_attribute("absent_package:Mine")
    with pytest.raises(InputError, match="the form is module:attribute"):
        load_attribute("common.errors:Mine")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("class Mine(:", "SyntaxError in faulty_plugin.py, line 2"),
        ("detectors.registr('mine')", "AttributeError in faulty_plugin.py, line 2"),
        ("raise SystemExit('bye')", "SystemExit in faulty_plugin.py, line 2: bye"),
        ("detectors.register('catboost', 'mine:Mine')", "'catboost' is already"),
        ("detectors.register('pyod:LOF', 'mine:Mine')", "'pyod:LOF' is one of the pyod:<Class>;"),
    ],
)
def test_plugin_that_fails_is_one_sentence(text, sentence, tmp_path, monkeypatch):
    (tmp_path / "faulty_plugin.py").write_text(f"import detectors\n{text}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=sentence) as told:
        load_plugins(["faulty_plugin"])
    assert "PYTHONPATH" not in str(told.value)


@pytest.mark.parametrize("id", ["pyod:COF", "pyod:SOD", "pyod:CD"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning:pyod")
def test_detector_that_cannot_score_a_row_alone_is_refused(rows, id):
    with pytest.raises(InputError, match=f"{id} cannot score a row alone"):
        detectors.make(id).fit(*rows)


@pytest.mark.parametrize(
    ("member", "sentence"),
    [
        ("neighbors.RadiusNeighborsClassifier", "refuses the rows"),
        ("semi_supervised.LabelPropagation", "scores a row as nan"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning:sklearn")
def test_rows_refused_in_scoring_are_one_sentence(rows, member, sentence):
    id, (X, y) = f"sklearn:{member}", rows
    with pytest.raises(InputError, match=f"{id} {sentence}"):
        detectors.make(id).fit(X, y).decision_function(100 * X)


def test_a_refused_setting_is_not_taken_for_refused_rows(rows):
    with pytest.raises(InputError, match=r"sklearn:svm\.SVC refuses a setting: The .C. parameter"):
        detectors.make("sklearn:svm.SVC", C=-1).fit(*rows)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_rows_that_were_not_learned_are_tried_alone():
    X = np.random.default_rng(0).standard_normal((120, 4))
    X[110:] += 3
    with pytest.warns(UserWarning, match="pyod:RGraph scores a row otherwise alone"):
        detectors.make("pyod:RGraph").fit(X, np.repeat([0, 1], [110, 10]))


def test_refused_rows_are_one_sentence(rows):
    with pytest.raises(InputError, match="pyod:MAD refuses the rows: MAD"):
        detectors.make("pyod:MAD").fit(*rows)


class Locked(ExtraTreesClassifier):
    """Holds what cannot be copied, as a client of a service does."""

    def fit(self, X, y, sample_weight=None):
        self.lock = Lock()
        return super().fit(X, y, sample_weight)


def test_class_that_cannot_be_copied_is_retrained(rows):
    detectors.register("locked", f"{__name__}:Locked")
    assert detectors.check_detector("locked") == []
    detector, bank = detectors.make("locked").fit(*rows), np.full((5, rows[0].shape[1]), -3.0)
    before = detector.decision_function(bank)
    assert retrained(detector, *rows, bank, 0.5).predict(bank).all()
    np.testing.assert_array_equal(detector.decision_function(bank), before)


def test_id_whose_env_would_be_another_ones_is_refused_and_forgotten():
    with pytest.raises(InputError, match="attacks pyod:LOF"):
        detectors.register("pyod.LOF", "test_backends:Sound")
    assert "pyod.LOF" not in detectors.ids()
    assert find_env("LatentAnomaly/pyod.LOF-v0")[1] == "pyod:LOF"


def test_package_whose_env_id_is_taken_does_not_stop_the_command_line(tmp_path):
    (tmp_path / "bad-0.1.dist-info").mkdir()
    offered = "[swift_hydra.detectors]\npyod.LOF = somewhere:Else\n"
    (tmp_path / "bad-0.1.dist-info" / "entry_points.txt").write_text(offered)
    line = [sys.executable, str(PLUGIN.parent.parent / "evaluate.py"), "--help"]
    done = subprocess.run(line, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_package_that_offers_a_taken_id_is_left_out_with_a_warning(monkeypatch):
    offered = EntryPoint("catboost", "somewhere:Else", "swift_hydra.detectors")
    monkeypatch.setattr(common.registry, "entry_points", lambda group: [offered])
    with pytest.warns(UserWarning, match="somewhere:Else is left out: .*already"):
        detectors.registry.register_entry_points()
    assert detectors.registry.spec("catboost").entry_point != "somewhere:Else"


class Inner:
    class Trees(ExtraTreesDetector):
        """A class that is an attribute of another one."""


def test_a_package_may_offer_an_attribute_of_a_class_and_need_extras(monkeypatch):
    offered = EntryPoint("inner", f"{__name__}:Inner.Trees [gpu]", "swift_hydra.detectors")
    monkeypatch.setattr(common.registry, "entry_points", lambda group: [offered])
    detectors.registry.register_entry_points()
    assert isinstance(detectors.make("inner"), Inner.Trees)


class Unready(ExtraTreesDetector):
    def __init__(self, random_state=0):
        raise RuntimeError("no licence")


def test_a_detector_that_cannot_be_made_is_one_sentence():
    detectors.register("unready", f"{__name__}:Unready")
    told = r"'unready' fails \(RuntimeError in test_backends.py, line \d+: no licence\)"
    with pytest.raises(InputError, match=told):
        detectors.make("unready")


def test_exported_again_is_attacked_anew(rows, tmp_path):
    path, (X, y) = tmp_path / "model.onnx", load_wine(return_X_y=True)
    scores = []
    for i, label in enumerate((y == 0, y == 1)):
        forest = ExtraTreesClassifier(5, random_state=0).fit(X, label)
        path.write_bytes(to_onnx(forest, X[:1].astype(np.float32)).SerializeToString())
        os.utime(path, (i, i))
        core = make_core(1, detector=f"onnx:{path}", **WINE)
        scores.append(core.detector.decision_function(X))
    assert not np.allclose(*scores)


def test_scikit_learns_outlier_sign_is_turned(rows):
    X, y = rows
    detector = detectors.make("sklearn:ensemble.IsolationForest").fit(X, y)
    scaler = StandardScaler().fit(X)
    own = IsolationForest(random_state=0).fit(scaler.transform(X[y == 0]))
    np.testing.assert_array_equal(detector.predict(X), own.predict(scaler.transform(X)) == -1)


def test_every_pyod_detector_for_tables_has_an_env_id():
    assert {"LOF", "KNN", "IForest", "ECOD", "AutoEncoder", "XGBOD"} <= set(pyod_modules())
    assert "DOMINANT" not in pyod_modules()
    for name in pyod_modules():
        assert f"LatentAnomaly/pyod.{name}-v0" in gym.registry


@pytest.mark.parametrize(
    "id",
    [
        "LatentAnomaly/pyod:LOF-v0",
        "LatentAnomaly/pyod.LOF-v0",
        "envs:LatentAnomaly/pyod.LOF-v0",
        "envs:LatentAnomaly/pyod:LOF-v0",
    ],
)
def test_family_member_is_found_by_either_spelling(id):
    assert find_env(id) == ("LatentAnomaly/pyod.LOF-v0", "pyod:LOF")


def test_family_member_is_an_env(rows):
    single = gym.make("envs:LatentAnomaly/pyod.LOF-v0", **WINE)
    assert isinstance(single.unwrapped.core.detector, AdaptedDetector)
    several = gym.make_vec(env_id("sklearn:svm.SVC"), 3, **WINE)
    several.reset(seed=0)
    assert several.step(several.action_space.sample())[1].shape == (3,)
    assert env_id("onnx:some/where.onnx") == "LatentAnomaly/onnx.some-where.onnx-v0"


@pytest.fixture(scope="module")
def forest(rows) -> ExtraTreesClassifier:
    return ExtraTreesClassifier(30, random_state=0).fit(*rows)


@pytest.fixture(scope="module", params=["probabilities", "dictionaries", "score"])
def exported(request, rows, forest, tmp_path_factory) -> tuple[str, np.ndarray]:
    """An ONNX file, and the ranking of the rows that it stands for."""
    X, y = rows
    path = tmp_path_factory.mktemp("onnx") / "scorer.onnx"
    sample = X[:1].astype(np.float32)
    if request.param == "score":
        model = LinearRegression().fit(X, y)
        onnx, truth = to_onnx(model, sample), model.predict(X)
    else:
        options = {"zipmap": request.param == "dictionaries"}
        onnx = to_onnx(forest, sample, options={id(forest): options})
        truth = forest.predict_proba(X)[:, 1]
    path.write_bytes(onnx.SerializeToString())
    return str(path), truth


def test_onnx_scorer_scores_as_what_it_was_made_from(exported, rows, tmp_path):
    path, truth = exported
    X, y = rows
    detector = detectors.make(f"onnx:{path}").fit(X, y)
    scores = detector.decision_function(X)
    assert np.corrcoef(scores.argsort().argsort(), truth.argsort().argsort())[0, 1] > 0.99
    detector.save(tmp_path)
    for other in (
        detectors.load(f"onnx:{path}", tmp_path),
        copy.deepcopy(detector),
        pickle.loads(pickle.dumps(detector)),
    ):
        np.testing.assert_array_equal(other.decision_function(X), scores)
    assert detectors.check_detector(f"onnx:{path}", X, y) == []
    write_json(tmp_path / "settings.json", {"n_features": X.shape[1]})
    with pytest.raises(InputError, match="another version; train it again"):
        detectors.load(f"onnx:{path}", tmp_path)


def test_onnx_scorer_stays_what_it_was_when_its_file_is_replaced(exported, rows, tmp_path):
    (X, y), path = rows, tmp_path / "model.onnx"
    shutil.copy(exported[0], path)
    detector = detectors.make(f"onnx:{path}").fit(X, y)
    scores = detector.decision_function(X)
    other = to_onnx(LinearRegression().fit(X, 1 - y), X[:1].astype(np.float32))
    path.write_bytes(other.SerializeToString())
    copies = [copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))]
    path.unlink()
    for scorer in (detector, *copies):
        scorer.save(tmp_path / "saved")
        loaded = detectors.load(f"onnx:{path}", tmp_path / "saved")
        np.testing.assert_array_equal(scorer.decision_function(X), scores)
        np.testing.assert_array_equal(loaded.decision_function(X), scores)


def test_onnx_model_with_its_weights_beside_it_is_refused(rows, tmp_path, monkeypatch):
    (X, y), path = rows, tmp_path / "model.onnx"
    network = MLPClassifier(4, max_iter=5, random_state=0)
    with pytest.warns(ConvergenceWarning):
        model = to_onnx(network.fit(X, y), X[:1].astype(np.float32))
    for weights in model.graph.initializer:
        raw = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights), weights.name)
        weights.CopyFrom(raw)
    onnx.save(model, path, save_as_external_data=True, size_threshold=64, location="weights")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^model.onnx is no readable .*, as one file"):
        detectors.make("onnx:model.onnx").fit(X, y)


def test_confident_onnx_classifier_keeps_its_ranking(plain, tmp_path):
    X, y = plain
    naive_bayes = GaussianNB().fit(X, y)
    (tmp_path / "bayes.onnx").write_bytes(
        to_onnx(naive_bayes, X[:1].astype(np.float32)).SerializeToString()
    )
    scores = detectors.make(f"onnx:{tmp_path / 'bayes.onnx'}").fit(X, y).decision_function(X)
    logarithm = naive_bayes.predict_log_proba(X)
    order = (logarithm[:, 1] - logarithm[:, 0]).argsort()
    assert scores.min() < -8
    assert (np.diff(scores[order]) > -0.01).all()


def test_onnx_scorer_is_attacked_but_not_retrained(exported, rows):
    path, _ = exported
    X, y = rows
    settings = HardeningSettings(
        detector=f"onnx:{path}",
        generator="background",
        rounds=1,
        timesteps=512,
        n_lanes=16,
        n_background=50,
    )
    with pytest.warns(UserWarning, match="can only be queried"):
        hardened = harden(X, y, settings, 0)
    assert hardened.history[0]["successes"] > 0
    assert len(hardened.scenario.bank) == 50 + hardened.history[0]["added"]
    before, after = (
        detector.decision_function(X)
        for detector in (hardened.unhardened, hardened.scenario.detector)
    )
    np.testing.assert_array_equal(before, after)


def test_wrapper_says_that_an_onnx_scorer_is_not_retrained(exported, rows, fitted_scenario):
    X, y = rows
    detector = detectors.make(f"onnx:{exported[0]}").fit(X, y)
    scenario = Scenario.assemble(X, y, fitted_scenario.generator, detector, 0)
    with pytest.raises(InputError, match="can only be queried"):
        DetectorRetrainWrapper(LatentAnomalyEnv(scenario=scenario))
    with pytest.raises(InputError, match="can only be queried"):
        VectorDetectorRetrainWrapper(LatentAnomalyVectorEnv(2, scenario=scenario))
    with pytest.raises(InputError, match="can only be queried"):
        detector.partial_fit(X, y)


def test_onnx_file_for_other_rows_or_no_model_is_one_sentence(exported, rows, tmp_path):
    X, y = rows
    with pytest.raises(InputError, match="columns"):
        detectors.make(f"onnx:{exported[0]}").fit(X[:, :2], y)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match="no readable ONNX model"):
        detectors.make(f"onnx:{tmp_path / 'broken.onnx'}").fit(X, y)


def test_plugin_is_small_and_installed():
    """`make install` installs it; it comes in through its entry point and nothing else."""
    lines = [line for path in PLUGIN.iterdir() if path.is_file() for line in path.open()]
    assert len(lines) <= 40
    assert "forest" in detectors.ids()
    assert isinstance(detectors.make("forest"), Detector)
    assert env_id("forest") == "LatentAnomaly/forest-v0"


def test_plugin_module_registers_on_import(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import detectors\ndetectors.register('mine', 'sklearn.ensemble:RandomForestClassifier')\n"
    )
    code = (
        "from common.imports import load_plugins; load_plugins(['mine']);"
        "import detectors; assert detectors.check_detector('mine') == []"
    )
    line = [sys.executable, "-c", code]
    paths = f"{tmp_path}:{Path(detectors.__file__).parent.parent}"
    done = subprocess.run(line, env={"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(InputError, match="no_such_plugin"):
        load_plugins(["no_such_plugin"])


def test_foreign_class_gets_weights_and_columns_in_units_of_the_real_rows(rows):
    X, y, weight, synthetic = replay_set(*rows, rows[0] + 50, 0.3)
    detector = detectors.make("sklearn:linear_model.LogisticRegression")
    detector.fit(X, y, weight, synthetic)
    scaled = StandardScaler().fit(rows[0]).transform(X)
    own = LogisticRegression().fit(scaled, y, sample_weight=weight)
    np.testing.assert_array_equal(detector.estimator_.coef_, own.coef_)


def test_outlier_detectors_get_weights_where_they_take_them(rows):
    X, y = rows
    weight = np.where(np.arange(len(y)) % 2, 1e-3, 1.0)
    detector = detectors.make("sklearn:svm.OneClassSVM").fit(X, y, weight)
    scaled, normal = StandardScaler().fit(X).transform(X), y == 0
    own = OneClassSVM().fit(scaled[normal], sample_weight=weight[normal])
    np.testing.assert_array_equal(detector.estimator_.dual_coef_, own.dual_coef_)


@pytest.mark.parametrize("id", ["pyod:KNN", "sklearn:ensemble.IsolationForest"])
@pytest.mark.parametrize("synthetic_weight", [0, 0.3])
def test_rows_of_no_weight_do_not_count_in_outlier_detectors(rows, id, synthetic_weight):
    X, y, weight, synthetic = replay_set(*rows, rows[0] + 4, synthetic_weight)
    weight[(y == 0) & (X[:, 0] > 1)] = 0
    counts = weight > 0
    scores = []
    for chosen in (np.full(len(y), True), counts):
        detector = detectors.make(id)
        detector.fit(X[chosen], y[chosen], weight[chosen], synthetic[chosen])
        scores.append(detector.decision_function(X))
    assert counts.mean() < 0.95
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("id", ["pyod:ECOD", "sklearn:ensemble.IsolationForest"])
def test_hardened_outlier_detectors_score_values_beyond_float32_once_standardised(rows, id):
    X, y = 0.1 * rows[0], rows[1]
    detector = retrained(detectors.make(id).fit(X, y), X, y, X + 0.4, 0.3)
    far = 0.9 * np.finfo(np.float32).min * np.eye(4)
    assert np.isfinite(detector.decision_function(far)).all()


def test_training_scores_of_a_hardened_outlier_detector_are_of_its_trees(rows):
    detector = retrained(detectors.make("pyod:KNN").fit(*rows), *rows, rows[0] + 4, 0.3)
    scores = detector.decision_function(replay_set(*rows, rows[0] + 4, 0.3)[0])
    np.testing.assert_array_equal(detector.decision_scores_, scores)


def test_hardened_outlier_detectors_trees_learn_by_weight(rows):
    X, y, weight, synthetic = replay_set(*rows, rows[0] + 4, 0.3)
    probes = np.random.default_rng(0).uniform(-4, 6, (300, 4))
    scores = []
    for bank_weight in (1e-6, 1.0):
        weight[synthetic] = bank_weight
        detector = detectors.make("pyod:KNN").fit(X, y, weight, synthetic)
        scores.append(detector.decision_function(probes))
    assert np.mean(scores[1] - scores[0]) > 0.1


def test_the_same_registration_twice_is_harmless_with_arrays_too():
    def register(*priors):
        kwargs = {"priors": np.array(priors), "classes": [np.zeros(2), "a"]}
        detectors.register("informed", "sklearn.naive_bayes:GaussianNB", kwargs)

    register(0.9, 0.1)
    register(0.9, 0.1)
    with pytest.raises(InputError, match="already"):
        register(0.8, 0.2)


def test_registered_arguments_are_passed_on_and_overridden(rows):
    detectors.register("small", "sklearn.ensemble:ExtraTreesClassifier", {"n_estimators": 3})
    assert len(detectors.make("small").fit(*rows).estimator_) == 3
    assert len(detectors.make("small", n_estimators=5).fit(*rows).estimator_) == 5
    assert detectors.make("mamba").d_model == 64
    assert detectors.make("mamba", d_model=32).d_model == 32


def test_estimators_among_the_registered_arguments_are_not_shared(rows):
    X, y = rows
    steps = [("scale", StandardScaler()), ("learn", LogisticRegression())]
    detectors.register("pipe", "sklearn.pipeline:Pipeline", {"steps": steps})
    first = detectors.make("pipe").fit(X, y)
    before = first.decision_function(X)
    detectors.make("pipe").fit(50 * X + 7, 1 - y)
    np.testing.assert_array_equal(first.decision_function(X), before)
    assert not hasattr(steps[0][1], "mean_")


def test_a_pipeline_is_judged_by_its_last_step(rows):
    X, y = rows
    scores = {}
    for name, last in (("outlier", IsolationForest(random_state=0)), ("class", GaussianNB())):
        steps = [("scale", StandardScaler()), ("learn", last)]
        detectors.register(f"piped-{name}", "sklearn.pipeline:Pipeline", {"steps": steps})
        detector = detectors.make(f"piped-{name}").fit(X, y)
        scores[name] = detector.decision_function(X)
        assert detector.score_.zero == 0
    assert all(roc_auc_score(y, score) > 0.7 for score in scores.values())
    own = GaussianNB().fit(StandardScaler().fit_transform(X), y)
    calls = own.predict(StandardScaler().fit_transform(X)) == 1
    np.testing.assert_array_equal(scores["class"] > 0, calls)


def test_a_registered_seed_stays(rows, tmp_path):
    detectors.register("seeded", "sklearn.ensemble:ExtraTreesClassifier", {"random_state": 5})
    detector = detectors.make("seeded", random_state=1).fit(*rows)
    detector.save(tmp_path)
    for one in (detector, detectors.load("seeded", tmp_path)):
        assert one.estimator_.random_state == 5
    assert detectors.check_detector("forest", random_state=3) == []


def test_training_rows_do_not_count_as_their_own_neighbours_in_an_adapted_score(rows):
    X, y = rows
    detector = detectors.make("pyod:KNN", n_neighbors=1).fit(X, y)
    own = detector.estimator_.decision_scores_
    assert detector.score_.unit == pytest.approx(own.std(), rel=0.3)


class Draws(BaseEstimator):
    """Draws from NumPy's global generator, as many a library does."""

    def fit(self, X, y):
        self.direction = np.random.standard_normal(X.shape[1])  # noqa: NPY002
        return self

    def decision_function(self, X):
        return X @ self.direction


def test_class_that_draws_from_the_global_generator_is_seeded_and_leaves_it(rows):
    detectors.register("draws", f"{__name__}:Draws")
    before = str(np.random.get_state(legacy=False))  # noqa: NPY002
    one, two, other = (
        detectors.make("draws", random_state=seed).fit(*rows).decision_function(rows[0])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    assert str(np.random.get_state(legacy=False)) == before  # noqa: NPY002
