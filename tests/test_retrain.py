"""The loop's closing link: finds reach the bank and the detector's training set."""

from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv, VectorWrapper
from gymnasium.wrappers import Autoreset, TimeLimit
from gymnasium.wrappers.vector import DictInfoToList
from stable_baselines3 import PPO

import detectors
import generators
from agents.controls import RandomAgent, slope
from agents.hardening import harden, round_weights
from agents.rollout import Arena
from agents.settings import HardeningSettings
from common.errors import InputError
from detectors.mamba_moe import MambaMoEDetector
from detectors.replay import replay_set
from detectors.trees import ExtraTreesDetector
from envs.latent_anomaly import LatentAnomalyEnv
from envs.retrain import DetectorRetrainWrapper, VectorDetectorRetrainWrapper, retrain
from envs.sb3 import SB3VecEnv
from envs.scenario import Scenario
from envs.vector import LatentAnomalyVectorEnv
from generators.background import Background
from generators.base import fitted

QUICK = HardeningSettings(
    generator="background", rounds=2, timesteps=512, n_lanes=16, n_background=200
)


class RecordingDetector(MambaMoEDetector):
    """The flagship, made quick, that keeps what it was last fitted on."""

    def _fit(self, X, y, weight, synthetic):
        self.steps = 20
        self.fitted_on = X, y, weight, synthetic
        super()._fit(X, y, weight, synthetic)


class WatchedPPO(PPO):
    """PPO that keeps what it observed last, and what there is to observe, as a rollout starts.

    It keeps the weight of the diversity term, too.
    """

    def __init__(self, policy, env, **settings):
        self.observed, self.diversity = [], []
        super().__init__(policy, env, n_steps=32, **settings)

    def collect_rollouts(self, env, *arguments, **keywords):
        core = env.get_attr("core")[0]
        self.observed.append((self._last_obs, core.observe()))
        self.diversity.append(core.weights.diversity)
        return super().collect_rollouts(env, *arguments, **keywords)


class DrawingAgent(RandomAgent):
    """Keeps what it draws from torch's global generator in each round."""

    drawn: ClassVar[list[float]] = []

    def learn(self, total_timesteps, **unused):
        self.drawn.append(float(torch.rand(())))
        return super().learn(total_timesteps)


def test_rounds_draw_differently_and_again_alike(rows):
    DrawingAgent.drawn.clear()
    for _ in range(2):
        harden(*rows, replace(QUICK, detector="extra-trees", algo=f"{__name__}:DrawingAgent"), 0)
    first, second = DrawingAgent.drawn[:2], DrawingAgent.drawn[2:]
    assert first == second
    assert first[0] != first[1]


def test_an_agent_goes_on_in_what_it_hardened(rows):
    settings = replace(QUICK, detector="extra-trees", generator="cvae")
    hardened = harden(*rows, settings, 0)
    env = LatentAnomalyVectorEnv(16, scenario=hardened.scenario)
    hardened.agent.set_env(SB3VecEnv(env))
    hardened.agent.learn(64)
    refreshed = hardened.scenario.generator.encode(*rows)
    assert env.core.limit != pytest.approx(np.abs(refreshed).max() + 1)


@pytest.fixture
def recording(monkeypatch) -> str:
    monkeypatch.setattr(detectors.registry, "specs", dict(detectors.registry.specs))
    detectors.register("recording", f"{__name__}:RecordingDetector")
    return "recording"


def play(env, seed: int, until) -> None:
    """Take random steps until `until()`; fail after 3,000."""
    env.action_space.seed(seed)
    env.reset(seed=seed)
    for _ in range(3000):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if np.ndim(terminated) == 0 and (terminated or truncated):
            env.reset()
        if until():
            return
    pytest.fail("nothing was found")


@pytest.mark.parametrize("detector", ["recording", "extra-trees"])
def test_bank_is_feasible_labelled_anomaly_and_in_the_final_training_set(rows, recording, detector):
    X, y = rows
    hardened = harden(X, y, replace(QUICK, detector=detector), seed=0)
    scenario = hardened.scenario
    assert len(scenario.bank) > 0
    assert scenario.gate.feasible(scenario.bank).all()
    final = scenario.detector
    if detector == "recording":
        fitted_X, fitted_y, weight, synthetic = final.fitted_on
    else:
        fitted_X, fitted_y, weight, synthetic = final.training_rows_.values()
    np.testing.assert_array_equal(fitted_X[synthetic], scenario.bank)
    assert (fitted_y[synthetic] == 1).all()
    assert (weight[synthetic] > 0).all()
    np.testing.assert_array_equal(fitted_X[~synthetic], X)
    np.testing.assert_array_equal(fitted_y[~synthetic], y)


def test_search_adds_to_the_background(rows):
    X, y = rows
    hardened = harden(X, y, replace(QUICK, detector="extra-trees"), seed=0)
    added = [record["added"] for record in hardened.history]
    assert [record["bank"] for record in hardened.history] == [
        200 + sum(added[: i + 1]) for i in range(2)
    ]
    assert sum(added) > 0
    assert len(hardened.scenario.bank) == 200 + sum(added)


def test_same_seed_hardens_alike(rows):
    X, y = rows
    settings = replace(QUICK, rounds=1)
    first, second = (harden(X, y, settings, seed=1) for _ in range(2))
    assert first.history == second.history
    np.testing.assert_array_equal(first.scenario.bank, second.scenario.bank)
    scores = [run.scenario.detector.decision_function(X) for run in (first, second)]
    np.testing.assert_array_equal(*scores)


def test_wrapper_retrains_at_the_episodes_end_and_restores_on_a_seeded_reset(scenario):
    env = DetectorRetrainWrapper(LatentAnomalyEnv(scenario=scenario))
    original = scenario.detector.decision_function(scenario.X)
    play(env, 0, lambda: len(env.core.bank) > 0)
    found = env.core.bank
    assert scenario.gate.feasible(found).all()
    assert env.core.detector is not scenario.detector
    before, after = (d.decision_function(found) for d in (scenario.detector, env.core.detector))
    assert (before <= 0).all()
    assert after.mean() > before.mean()
    env.reset(seed=0)
    assert env.core.detector is scenario.detector
    assert len(env.core.bank) == 0
    np.testing.assert_array_equal(scenario.detector.decision_function(scenario.X), original)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_retraining_learns_in_a_rollout_without_gradients(rows, mode):
    X, y = rows
    with mode():
        generator = generators.make("cvae", latent_dim=3, steps=3).fit(X, y)
        detector = detectors.make("mamba-moe", steps=3).fit(X, y)
        scenario = Scenario.assemble(X, y, generator, detector, 0)
        core = DetectorRetrainWrapper(LatentAnomalyEnv(scenario=scenario)).core
        retrain(core, X[:2])
        core.replace_generator(core.generator.partial_fit(X, y))
    assert slope(core, core.z).abs().sum() > 0
    core.reset(torch.tensor([0]), np.array([0]), np.zeros((1, 3)))
    core.step(np.zeros((1, 3)))
    assert len(core.bank) == 2


class GeneratorWithGradient(Background):
    def fit(self, X, y):
        assert torch.is_grad_enabled()
        return super().fit(X, y)


class DetectorWithGradient(ExtraTreesDetector):
    def _fit(self, *rows):
        assert torch.is_grad_enabled()
        super()._fit(*rows)


@torch.no_grad()
def test_parts_of_ones_own_and_the_agent_learn_where_gradients_are_off(rows):
    fitted(GeneratorWithGradient(), *rows)
    DetectorWithGradient().fit(*rows).partial_fit(*rows)
    settings = HardeningSettings("extra-trees", "background", rounds=1, timesteps=64)
    assert harden(*rows, settings, 0).history[0]["queries"] >= 64
    assert not torch.is_grad_enabled()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_there_is_a_slope_where_gradients_are_off(scenario, mode):
    env = LatentAnomalyVectorEnv(4, scenario=scenario)
    with mode():
        env.reset(seed=0)
        assert slope(env.core, env.core.z).abs().sum() > 0


@contextmanager
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def another_device_by_default():
    with torch.device("meta"):
        yield
        assert torch.get_default_device().type == "meta"


@pytest.mark.parametrize(
    "mode", [torch.inference_mode, float64_by_default, another_device_by_default]
)
def test_what_a_caller_has_set_in_torch_changes_nothing(rows, mode, tmp_path):
    X, y = rows
    settings = HardeningSettings("extra-trees", rounds=2, timesteps=64)

    def results(folder):
        flagship = detectors.make("mamba-moe", steps=3).fit(X, y)
        flagship.save(folder / "flagship")
        generator = generators.make("cvae", latent_dim=3, steps=3).fit(X, y)
        generator.save(folder / "generator")
        flagship = detectors.load("mamba-moe", folder / "flagship")
        generator = type(generator).load(folder / "generator")
        env = LatentAnomalyVectorEnv(
            4, scenario=Scenario.assemble(X, y, generator, flagship, seed=0)
        )
        env.reset(seed=0)
        observed = env.step(np.full((4, 3), 0.5, np.float32))[0]
        hardened = harden(X, y, settings, 0).scenario
        return observed, hardened.bank, hardened.detector.decision_function(X)

    expected = results(tmp_path / "plain")
    with mode():
        got = results(tmp_path / "mode")
    for first, second in zip(expected, got, strict=True):
        np.testing.assert_array_equal(first, second)


def test_finds_of_an_interrupted_retraining_join_the_bank_once(scenario, monkeypatch):
    env = DetectorRetrainWrapper(LatentAnomalyEnv(scenario=scenario), retrain_every=2)
    play(env, 0, lambda: bool(env.found))
    env.retrain_every = 1

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr("envs.retrain.retrained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            env.reset()
    env.reset()
    assert len(env.core.bank) == 1


def test_wrapper_counts_the_episodes_that_succeed(scenario):
    env = DetectorRetrainWrapper(LatentAnomalyEnv(scenario=scenario), retrain_every=3)
    play(env, 0, lambda: len(env.core.bank) > 0)
    assert len(env.core.bank) == 3


def test_wrappers_refuse_what_would_never_retrain(scenario):
    env = LatentAnomalyEnv(scenario=scenario)
    with pytest.raises(InputError, match="Put Autoreset around"):
        DetectorRetrainWrapper(TimeLimit(Autoreset(env), 8))
    with pytest.raises(InputError, match="retrain_every is 0"):
        DetectorRetrainWrapper(env, retrain_every=0)
    vector = LatentAnomalyVectorEnv(2, scenario=scenario)
    for settings, words in (({"retrain_every": 0}, "retrain_every"), ({"top_l": 0}, "top_l")):
        with pytest.raises(InputError, match=f"{words} is 0"):
            VectorDetectorRetrainWrapper(vector, **settings)


def test_vector_wrapper_retrains_once_per_batch_of_finds(scenario):
    env = VectorDetectorRetrainWrapper(
        LatentAnomalyVectorEnv(16, scenario=scenario), retrain_every=5, top_l=4
    )
    play(env, 0, lambda: len(env.core.bank) > 0)
    assert len(env.core.bank) == 4
    assert env.core.detector is not scenario.detector
    env.reset(seed=0)
    assert env.core.detector is scenario.detector
    assert len(env.core.bank) == 0


def test_a_seeded_reset_of_some_lanes_keeps_the_detector(scenario):
    env = VectorDetectorRetrainWrapper(
        LatentAnomalyVectorEnv(16, scenario=scenario), retrain_every=1
    )
    play(env, 0, lambda: len(env.core.bank) > 0)
    detector, bank = env.core.detector, env.core.bank
    env.reset(seed=1, options={"reset_mask": np.arange(16) < 8})
    assert env.core.detector is detector
    assert env.core.bank is bank


def test_agents_observe_anew_after_a_retraining(rows):
    X, y = rows
    agent = harden(X, y, replace(QUICK, algo=f"{__name__}:WatchedPPO"), seed=0).agent
    assert len(agent.observed) == QUICK.rounds
    for observed, current in agent.observed:
        np.testing.assert_array_equal(observed, current)
    assert agent.diversity == [round_weights(index, 2).diversity for index in range(2)]


class SeedingPPO(PPO):
    """PPO of short rollouts that seeds its env twice in a round."""

    def __init__(self, policy, env, **settings):
        super().__init__(policy, env, **settings | {"n_steps": 64})

    def learn(self, *arguments, **keywords):
        for _ in range(2):
            self.env.seed(0)
            self.env.reset()
            super().learn(*arguments, **keywords)
        return self


def test_an_agent_that_seeds_its_env_keeps_what_was_found(rows):
    X, y = rows
    settings = replace(QUICK, detector="extra-trees", algo=f"{__name__}:SeedingPPO")
    hardened = harden(X, y, settings, seed=0)
    first, last = hardened.history
    assert min(first["added"], last["added"]) > 0
    assert [record["added"] for record in hardened.history] == [
        min(record["successes"], settings.top_l) for record in hardened.history
    ]
    assert len(hardened.scenario.bank) == last["bank"] == first["bank"] + last["added"]


class InPlace(Background):
    """Learns in the array that it is given, and draws from NumPy's global generator."""

    def fit(self, X, y):
        super().fit(X, y)
        self.shift = np.random.standard_normal()  # noqa: NPY002
        X -= X.mean(axis=0)
        y[:] = 1 - y
        return self

    partial_fit = fit

    def decode_scaled(self, z, y):
        return z + self.shift


def test_a_generator_may_write_into_its_rows_and_draw_globally(rows, monkeypatch):
    monkeypatch.setattr(generators.registry, "specs", dict(generators.registry.specs))
    generators.register("in-place", f"{__name__}:InPlace")
    X, y = (array.copy() for array in rows)
    settings = replace(QUICK, detector="extra-trees", algo="random", generator="in-place")
    first, second = (harden(X, y, settings, seed=0).scenario for _ in range(2))
    for array, before in zip((X, y, first.X, first.y), (*rows, *rows), strict=True):
        np.testing.assert_array_equal(array, before)
    np.testing.assert_array_equal(first.bank, second.bank)


def test_generator_goes_on_training_between_rounds(rows):
    X, y = rows
    settings = replace(QUICK, detector="extra-trees", generator="cvae")
    generators = [
        harden(X, y, replace(settings, rounds=rounds), seed=0).scenario.generator
        for rounds in (1, 2)
    ]
    z = np.zeros((1, generators[0].latent_dim), np.float32)
    once, twice = (generator.decode(z, np.ones(1, int)) for generator in generators)
    assert not np.allclose(once, twice)


def test_the_finds_that_crowd_least_are_kept(scenario):
    corners = scenario.X.max(axis=0) * np.array([[1, 1, 1, 1], [-1, 1, 1, 1], [1, -1, 1, 1]])
    crowd = corners[0] + np.random.default_rng(0).uniform(0, 0.1, (9, 4))
    bank = corners[1:2] + 0.1
    lanes = LatentAnomalyVectorEnv(16, scenario=replace(scenario, bank=bank))
    env = VectorDetectorRetrainWrapper(lanes, None, top_l=2)
    env.found = [*crowd, *corners[1:]]
    kept = env.take_spread()
    assert kept[0] in crowd
    np.testing.assert_array_equal(kept[1], corners[2])
    assert not env.found


@pytest.mark.parametrize("share", [0.05, 0.25, 0.9])
def test_replay_set_keeps_the_weight_of_the_classes(rows, share):
    X, y = rows
    bank = np.full((7, X.shape[1]), 9.0)
    joined, labels, weight, synthetic = replay_set(X, y, bank, share)
    assert joined.shape == (len(X) + 7, X.shape[1])
    assert synthetic.sum() == 7
    assert (labels[synthetic] == 1).all()
    known, normals = y.sum(), (y == 0).sum()
    assert weight[labels == 0].sum() == normals
    assert weight[labels == 1].sum() == pytest.approx(np.sqrt(known * normals))
    assert weight[synthetic].sum() == pytest.approx(share * weight[labels == 1].sum())


def test_wrappers_refuse_other_envs(scenario):
    with pytest.raises(InputError, match="DetectorRetrainWrapper takes a LatentAnomalyEnv, which"):
        DetectorRetrainWrapper(gym.make("CartPole-v1"))
    with pytest.raises(InputError, match="DetectorRetrainWrapper takes a LatentAnomalyEnv, which"):
        DetectorRetrainWrapper(LatentAnomalyVectorEnv(2, scenario=scenario))
    for takes_vectors in (VectorDetectorRetrainWrapper, Arena):
        with pytest.raises(InputError, match=f"{takes_vectors.__name__} takes a .*VectorEnv"):
            takes_vectors(LatentAnomalyEnv(scenario=scenario))
    with pytest.raises(InputError, match="make_vec"):
        VectorDetectorRetrainWrapper(SyncVectorEnv([lambda: LatentAnomalyEnv(scenario=scenario)]))
    lanes = DictInfoToList(LatentAnomalyVectorEnv(2, scenario=scenario))
    with pytest.raises(InputError, match="Put DictInfoToList around VectorDetectorRetrainWrapper"):
        VectorDetectorRetrainWrapper(lanes)


def test_the_loop_keeps_to_its_settings(rows, monkeypatch):
    refreshed, told, fitted = [], [], []

    def refresh(generator, X, y):
        refreshed.append((X, y))
        return generator

    monkeypatch.setattr(Background, "partial_fit", refresh)

    def spy_on(name):
        method = getattr(ExtraTreesDetector, name)
        monkeypatch.setattr(
            ExtraTreesDetector, name, lambda self, *rows: fitted.append(rows) or method(self, *rows)
        )

    spy_on("fit")
    spy_on("partial_fit")
    settings = HardeningSettings(
        "extra-trees",
        "background",
        "random",
        rounds=2,
        timesteps=995,
        top_l=3,
        n_background=50,
        synthetic_weight=0.3,
        n_lanes=10,
    )
    hardened = harden(*rows, settings, 0, on_round=told.append)
    assert told == hardened.history
    assert [record["queries"] for record in told] == [1000, 1000]
    assert [record["added"] for record in told] == [3, 3]
    (X, y), bank = refreshed[0], hardened.scenario.bank
    np.testing.assert_array_equal(X, np.concatenate([rows[0], bank[:53]]))
    np.testing.assert_array_equal(y, np.r_[rows[1], np.ones(53)])
    unhardened, *retrained = fitted
    np.testing.assert_equal(unhardened, rows)
    assert [synthetic.sum() for _, _, _, synthetic in retrained] == [50, 53, 56]
    shares = [weight[new].sum() / weight[y == 1].sum() for _, y, weight, new in retrained]
    assert shares == pytest.approx([0.3, 0.3, 0.3])
    assert hardened.scenario.detector.seed_ == hardened.unhardened.seed_


def test_a_retraining_replays_real_rows_and_the_whole_bank(scenario):
    forest = ExtraTreesDetector(20).fit(scenario.X, scenario.y)
    old = np.full((2, 4), 99.0)
    known = replace(scenario, detector=forest, bank=old, synthetic_weight=0.3)
    env = DetectorRetrainWrapper(LatentAnomalyEnv(scenario=known))
    play(env, 0, lambda: len(env.core.bank) > 2)
    rows = env.core.detector.training_rows_
    synthetic, weight = rows["synthetic"], rows["weight"]
    np.testing.assert_array_equal(env.core.bank[:2], old)
    np.testing.assert_array_equal(rows["X"][synthetic], env.core.bank)
    np.testing.assert_array_equal(rows["X"][~synthetic], scenario.X)
    assert weight[synthetic].sum() == pytest.approx(0.3 * weight[rows["y"] == 1].sum())


def test_a_seeded_reset_forgets_what_awaits_a_retraining(scenario):
    single = DetectorRetrainWrapper(LatentAnomalyEnv(scenario=scenario), retrain_every=9)
    lanes = VectorDetectorRetrainWrapper(LatentAnomalyVectorEnv(16, scenario=scenario), 9)
    for env in (single, lanes):
        play(env, 0, lambda env=env: len(env.found) > 0)
        env.reset(seed=0)
        assert len(env.found) == 0


def test_observations_after_a_retraining_are_of_the_new_detector(scenario):
    env = VectorDetectorRetrainWrapper(LatentAnomalyVectorEnv(16, scenario=scenario), 1)
    env.action_space.seed(0)
    env.reset(seed=0)
    while not len(env.core.bank):
        observations = env.step(env.action_space.sample())[0]
    scores = env.core.detector.decision_function(env.core.samples)
    np.testing.assert_allclose(observations[:, 3], np.clip(scores / 4, -5, 5), atol=1e-4)


class Fives(VectorWrapper):
    """Makes every observation 5."""

    def step(self, actions):
        observations, *others = super().step(actions)
        return np.full_like(observations, 5), *others


def test_observations_that_a_wrapper_changes_stay_changed(scenario):
    env = VectorDetectorRetrainWrapper(Fives(LatentAnomalyVectorEnv(16, scenario=scenario)), 1)
    env.action_space.seed(0)
    env.reset(seed=0)
    while not len(env.core.bank):
        assert (env.step(env.action_space.sample())[0] == 5).all()


def test_what_was_found_is_not_what_info_holds(scenario):
    env = DetectorRetrainWrapper(LatentAnomalyEnv(scenario=scenario), retrain_every=9)
    env.action_space.seed(0)
    env.reset(seed=0)
    while not env.found:
        *_, terminated, truncated, info = env.step(env.action_space.sample())
        if terminated or truncated:
            found = info["sample"].copy()
            info["sample"] *= 1000
            env.reset()
    np.testing.assert_array_equal(env.found[0], found)


class Told(RandomAgent):
    """Keeps whether it was told to count its steps anew."""

    told: ClassVar[list[bool]] = []

    def learn(self, total_timesteps, reset_num_timesteps=True):
        Told.told.append(reset_num_timesteps)
        return self


def test_an_agent_is_told_to_go_on_counting(rows):
    Told.told.clear()
    algo = f"{__name__}:Told"
    settings = HardeningSettings("extra-trees", "background", algo, rounds=3, n_background=9)
    harden(*rows, settings, 0)
    assert Told.told == [True, False, False]
