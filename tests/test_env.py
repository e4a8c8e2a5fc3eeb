"""`LatentAnomaly-v0` and its siblings, as Gymnasium and Stable-Baselines3 see them."""

import os
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import RUN_SETTINGS, blobs
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env, data_equivalence
from sklearn.exceptions import NotFittedError
from sklearn.svm import SVC
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import detectors
from common.errors import InputError
from common.files import write_json
from data import load, split
from detectors.replay import retrained
from detectors.trees import ExtraTreesDetector
from envs import FLAGSHIP, env_id
from envs.core import make_core
from envs.latent_anomaly import LatentAnomalyEnv
from envs.registration import find_env
from envs.rewards import Measures, RewardWeights, reward_terms
from envs.scenario import Scenario
from envs.vector import LatentAnomalyVectorEnv
from evaluate import EvaluateConfig, evaluate
from generators.background import Background
from generators.cvae import ConditionalVAE

DATA = {"data": "wine", "protocol": "full"}
IDS = [FLAGSHIP, *(env_id(name) for name in detectors.ids())]


def rollout(env: gym.Env, steps: int = 30, seed: int = 3) -> list:
    """Everything that `steps` random steps return; the actions are seeded as well."""
    env.action_space.seed(seed)
    trace: list = [env.reset(seed=seed)]
    for _ in range(steps):
        trace.append(env.step(env.action_space.sample()))
        if trace[-1][2] or trace[-1][3]:
            trace.append(env.reset())
    return trace


@pytest.mark.parametrize("id", IDS)
def test_both_checkers_pass_without_a_warning(id):
    env = gym.make(id, render_mode="rgb_array", **DATA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)
        check_env_for_sb3(env)


@pytest.mark.parametrize("id", IDS)
def test_same_seed_gives_the_same_rollout_info_included(id):
    first, second = (rollout(gym.make(id, **DATA)) for _ in range(2))
    assert data_equivalence(first, second, exact=True)
    assert not data_equivalence(first, rollout(gym.make(id, **DATA), seed=4))


@pytest.mark.parametrize("id", IDS)
def test_pickled_env_goes_on_alike(id):
    env = gym.make(id, **DATA)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    copy = pickle.loads(pickle.dumps(env))
    action = env.action_space.sample()
    for goes_on in (lambda one: one.step(action), gym.Env.reset, rollout):
        assert data_equivalence(goes_on(env), goes_on(copy), exact=True)


@pytest.mark.parametrize("id", IDS)
def test_spec_survives_json(id):
    env = gym.make(id, step_size=0.5, **DATA)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.unwrapped.core.step_size == 0.5
    assert data_equivalence(rollout(env), rollout(again), exact=True)


def first_observation(id: str) -> np.ndarray:
    return gym.make(id, **DATA).reset(seed=0)[0]


def test_a_spawned_process_makes_the_env():
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        there = pool.submit(first_observation, f"envs:{FLAGSHIP}").result()
    np.testing.assert_allclose(there, first_observation(FLAGSHIP), rtol=1e-5)


def test_misspelt_reward_weight_is_answered_with_the_nearest(scenario):
    with pytest.raises(InputError, match="did you mean bypass"):
        LatentAnomalyEnv(scenario=scenario, weights={"bypas": 1.0})


def test_time_limit_truncates_after_eight_steps(scenario):
    env = gym.make(FLAGSHIP, scenario=scenario)
    n_truncated = 0
    for seed in range(20):
        env.reset(seed=seed)
        for step in range(1, 9):
            observation, _, terminated, truncated, info = env.step(np.zeros(3, np.float32))
            assert truncated == (step == 8)
            assert terminated == info["success"]
            assert observation[-1] == pytest.approx(step / 8)
            n_truncated += truncated
            if terminated:
                break
    assert n_truncated > 0


def test_info_tells_the_step(scenario):
    env = LatentAnomalyEnv(scenario=scenario)
    _, info = env.reset(seed=0)
    assert 0 <= info["row"] < len(scenario.X)
    observation, reward, terminated, _, info = env.step(env.action_space.sample())
    assert type(reward) is float
    assert reward == pytest.approx(sum(info["reward_terms"].values()), abs=1e-5)
    assert info["sample"].shape == (scenario.X.shape[1],)
    score = scenario.detector.decision_function(info["sample"][None])[0]
    assert info["score"] == pytest.approx(score, abs=1e-4)
    assert info["bypass"] == (score <= scenario.detector.threshold_)
    assert (info["margin"] > 0) == scenario.gate.feasible(info["sample"][None])[0]
    assert info["success"] == terminated
    assert observation[3] == pytest.approx(np.clip(score / 4, -5, 5), abs=1e-4)


def test_bypass_is_at_or_below_the_detectors_own_threshold(scenario):
    detector = deepcopy(scenario.detector)
    detector.threshold_ = float(np.median(detector.decision_scores_))
    env = LatentAnomalyEnv(scenario=replace(scenario, detector=detector))
    env.action_space.seed(0)
    env.reset(seed=0)
    infos = [env.step(env.action_space.sample())[4] for _ in range(100)]
    assert [bool(info["bypass"]) for info in infos] == [
        info["score"] <= detector.threshold_ for info in infos
    ]
    between = sorted([0, detector.threshold_])
    assert any(between[0] < info["score"] < between[1] for info in infos)


def test_latents_stop_one_beyond_the_farthest_of_the_training_rows(scenario):
    env = LatentAnomalyEnv(scenario=scenario)
    limit = np.abs(scenario.generator.encode(scenario.X, scenario.y)).max() + 1
    size = env.core.latent_dim
    np.testing.assert_allclose(env.observation_space.high[:size], limit, rtol=1e-6)
    for direction in (-1, 1):
        env.reset(seed=0)
        for _ in range(40):
            observation, *_ = env.step(np.full(size, direction, np.float32))
        np.testing.assert_allclose(observation[:size], direction * limit, rtol=1e-6)


def test_success_needs_bypass_feasibility_and_novelty(scenario):
    env = LatentAnomalyEnv(scenario=scenario)
    env.action_space.seed(0)
    env.reset(seed=0)
    infos = [env.step(env.action_space.sample())[4] for _ in range(300)]
    for info in infos:
        expected = info["bypass"] and info["margin"] > 0 and info["novelty"] > 0.25
        assert info["success"] == expected
    assert len({info["bypass"] for info in infos}) == 2
    found = np.stack([info["sample"] for info in infos if info["success"]])
    again = LatentAnomalyEnv(scenario=replace(scenario, bank=found))
    again.action_space.seed(0)
    again.reset(seed=0)
    for before in infos:
        info = again.step(again.action_space.sample())[4]
        assert info["success"] == (before["success"] and info["novelty"] > 0.25)
        assert not (before["success"] and info["success"])


def test_reward_pays_for_falling_log_odds_rising_margin_novelty_and_success():
    before = Measures(*torch.tensor([[4.0, 4.0], [-0.5, -0.5], [1.0, 1.0]]))
    after = Measures(*torch.tensor([[1.0, 6.0], [2.0, -1.0], [0.5, 0.0]]))
    terms = reward_terms(before, after, torch.tensor([True, False]), RewardWeights(2, 3, 5, 7))
    assert {name: term.tolist() for name, term in terms.items()} == {
        "bypass": [6.0, -4.0],
        "feasibility": [1.5, -1.5],
        "diversity": [2.5, 0.0],
        "success": [7.0, 0.0],
    }


def test_hiding_among_the_normal_rows_does_not_pay():
    before, after = (Measures(*torch.tensor(m)[:, None]) for m in ([9.0, 0, 1], [-9.0, -1, 1]))
    terms = reward_terms(before, after, torch.tensor([False]), RewardWeights(diversity=0))
    assert sum(terms.values()).item() < 0


def test_found_rows_are_no_longer_novel(scenario):
    env = LatentAnomalyEnv(scenario=scenario)
    env.reset(seed=0)
    info = env.step(np.zeros(3, np.float32))[4]
    assert info["novelty"] == 1
    env.core.remember(info["sample"][None])
    assert env.step(np.zeros(3, np.float32))[4]["novelty"] < 0.05


def started_core(scenario):
    """The core of an env whose episode has begun."""
    env = LatentAnomalyEnv(scenario=scenario)
    env.reset(seed=0)
    return env.core


def test_a_new_generator_draws_the_candidates_at_once(scenario):
    """A step of no length changes nothing, so that it earns nothing."""
    core = started_core(scenario)
    X, y = scenario.X, scenario.y
    core.replace_generator(ConditionalVAE(latent_dim=3, steps=20, random_state=1).fit(X, y))
    before = core.samples.copy()
    outcome = core.step(np.zeros((1, core.latent_dim)))
    np.testing.assert_allclose(outcome.samples, before, rtol=1e-5)
    assert float(outcome.terms["feasibility"]) == pytest.approx(0, abs=1e-4)


def test_a_seeded_reset_of_the_core_brings_its_generator_back(scenario):
    core = LatentAnomalyEnv(scenario=scenario).core
    other = ConditionalVAE(latent_dim=3, steps=20, random_state=1).fit(scenario.X, scenario.y)
    before = core.latents
    core.replace_generator(other)
    core.restore()
    assert core.generator is scenario.generator
    torch.testing.assert_close(core.latents, before)
    core.replace_generator(other)
    core.settle()
    core.restore()
    assert core.generator is other
    assert core.scenario.latent_limit == core.limit


def test_an_outcome_stays_as_it_was_when_its_lane_starts_anew(scenario):
    core = started_core(scenario)
    outcome = core.step(np.ones((1, core.latent_dim)))
    before = deepcopy(outcome)
    core.reset(torch.tensor([0]), np.array([0]), np.zeros((1, core.latent_dim)))
    torch.testing.assert_close(outcome.measures, before.measures)
    np.testing.assert_array_equal(outcome.samples, before.samples)


def test_rows_of_a_file_that_changed_are_read_again(tmp_path):
    settings = {"label_column": "fraud", "protocol": "full", "detector": "forest"}
    path = tmp_path / "rows.csv"
    for n in (50, 100):
        X = np.random.default_rng(n).standard_normal((n, 2))
        frame = pd.DataFrame(X, columns=["a", "b"]).assign(fraud=np.arange(n) < 10)
        frame.to_csv(path, index=False)
        os.utime(path, (n, n))
        core = LatentAnomalyEnv(data=str(path), **settings).core
        assert len(core.scenario.X) == 0.4 * n


def test_files_of_one_name_in_two_folders_are_two(tmp_path, monkeypatch):
    settings = {"protocol": "full", "detector": "extra-trees", "generator": "background"}
    for n in (50, 60):
        folder = tmp_path / str(n)
        folder.mkdir()
        frame = pd.DataFrame({"a": np.random.default_rng(n).standard_normal(n)})
        frame.assign(label=np.arange(n) < 10).to_csv(folder / "rows.csv", index=False)
        os.utime(folder / "rows.csv", (1, 1))
        monkeypatch.chdir(folder)
        core = LatentAnomalyEnv(data="rows.csv", **settings).core
        assert len(core.scenario.X) == 0.4 * n


def test_a_path_is_data_too(tmp_path):
    X, y = blobs()
    frame = pd.DataFrame(X, columns=list("abcd")).assign(label=y)
    frame.to_csv(tmp_path / "mine.csv", index=False)
    parts = {"protocol": "full", "detector": "extra-trees", "generator": "background"}
    env = gym.make("envs:LatentAnomaly-v0", data=tmp_path / "mine.csv", **parts)
    assert env.reset(seed=0)[0].shape == (4 + 4,)


@pytest.mark.parametrize("form", ["frame", "lists", "float labels"])
def test_a_scenario_takes_rows_of_any_form(scenario, form):
    X, y = scenario.X, scenario.y
    given = {
        "frame": (pd.DataFrame(X), pd.Series(y)),
        "lists": (X.tolist(), y.tolist()),
        "float labels": (X, y.astype(float)),
    }[form]
    same = Scenario.assemble(*given, scenario.generator, scenario.detector, 0)
    np.testing.assert_array_equal(same.X, X)
    np.testing.assert_array_equal(same.y, y)
    assert same.y.dtype == np.int64
    assert same.gate.radius == scenario.gate.radius


@pytest.mark.parametrize("form", [np.float32, np.int64, pd.DataFrame, np.ndarray.tolist])
def test_a_scenario_takes_a_copy_of_a_bank_of_any_form(scenario, form):
    rows = scenario.X[:5].round()
    given = rows.astype(form) if form in (np.float32, np.int64) else form(rows)
    bank = replace(scenario, bank=given).bank
    np.testing.assert_array_equal(bank, rows)
    assert bank.dtype == np.float64
    bank = replace(scenario, bank=rows).bank
    rows[:] = np.nan
    assert np.isfinite(bank).all()


def test_a_scenario_keeps_its_rows_whatever_becomes_of_those_given(scenario):
    X, y = scenario.X.copy(), scenario.y.copy()
    same = Scenario.assemble(X, y, scenario.generator, scenario.detector, 0)
    X[:], y[:] = 0, 0
    np.testing.assert_array_equal(same.X, scenario.X)
    np.testing.assert_array_equal(same.y, scenario.y)


def test_a_scenario_refuses_what_it_cannot_play_on(scenario):
    X, y, generator, detector = scenario.X, scenario.y, scenario.generator, scenario.detector
    with pytest.raises(ValueError, match=r"Labels are 0, and 1 for an anomaly; .*-1"):
        Scenario.assemble(X, np.where(y, 1, -1), generator, detector, 0)
    with pytest.raises(ValueError, match="NaN"):
        Scenario.assemble(np.where(X > 2, np.nan, X), y, generator, detector, 0)
    with pytest.raises(InputError, match=r"The detector is SVC; give one that detectors\.make"):
        Scenario.assemble(X, y, generator, SVC().fit(X, y), 0)
    for settings, told in (
        ({"bank": X[:, :3]}, r"shape \(180, 3\); give rows of 4 columns"),
        ({"bank": X[0]}, r"shape \(4,\)"),
        ({"bank": np.where(X > 2, np.nan, X)}, "values that are not finite"),
        ({"bank": [["a"] * 4]}, "The bank is no array of numbers"),
        ({"bank": None}, r"shape \(\)"),
        ({"synthetic_weight": 1}, "synthetic_weight is 1"),
        ({"latent_limit": -1.0}, r"latent_limit is -1\.0"),
    ):
        with pytest.raises(InputError, match=told):
            replace(scenario, **settings)
    for unfit in (None, SVC(), Background()):
        with pytest.raises(InputError, match=r"The generator is .*; give one of generators\.make"):
            Scenario.assemble(X, y, unfit, detector, 0)


class Astray(Background):
    """Goes astray with rows or latents, as told."""

    astray = ""

    def encode_scaled(self, scaled, y):
        return scaled * np.nan if self.astray == "latents" else scaled.double()

    def decode_scaled(self, z, y):
        return z * np.nan if self.astray == "rows" else z

    def decode_rows(self, z, y):
        rows = super().decode_rows(z, y)
        return rows[:, 1:] if self.astray == "narrow" else rows


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("latents", "encodes to latents that are not finite"),
        ("rows", "decodes to rows that are not finite"),
        ("narrow", r"decodes to rows of the shape \(2, 3\), not \(2, 4\)"),
    ],
)
def test_a_generator_that_goes_astray_is_named(scenario, what, told):
    generator = Astray().fit(scenario.X, scenario.y)
    generator.astray = what
    with pytest.raises(InputError, match=f"The generator Astray {told}"):
        LatentAnomalyVectorEnv(2, scenario=replace(scenario, generator=generator)).reset(seed=0)


def test_row_option_starts_at_that_row_without_noise(scenario):
    env = LatentAnomalyEnv(scenario=scenario)
    observation, info = env.reset(seed=0, options={"row": 7})
    assert info["row"] == 7
    latent = scenario.generator.encode(scenario.X[7:8], scenario.y[7:8])[0]
    np.testing.assert_allclose(observation[:3], latent, atol=1e-4)


@pytest.mark.parametrize("row", [-1, 10_000, 1.5, "first"])
def test_bad_row_option_is_refused(scenario, row):
    with pytest.raises(InputError, match=r"options\['row'\]"):
        LatentAnomalyEnv(scenario=scenario).reset(options={"row": row})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"horizon": 0}, "horizon is 0"),
        ({"step_size": float("nan")}, "step_size is nan"),
        ({"step_size": -1}, "step_size is -1"),
        ({"step_size": "a"}, "step_size is 'a'"),
        ({"horizon": 1.5}, "horizon is 1.5"),
        ({"seed": None}, "seed is None"),
        ({"scenario": "x"}, "scenario is str"),
        ({"scenario": None, "data": 1}, "data is int"),
        ({"scenario": None, "run": 5}, "run is 5"),
        ({"scenario": None, "label_column": ["a"]}, r"label_column is \['a'\]"),
        ({"scenario": None, "protocol": ["full"]}, r"Unknown protocol \['full'\]"),
        ({"scenario": None, "generator": ["cvae"]}, "generator is named by its id"),
        ({"weights": [1, 2]}, r"weights is \[1, 2\]"),
        ({"seed": -1}, "seed is -1"),
        ({"weights": {"bypass": "1"}}, "reward weight bypass is '1'"),
        ({"weights": {"success": float("nan")}}, "reward weight success is nan"),
    ],
)
def test_settings_out_of_range_are_refused(scenario, settings, words):
    for make in (LatentAnomalyEnv, LatentAnomalyVectorEnv):
        with pytest.raises(InputError, match=words):
            make(**{"scenario": scenario, **settings})
    with pytest.raises(InputError, match="num_envs is 0"):
        LatentAnomalyVectorEnv(0, scenario=scenario)


def test_render_draws_a_picture(scenario):
    env = LatentAnomalyEnv(scenario=scenario, render_mode="rgb_array")
    env.reset(seed=0)
    pictures = [env.render()]
    env.step(np.ones(3, dtype=np.float32))
    pictures.append(env.render())
    env.core.remember(scenario.X[:3])
    pictures.append(env.render())
    assert all(picture.shape == (480, 640, 3) for picture in pictures)
    assert all(picture.dtype == np.uint8 for picture in pictures)
    for before, after in pairwise(pictures):
        assert not np.array_equal(before, after)


def test_render_draws_a_table_of_one_column(rows):
    X, y = rows[0][:, :1], rows[1]
    parts = Background().fit(X, y), detectors.make("extra-trees", n_estimators=2).fit(X, y)
    env = LatentAnomalyEnv(scenario=Scenario.assemble(X, y, *parts, 0), render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (480, 640, 3)


def test_backends_do_not_share_an_env_id():
    first = env_id("onnx:models/a.onnx")
    assert env_id("onnx:models/a.onnx") == first
    with pytest.raises(InputError, match="attacks onnx:models/a"):
        env_id("onnx:models-a.onnx")
    del gym.registry[first]


def test_find_env_knows_every_id_and_suggests_near_ones():
    assert find_env(FLAGSHIP) == (FLAGSHIP, "mamba-moe")
    for name in detectors.ids():
        assert find_env(env_id(name)) == (env_id(name), name)
    with pytest.raises(InputError, match="did you mean LatentAnomaly-v0"):
        find_env("LatentAnomly-v0")
    with pytest.raises(InputError, match="no_such_module"):
        find_env("no_such_module:LatentAnomaly-v0")
    with pytest.raises(InputError, match="CartPole-v1 is not registered with the entry points"):
        find_env("CartPole-v1")


def test_an_env_is_found_by_the_spelling_of_its_registered_backend(monkeypatch):
    monkeypatch.setattr(detectors.registry, "specs", dict(detectors.registry.specs))
    detectors.register("my:thing", "sklearn.naive_bayes:GaussianNB")
    try:
        assert find_env("LatentAnomaly/my:thing-v0") == ("LatentAnomaly/my.thing-v0", "my:thing")
    finally:
        del gym.registry["LatentAnomaly/my.thing-v0"]


def test_an_env_of_a_scenario_is_not_scored_on_rows_of_another_set(scenario, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        gym.registry, "Own-v0", replace(gym.spec(FLAGSHIP), kwargs={"scenario": scenario})
    )
    with pytest.raises(InputError, match="Own-v0 is registered with a scenario"):
        evaluate(EvaluateConfig(env_id="Own-v0"))
    with pytest.raises(InputError, match="nosuch"):
        evaluate(EvaluateConfig(env_id="Own-v0", run=Path("nosuch")))


def test_an_env_of_rows_of_its_own_is_not_played_on_a_run_of_others(monkeypatch, tmp_path, capsys):
    own = {"detector": "extra-trees", "generator": "background", "data": "wine", "seed": 1}
    monkeypatch.setitem(gym.registry, "Own-v0", replace(gym.spec(FLAGSHIP), kwargs=own))
    monkeypatch.setattr("agents.report.TIMING_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    config = {**RUN_SETTINGS, "detector": "extra-trees"}
    rows = {"data": "wine", "label_column": "label", "protocol": "unseen", "seed": 1}
    others = {"data": "digits", "label_column": "y", "protocol": "full", "seed": 7}
    for name, value in others.items():
        write_json(Path(f"runs/{name}/config.json"), {**config, **rows, name: value})
    evaluate(EvaluateConfig(env_id="Own-v0", episodes=1))
    told = "No run in runs with data=wine, label_column=label, protocol=unseen, seed=1, detector="
    assert told in capsys.readouterr().out
    write_json(Path("runs/same/config.json"), {**config, **rows})
    with pytest.raises(InputError, match=r"same.*safetensors is missing"):
        evaluate(EvaluateConfig(env_id="Own-v0", episodes=1))


def test_a_scenario_takes_parts_that_learned_from_frames_and_refuses_other_widths(rows):
    X, y = rows
    frame = pd.DataFrame(X, columns=list("abcd"))
    detector = detectors.make("extra-trees").fit(frame, y)
    generator = Background().fit(X, y)
    env = LatentAnomalyEnv(scenario=Scenario.assemble(frame, y, generator, detector, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.reset(seed=0)
    assert list(detector.feature_names_in_) == list("abcd")
    with pytest.raises(InputError, match="have 3 columns, but the detector learned from 4"):
        Scenario.assemble(X[:, :3], y, generator, detector, 0)
    with pytest.raises(NotFittedError):
        Scenario.assemble(X, y, generator, detectors.make("extra-trees"), 0)
    narrow = ConditionalVAE(steps=1).fit(X[:, :3], y)
    with pytest.raises(InputError, match="The generator ConditionalVAE"):
        LatentAnomalyEnv(scenario=Scenario.assemble(X, y, narrow, detector, 0))


def test_settings_reach_the_arithmetic(scenario):
    settings = {"step_size": 0.2, "horizon": 4, "weights": {"diversity": 3.0}}
    env = LatentAnomalyEnv(scenario=scenario, **settings)
    start, _ = env.reset(options={"row": 7})
    observation, *_, info = env.step(np.array([1, -0.5, 3], np.float32))
    np.testing.assert_allclose(observation[:3] - start[:3], [0.2, -0.1, 0.2], atol=1e-5)
    assert observation[-1] == 0.25
    assert info["reward_terms"]["diversity"] == pytest.approx(3 * info["novelty"])
    short = LatentAnomalyVectorEnv(9, max_episode_steps=3, scenario=scenario)
    short.reset(seed=0)
    ends = [short.step(np.zeros((9, 3), np.float32))[3].any() for _ in range(3)]
    assert ends == [False, False, True]


def test_episodes_start_near_any_training_row(scenario):
    observations, info = LatentAnomalyVectorEnv(999, scenario=scenario).reset(seed=0)
    latents = scenario.generator.encode(scenario.X, scenario.y)[info["row"]]
    assert (observations[:, :3] - latents).std() == pytest.approx(0.3, rel=0.1)
    assert scenario.y[info["row"]].mean() == pytest.approx(scenario.y.mean(), abs=0.05)


def test_candidates_are_decoded_as_anomalies(scenario):
    env = LatentAnomalyEnv(scenario=scenario)
    env.reset(options={"row": 7})
    observation, *_, info = env.step(np.zeros(3, np.float32))
    decoded = scenario.generator.decode(observation[None, :3], np.ones(1, dtype=int))
    np.testing.assert_allclose(info["sample"], decoded[0], rtol=1e-4)


def test_margin_and_novelty_are_observed_as_info_tells_them(scenario):
    latents = scenario.generator.encode(scenario.X, scenario.y)
    bank = scenario.generator.decode(latents, np.ones(len(latents), dtype=int))
    env = LatentAnomalyEnv(scenario=replace(scenario, bank=bank))
    env.action_space.seed(0)
    seen = []
    for row in range(0, len(scenario.X), 5):
        env.reset(options={"row": row})
        observation, *_, info = env.step(env.action_space.sample())
        seen.append(observation[4:6])
        told = np.clip(info["margin"], -1, 5), info["novelty"]
        np.testing.assert_allclose(observation[4:6], told, atol=1e-6)
    assert (np.min(seen, axis=0) < [0, 0.9]).all()


def test_data_and_parts_are_those_that_were_asked_for():
    for name in ("extra-trees", "forest"):
        core = gym.make(env_id(name), **DATA).unwrapped.core
        assert type(core.detector) is type(detectors.make(name))
    parts = {"detector": "extra-trees", "generator": "background"}
    core = LatentAnomalyEnv(data="breast-cancer", protocol="few", seed=1, **parts).core
    halves = split(load("breast-cancer"), "few", 1)
    np.testing.assert_array_equal(core.scenario.X, halves.X_train)
    np.testing.assert_array_equal(core.scenario.y, halves.y_train)
    assert isinstance(core.generator, Background)


@pytest.mark.parametrize("last", [0, 5000])
def test_novelty_counts_old_and_late_finds_of_a_large_bank(scenario, last):
    env = LatentAnomalyEnv(scenario=scenario)
    env.reset(seed=0)
    row = env.step(np.zeros(3, np.float32))[4]["sample"]
    env.core.remember(np.insert(np.full((5000, len(row)), 99.0), last, row, axis=0))
    assert env.step(np.zeros(3, np.float32))[4]["novelty"] < 0.05


def test_a_new_detector_scores_the_candidates_at_once(scenario):
    core = started_core(scenario)
    core.replace_detector(ExtraTreesDetector(20).fit(scenario.X, scenario.y))
    outcome = core.step(np.zeros((1, core.latent_dim)))
    assert float(outcome.terms["bypass"]) == pytest.approx(0, abs=1e-4)


def test_new_finds_cost_no_query(scenario, monkeypatch):
    core = started_core(scenario)
    monkeypatch.setattr(core.detector, "decision_function", None)
    core.remember(core.samples.copy())
    assert core.observe()[0, 5] < 0.05


def test_new_finds_are_known_at_once(scenario):
    env = LatentAnomalyEnv(scenario=scenario)
    assert env.reset(seed=0)[0][5] == 1
    env.core.remember(env.core.samples.copy())
    assert env.core.observe()[0, 5] < 0.05


def test_a_new_generator_gives_the_starts(scenario):
    env = LatentAnomalyEnv(scenario=scenario)
    generator = ConditionalVAE(latent_dim=3, steps=20, random_state=1).fit(scenario.X, scenario.y)
    env.core.replace_generator(generator)
    observation, _ = env.reset(options={"row": 7})
    latent = generator.encode(scenario.X[7:8], scenario.y[7:8])[0]
    np.testing.assert_allclose(observation[:3], latent, atol=1e-4)


@pytest.mark.parametrize("labels", [(-1, 1), ("fine", "odd")])
def test_a_detector_of_other_labels_is_attacked_and_retrained(rows, fitted_scenario, labels):
    X, y = rows
    detector = ExtraTreesDetector(20).fit(X, np.take(labels, y))
    own = Scenario.assemble(X, y, fitted_scenario.generator, detector, 0)
    learner = retrained(own.detector, X, y, X + 4, 0.3)
    assert learner.classes_.tolist() == [0, 1]
    assert detector.classes_.tolist() == list(labels)


def test_a_generator_of_another_size_cannot_take_over(rows, scenario):
    core = make_core(2, scenario=scenario)
    other = ConditionalVAE(latent_dim=5, steps=5).fit(*rows)
    with pytest.raises(InputError, match="has 5 latents in place of 3"):
        core.replace_generator(other)
