"""Every algorithm of the table plays, learns where it can, and is reproducible."""

import os
import shutil
import sys
import tempfile
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch
from conftest import RUN_SETTINGS, blobs
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from agents.agent import load_agent, make_agent, save_agent
from agents.algorithms import ALGORITHMS, find_algorithm
from agents.controls import RandomAgent, potential
from agents.hardening import harden, make_parts, round_weights
from agents.monitor import SearchCounts, SearchMonitor
from agents.overview import draw_overview
from agents.report import detection_metrics
from agents.rollout import Arena
from agents.runs import find_run, open_run, write_run
from agents.settings import HardeningSettings
from common.errors import InputError
from common.files import write_json
from common.imports import load_plugins
from common.randomness import global_seed
from common.tensors import load_tensors, save_tensors
from data import Split
from data.table import Table
from detectors.mamba_moe import MambaMoEDetector
from detectors.trees import ExtraTreesDetector
from envs.retrain import VectorDetectorRetrainWrapper
from envs.sb3 import SB3VecEnv
from envs.scenario import Scenario, load_scenario
from envs.vector import LatentAnomalyVectorEnv
from evaluate import both_scenarios
from generators.background import Background
from generators.cvae import ConditionalVAE
from swift_hydra import SwiftHydra

N_LANES = 16
DISCRETE = {"DQN", "QRDQN", "MaskablePPO"}
CONTROLS = {"RandomAgent", "GradientAgent"}


def make_env(scenario: Scenario) -> SB3VecEnv:
    return SB3VecEnv(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))


def trained(algo: str, scenario: Scenario, seed: int = 0, steps: int = 1200):
    agent = make_agent(algo, make_env(scenario), seed)
    with global_seed(seed):
        agent.learn(steps)
    return agent


def actions(agent, observations: np.ndarray) -> np.ndarray:
    return agent.predict(observations, deterministic=True)[0]


@pytest.fixture
def observations(scenario) -> np.ndarray:
    env = make_env(scenario)
    env.seed(0)
    return env.reset()


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_algorithm_is_reproducible_saved_and_loaded(algo, scenario, observations, tmp_path):
    first, second = (trained(algo, scenario) for _ in range(2))
    acted = actions(first, observations)
    assert acted.shape == (N_LANES, 3)
    assert np.abs(acted).max() <= 1
    np.testing.assert_array_equal(acted, actions(second, observations))
    save_agent(second, algo, str(tmp_path))
    name, loaded = load_agent(str(tmp_path), make_env(scenario), 0)
    assert name == algo
    if algo != "random":
        np.testing.assert_allclose(actions(loaded, observations), acted, atol=1e-6)
        untrained = make_agent(algo, make_env(scenario), 0)
        learns = getattr(first, "policy", None) is not None
        assert learns != np.allclose(actions(untrained, observations), acted, atol=1e-6)


def test_module_class_is_an_algorithm(scenario, observations):
    agent = trained(f"{RandomAgent.__module__}:RandomAgent", scenario)
    assert actions(agent, observations).shape == (N_LANES, 3)


class SharedExtractorPPO(PPO):
    """Actor and critic share a module that learns, as Stable-Baselines3 has it by default."""

    def __init__(self, **settings):
        extractor = {"features_extractor_class": LinearExtractor}
        super().__init__(policy_kwargs=extractor, **settings)


class LinearExtractor(BaseFeaturesExtractor):
    def __init__(self, space):
        super().__init__(space, features_dim=4)
        self.layer = torch.nn.Linear(space.shape[0], 4)

    def forward(self, observations):
        return self.layer(observations)


class RuleAgent(RandomAgent):
    policy = "a rule, not a module"


@pytest.mark.parametrize("cls", [SharedExtractorPPO, RuleAgent])
def test_classes_of_ones_own_are_saved_and_loaded(cls, scenario, observations, tmp_path):
    algo = f"{__name__}:{cls.__name__}"
    agent = make_agent(algo, make_env(scenario), 0)
    if cls is SharedExtractorPPO:
        save_agent(agent, algo, tmp_path)
    else:
        with pytest.warns(UserWarning, match="RuleAgent has no policy that is a torch.nn.Module"):
            save_agent(agent, algo, tmp_path)
    assert (tmp_path / "policy.safetensors").exists() == (cls is SharedExtractorPPO)
    name, loaded = load_agent(tmp_path, make_env(scenario), 1)
    assert name == algo
    if cls is SharedExtractorPPO:
        np.testing.assert_allclose(actions(loaded, observations), actions(agent, observations))


class NarrowAgent(RandomAgent):
    def __init__(self, env, seed):
        super().__init__(env=env, seed=seed)


def test_class_whose_constructor_does_not_fit_is_one_sentence(scenario):
    sentence = f"'{__name__}:NarrowAgent' cannot be built .* must take .* policy, env, seed, device"
    with pytest.raises(InputError, match=sentence):
        make_agent(f"{__name__}:NarrowAgent", make_env(scenario), 0)


class FailingAgent(RandomAgent):
    def __init__(self, **arguments):
        raise RuntimeError("out of order")


class StatelessAgent(RandomAgent):
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return super().predict(observation)[0]


def test_classes_that_fail_are_one_sentence(scenario):
    with pytest.raises(InputError, match=r"FailingAgent' fails \(RuntimeError in test_agents.py"):
        make_agent(f"{__name__}:FailingAgent", make_env(scenario), 0)
    arena = Arena(LatentAnomalyVectorEnv(4, scenario=scenario))
    with pytest.raises(InputError, match="predict of StatelessAgent must return actions and a"):
        arena.play(StatelessAgent(arena.env, 0), 4, 0)


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_learning_leaves_no_folder(scenario, tmp_path, monkeypatch, algo):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make_agent(algo, make_env(scenario), 0).learn(64)
    assert not list(tmp_path.iterdir())


class ShortAgent:
    def __init__(self, **arguments):
        self.env = arguments["env"]

    def learn(self, total_timesteps, **unused):
        return self


def test_the_envs_own_draws_of_actions_are_seeded(scenario):
    drawn = []
    for seed in (0, 0, 1):
        env = make_env(scenario)
        make_agent("random", env, seed)
        drawn.append(env.action_space.sample())
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_class_that_lacks_a_method_is_one_sentence(scenario):
    with pytest.raises(InputError, match="ShortAgent' has no predict, which the loop needs"):
        make_agent(f"{__name__}:ShortAgent", make_env(scenario), 0)


class ShortSighted(RandomAgent):
    def learn(self, total_timesteps):
        return self


def test_class_whose_method_does_not_take_what_the_loop_passes_is_one_sentence(scenario):
    with pytest.raises(InputError, match=r"learn of .*ShortSighted' must take .*reset_num"):
        make_agent(f"{__name__}:ShortSighted", make_env(scenario), 0)


@pytest.mark.parametrize("agent", [PPO, None, 5])
def test_an_agent_that_is_no_text_is_one_sentence(rows, agent):
    with pytest.raises(InputError, match=r"An algorithm is given as .*; pass its name"):
        SwiftHydra(agent=agent).fit(*rows)


def test_opening_a_run_imports_nothing_that_only_its_files_name(scenario, tmp_path, monkeypatch):
    (tmp_path / "foreign_agents.py").write_text("from agents.controls import RandomAgent as Mine")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "foreign_agents", raising=False)
    write_json(tmp_path / "agent.json", {"algo": "foreign_agents:Mine"})
    with pytest.raises(InputError, match="pass --plugin foreign_agents"):
        load_agent(tmp_path, make_env(scenario), 0)
    assert "foreign_agents" not in sys.modules
    load_plugins(["foreign_agents"])
    assert load_agent(tmp_path, make_env(scenario), 0)[0] == "foreign_agents:Mine"


def test_any_seed_serves(scenario):
    assert make_agent("ppo", make_env(scenario), 2**32 + 1).seed == 1
    arena = Arena(LatentAnomalyVectorEnv(2, scenario=scenario))
    assert arena.play_control("random", 2, 2**64)["episodes"] == 2


@pytest.mark.parametrize(
    ("algo", "sentence"),
    [("PPPO", "did you mean ppo"), ("no_module:Class", "no_module"), ("agents.controls:No", "No")],
)
def test_unknown_algorithm_is_one_sentence(algo, sentence, scenario):
    with pytest.raises(InputError, match=sentence):
        make_agent(algo, make_env(scenario), 0)


def test_policy_of_another_env_is_refused(scenario, rows, tmp_path):
    save_agent(make_agent("ppo", make_env(scenario), 0), "ppo", tmp_path)
    wide = LatentAnomalyVectorEnv(4, scenario=replace(scenario, generator=Background().fit(*rows)))
    with pytest.raises(InputError, match="does not fit"):
        load_agent(tmp_path, SB3VecEnv(wide), 0)


@pytest.mark.parametrize("n_lanes", [1, 4, 10, 33, 64, 131])
def test_batches_fit_the_rollout_whatever_the_number_of_lanes(scenario, n_lanes, recwarn):
    env = SB3VecEnv(LatentAnomalyVectorEnv(n_lanes, scenario=scenario))
    agent = make_agent("ppo", env, 0)
    assert agent.n_steps * n_lanes % agent.batch_size == 0
    assert agent.batch_size == {1: 4, 4: 16, 10: 40, 33: 132, 64: 128, 131: 131}[n_lanes]
    assert [str(warning.message) for warning in recwarn if "batch" in str(warning.message)] == []


def test_ars_plays_as_long_as_it_is_told(scenario):
    monitor = SearchMonitor(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    agent = make_agent("ars", SB3VecEnv(monitor), 0)
    agent.learn(12_000)
    assert 12_000 <= agent.num_timesteps <= monitor.counts.queries < 24_000


class TargetEnv(gym.Env):
    """Trivially solvable: the observation is the action that is wanted."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.show(), {}

    def show(self) -> np.ndarray:
        self.target = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.target

    def step(self, action):
        reward = 1 - float(np.abs(action - self.target).mean())
        self.steps += 1
        return self.show(), reward, False, self.steps == 8, {}


def mean_reward(algo: str, timesteps: int) -> float:
    env = SB3VecEnv(SyncVectorEnv([TargetEnv] * N_LANES, autoreset_mode=AutoresetMode.SAME_STEP))
    env.seed(0)
    agent = make_agent(algo, env, 0)
    with global_seed(0):
        agent.learn(timesteps)
    observations, rewards = env.reset(), []
    for _ in range(50):
        acted, _ = agent.predict(observations, deterministic=True)
        observations, reward, _, _ = env.step(acted)
        rewards.append(reward)
    return float(np.mean(rewards))


@pytest.mark.parametrize(("algo", "steps"), [("ppo", 12_000), ("sac", 3_000)])
def test_trivial_env_is_solved(algo, steps):
    assert mean_reward("random", 16) < 0.5
    assert mean_reward(algo, steps) > 0.7


def test_gradient_control_succeeds_more_often_than_wandering(scenario):
    arena = Arena(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    assert arena.controls() == ["random", "gradient"]
    random, gradient = (arena.play_control(name, 200, 0) for name in arena.controls())
    assert gradient["success_rate"] > random["success_rate"]
    assert random["episodes"] >= 200
    for measures in (random, gradient):
        assert 0 <= measures["bypass_rate"] <= 1
        assert measures["success_rate"] <= 1
        assert 0 < measures["feasibility_rate"] <= 1


def test_a_black_box_is_refused_to_the_gradient_control_before_anything_is_fitted():
    settings = HardeningSettings("extra-trees", algo="gradient")
    with pytest.raises(InputError, match="differentiable detector, which ExtraTreesDetector"):
        make_parts(settings, np.random.default_rng(0))


def test_gradient_control_refuses_a_black_box(fitted_scenario, rows):
    forest = ExtraTreesDetector(n_estimators=10).fit(*rows)
    scenario = Scenario.assemble(*rows, fitted_scenario.generator, forest, 0)
    arena = Arena(LatentAnomalyVectorEnv(4, scenario=scenario))
    assert arena.controls() == ["random"]
    with pytest.raises(InputError, match="differentiable"):
        arena.play_control("gradient", 4, 0)


class Plain(Background):
    """Decodes by NumPy, which gives no gradient."""

    def decode_scaled(self, z, y):
        return torch.from_numpy(z.numpy() * 2)


class Cut(Background):
    def decode_scaled(self, z, y):
        return super().decode_scaled(z.detach(), y)


@pytest.mark.parametrize("cls", [Plain, Cut])
def test_gradient_control_refuses_a_generator_without_gradient(scenario, cls):
    generator = cls().fit(scenario.X, scenario.y)
    env = LatentAnomalyVectorEnv(4, scenario=replace(scenario, generator=generator))
    arena = Arena(env)
    assert arena.controls() == ["random"]
    with pytest.raises(InputError, match=f"{cls.__name__} with MambaMoE.* has no gradient"):
        arena.play_control("gradient", 4, 0)


def test_gradient_control_moves_where_columns_hold_whole_numbers(rows):
    X, y = 10 * rows[0].round(1), rows[1]
    generator = ConditionalVAE(latent_dim=3, steps=50).fit(X, y)
    assert generator.scaler.whole.all()
    detector = MambaMoEDetector(steps=10, n_trees=5).fit(X, y)
    env = LatentAnomalyVectorEnv(4, scenario=Scenario.assemble(X, y, generator, detector, 0))
    agent = make_agent("gradient", SB3VecEnv(env), 0)
    actions, _ = agent.predict(env.reset(seed=0)[0])
    np.testing.assert_allclose(np.abs(actions).max(axis=1), 1)


def test_gradient_control_stays_where_the_log_odds_have_no_gradient(fitted_scenario, rows):
    class Kinked(MambaMoEDetector):
        def log_odds(self, X):
            return super().log_odds(X) + (X - X).sum(dim=1).sqrt()

    detector = Kinked(steps=10, n_trees=5).fit(*rows)
    scenario = Scenario.assemble(*rows, fitted_scenario.generator, detector, 0)
    agent = make_agent("gradient", SB3VecEnv(LatentAnomalyVectorEnv(4, scenario=scenario)), 0)
    actions, _ = agent.predict(agent.env.reset())
    np.testing.assert_array_equal(actions, 0)


@pytest.mark.parametrize("algo", ["random", "ppo"])
def test_search_is_reproducible(rows, algo):
    settings = HardeningSettings(
        "extra-trees", "background", algo, rounds=1, timesteps=256, n_lanes=8, n_background=20
    )
    first, second = (harden(*rows, settings, 0).scenario.bank for _ in range(2))
    assert len(first) > 20
    np.testing.assert_array_equal(first, second)


def test_each_lane_plays_as_many_episodes(scenario):
    """Counting the first to finish would favour the short ones, which are the successes."""
    arena = Arena(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    few, many = (arena.play_control("random", n * N_LANES, 0) for n in (1, 60))
    assert few["episodes"] == N_LANES
    assert many["episodes"] == 60 * N_LANES
    assert 0 < many["success_rate"] < 1
    monitor, env = arena.monitor, arena.env
    monitor.start(None, quota=1)
    env.reset()
    ended = np.zeros(N_LANES, dtype=bool)
    expected = {"queries": 0, "episodes": 0, "successes": 0, "reward": 0.0}
    while not ended.all():
        _, rewards, done, infos = env.step(np.zeros((N_LANES, 3), np.float32))
        going_on = ~ended
        expected["queries"] += going_on.sum()
        expected["reward"] += rewards[going_on].sum()
        expected["episodes"] += (done & going_on).sum()
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        expected["successes"] += (done & going_on & ~truncated).sum()
        ended |= done
    counts = asdict(monitor.counts)
    assert {name: pytest.approx(value) for name, value in expected.items()} == {
        name: counts[name] for name in expected
    }
    assert not monitor.left.any()


def test_what_was_retrained_is_measured(scenario):
    env = VectorDetectorRetrainWrapper(LatentAnomalyVectorEnv(16, scenario=scenario), 1)
    env.action_space.seed(0)
    env.reset(seed=0)
    while not len(env.core.bank):
        env.step(env.action_space.sample())
    detector, bank = env.core.detector, env.core.bank
    arena = Arena(env.env)
    arena.play_control("random", 16, 0)
    assert env.core.detector is detector is not scenario.detector
    assert env.core.bank is bank
    env.reset(seed=0)
    assert env.core.detector is scenario.detector
    with pytest.raises(InputError, match="What is retrained cannot be measured"):
        Arena(RecordEpisodeStatistics(env))


def test_arena_is_reproducible(scenario):
    arena = Arena(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    assert arena.play_control("random", 50, 3) == arena.play_control("random", 50, 3)


def test_seeds_that_follow_each_other_play_other_episodes(scenario):
    arena = Arena(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    starts = []
    for seed in range(2):
        arena.play_control("random", 1, seed)
        arena.env.reset()
        starts.append({float(z) for z in arena.core.z[:, 0]})
    assert not starts[0] & starts[1]


def test_monitor_counts_what_happens(scenario):
    monitor = SearchMonitor(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    monitor.reset(seed=0)
    rng, totals, samples = np.random.default_rng(0), np.zeros(3), []
    for _ in range(30):
        acted = rng.uniform(-1, 1, (N_LANES, 3)).astype(np.float32)
        _, rewards, terminated, truncated, infos = monitor.step(acted)
        totals += [terminated.sum(), (terminated | truncated).sum(), rewards.sum()]
        for info in (infos, infos.get("final_info", {})):
            samples.extend(info["sample"][info["_sample"]] if "sample" in info else [])
    candidates, detector = np.stack(samples), scenario.detector
    counts = monitor.counts
    assert counts.queries == 30 * N_LANES
    assert [counts.successes, counts.episodes] == totals[:2].astype(int).tolist()
    assert counts.reward == pytest.approx(totals[2])
    passes = detector.decision_function(candidates) <= detector.threshold_
    assert counts.bypasses == passes.sum()
    assert counts.feasible == scenario.gate.feasible(candidates).sum()


def test_diversity_weight_falls_over_the_rounds():
    weights = [round_weights(index, 4).diversity for index in range(4)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > weights[-1] > 0
    assert round_weights(0, 1).diversity > 0


@pytest.mark.parametrize(
    "spoiled", [{"detector": "mamba-mo"}, {"generator": "cvea"}, {"algo": "pppo"}]
)
def test_unknown_names_are_refused_before_anything_is_fitted(rows, spoiled, monkeypatch):
    def fit(*_):
        raise AssertionError("fitted")

    monkeypatch.setattr(ExtraTreesDetector, "fit", fit)
    monkeypatch.setattr(ConditionalVAE, "fit", fit)
    settings = HardeningSettings(**{"detector": "extra-trees", **spoiled})
    with pytest.raises(InputError, match="did you mean"):
        harden(*rows, settings, 0)


@pytest.mark.parametrize(
    ("spoiled", "name"),
    [
        ({"rounds": -1}, "rounds"),
        ({"timesteps": 0}, "timesteps"),
        ({"synthetic_weight": 1.0}, "synthetic"),
        ({"n_lanes": 0}, "lanes"),
    ],
)
def test_settings_out_of_range_are_refused(spoiled, name):
    with pytest.raises(InputError, match=name):
        HardeningSettings(**spoiled).check()


def test_no_round_means_feasible_background_only(rows):
    settings = HardeningSettings(
        detector="extra-trees", generator="background", rounds=0, n_background=50
    )
    hardened = harden(*rows, settings, 0)
    assert hardened.history == []
    assert len(hardened.scenario.bank) == 50
    assert hardened.scenario.gate.feasible(hardened.scenario.bank).all()


def test_every_entry_of_the_table_can_be_found():
    for algo in ALGORITHMS:
        entry_point, settings = find_algorithm(algo)
        assert ":" in entry_point
        assert (settings == {}) == (algo in ("random", "gradient"))


@pytest.mark.parametrize("algo", ["ars", "tqc"])
def test_an_algorithm_whose_library_is_not_installed_names_it(algo, scenario, monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    monkeypatch.delitem(sys.modules, "agents.ars", raising=False)
    with pytest.raises(InputError, match=r"'sb3_contrib'.*install"):
        make_agent(algo, make_env(scenario), 0)


def test_every_algorithm_of_both_libraries_that_acts_in_a_box_is_in_the_table():
    found = {
        name
        for library in (stable_baselines3, sb3_contrib)
        for name, cls in vars(library).items()
        if isinstance(cls, type) and issubclass(cls, BaseAlgorithm) and name not in DISCRETE
    }
    assert found == {find_algorithm(algo)[0].partition(":")[2] for algo in ALGORITHMS} - CONTROLS


def test_a_run_is_played_on_as_it_was_hardened(tmp_path):
    """There are more normal rows than the gate refers to, so that its choice matters."""
    X, y = blobs(n_normal=2500)
    settings = HardeningSettings(
        "extra-trees", "background", rounds=0, n_background=50, synthetic_weight=0.3
    )
    hardened = harden(X, y, settings, seed=1)
    table = Table(X, y, [f"x{i}" for i in range(X.shape[1])], "blobs")
    halves = Split(X, y, X[:9].copy(), y[:9].copy())
    write_run(tmp_path, hardened, halves, table, {**asdict(settings), "seed": 1}, {})
    loaded, scaled = load_scenario(str(tmp_path)), hardened.scenario.gate.scaler(X)
    assert loaded.synthetic_weight == 0.3
    assert loaded.detector.training_rows_["synthetic"].sum() == 50
    np.testing.assert_array_equal(loaded.X, X)
    np.testing.assert_array_equal(loaded.y, y)
    np.testing.assert_array_equal(loaded.bank, hardened.scenario.bank)
    assert torch.equal(loaded.gate.margin(scaled), hardened.scenario.gate.margin(scaled))
    assert loaded.latent_limit == hardened.scenario.latent_limit


def test_overview_without_held_out_rows_has_no_curves(rows):
    X, y = rows
    settings = HardeningSettings("extra-trees", "background", rounds=0, n_background=50)
    search, plane = draw_overview(harden(X, y, settings, seed=0), X[:0], y[:0]).axes
    assert search.get_title() == "Search"
    assert plane.get_title() == "Training rows and bank"


@pytest.mark.parametrize(("rounds", "n_background"), [(0, 0), (0, 50), (2, 50)])
def test_overview_draws_both_detectors_every_round_and_the_bank(rounds, n_background, rows):
    X, y = rows
    settings = HardeningSettings("extra-trees", "background", "random", rounds, timesteps=64)
    settings = replace(settings, n_lanes=4, n_background=n_background)
    hardened = harden(X, y, settings, seed=0)
    roc, precision_recall, search, plane = draw_overview(hardened, X, y).axes
    for when, detector in (
        ("before hardening", hardened.unhardened),
        ("after hardening", hardened.scenario.detector),
    ):
        measures = detection_metrics(detector, X, y)
        assert f"{when} (AUC = {measures['auroc']:.2f})" in labels(roc)
        assert f"{when} (AP = {measures['average_precision']:.2f})" in labels(precision_recall)
    bypasses, successes = (line.get_ydata() for line in search.lines)
    history = hardened.history
    np.testing.assert_allclose(bypasses, [each["bypasses"] / each["queries"] for each in history])
    np.testing.assert_allclose(
        successes, [each["successes"] / each["episodes"] for each in history]
    )
    shown = dict(zip(labels(plane), plane.collections, strict=True))
    assert len(shown["bank"].get_offsets()) == len(hardened.scenario.bank)
    assert len(shown["known anomaly"].get_offsets()) == y.sum()


def labels(axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def write_small_run(folder, rows, n_background):
    X, y = rows
    table, halves = Table(X, y, list("abcd"), "blobs"), Split(X, y, X[:90].copy(), y[:90].copy())
    settings = HardeningSettings("extra-trees", "background", rounds=0, n_background=n_background)
    config = {**asdict(settings), "seed": 1}
    write_run(folder, harden(X, y, settings, seed=1), halves, table, config, {})


def test_a_run_that_is_written_again_is_read_again(rows, tmp_path):
    for n in (50, 20):
        write_small_run(tmp_path, rows, n)
        os.utime(tmp_path / "config.json", (n, n))
        assert len(load_scenario(str(tmp_path)).bank) == n


def test_a_run_of_another_version_is_refused_in_one_sentence(tmp_path):
    write_json(tmp_path / "config.json", {})
    rows = {name: torch.zeros(1, 2) for name in ("X_train", "y_train", "bank", "references")}
    for kept in ({"bank": rows["bank"]}, rows):
        save_tensors(tmp_path / "rows.safetensors", kept)
        with pytest.raises(InputError, match=r"another version; train it again"):
            load_scenario(str(tmp_path))


@pytest.fixture(scope="module")
def written(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    write_small_run(folder, rows, n_background=20)
    return folder


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("X_train", lambda X: X[:0]),
        ("X_train", lambda X: X[:, 0]),
        ("X_train", lambda X: X[:, 1:]),
        ("X_train", lambda X: X * torch.nan),
        ("y_train", lambda y: y + 5),
        ("references", lambda r: r[:0]),
        ("references", lambda r: r[:, 1:]),
        ("references", lambda r: r.double()),
        ("references", lambda r: r * torch.nan),
        ("X_test", lambda X: X[:0]),
        ("X_test", lambda X: X[:, 1:]),
        ("X_test", lambda X: X * torch.nan),
        ("y_test", lambda y: y[:0]),
        ("y_test", lambda y: y[1:]),
        ("y_test", lambda y: y + 5),
    ],
)
def test_a_run_with_rows_of_another_one_is_refused_in_one_sentence(written, name, spoil, tmp_path):
    folder = shutil.copytree(written, tmp_path / "run")
    tensors = load_tensors(folder / "rows.safetensors")
    save_tensors(folder / "rows.safetensors", {**tensors, name: spoil(tensors[name])})
    with pytest.raises(InputError, match=r"train it again|fit it on the rows"):
        both_scenarios(open_run(folder))


def test_a_run_with_columns_of_another_one_is_refused_in_one_sentence(written, tmp_path):
    folder = shutil.copytree(written, tmp_path / "run")
    assert len(both_scenarios(open_run(folder))[1]) == 90
    write_json(folder / "columns.json", list("abc"))
    with pytest.raises(InputError, match=r"from 4 columns, but columns\.json beside it names 3"):
        open_run(folder).detector()


def test_an_algorithm_that_needs_discrete_actions_is_refused(scenario):
    env = SB3VecEnv(LatentAnomalyVectorEnv(2, scenario=scenario))
    with pytest.raises(InputError, match="does not fit the env"):
        make_agent("stable_baselines3:DQN", env, seed=0)


def test_detection_metrics_agree_with_figures_worked_out_by_hand():
    detector = SimpleNamespace(decision_function=lambda X: X[:, 0], threshold_=1.5)
    figures = detection_metrics(detector, np.arange(5.0)[:, None] - 1, np.array([0, 0, 1, 0, 1]))
    assert figures["auroc"] == pytest.approx(5 / 6)
    assert figures["average_precision"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["recall"] == 0.5
    assert figures["false_alarms"] == pytest.approx(1 / 3)


class StrictAgent(RandomAgent):
    """Takes what the loop passes, no more and no less."""

    def learn(self, total_timesteps, reset_num_timesteps):
        return super().learn(total_timesteps)


def test_a_class_that_the_loop_takes_may_learn_anew(scenario):
    arena = Arena(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    assert arena.play_anew(f"{__name__}:StrictAgent", 64, 32, seed=0)["episodes"] == 32


def test_an_agent_learns_anew_against_the_detector_as_it_is(scenario):
    arena = Arena(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    first, second = (arena.play_anew("ppo", 4096, 64, seed=0) for _ in range(2))
    assert first == second
    assert first["mean_reward"] > arena.play(make_agent("ppo", arena.env, 0), 64, 0)["mean_reward"]


def test_diversity_is_the_mean_distance_to_the_nearest_other_success(scenario):
    arena = Arena(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    arena.found = [scenario.X[0]]
    assert arena.diversity() is None
    arena.found = list(scenario.X[:3])
    rows = scenario.gate.scaler(scenario.X[:3]).numpy()
    apart = [
        min(np.linalg.norm(row - other) for other in np.delete(rows, index, axis=0))
        for index, row in enumerate(rows)
    ]
    assert arena.diversity() == pytest.approx(np.mean(apart) / scenario.gate.radius, rel=1e-4)


def test_the_latest_run_that_fits_is_found(tmp_path):
    backends = {"d": "mamba-moe", "a": "catboost", "c": "mamba-moe", "b": "catboost"}
    for time, (name, detector) in enumerate(backends.items()):
        path = tmp_path / name / "config.json"
        write_json(path, {**RUN_SETTINGS, "detector": detector})
        os.utime(path, (time, time))
    assert find_run(tmp_path).folder.name == "b"
    assert find_run(tmp_path, {"detector": "mamba-moe"}).folder.name == "c"
    assert find_run(tmp_path, {"detector": "extra-trees"}) is None
    for path in (tmp_path / "a" / ".." / "a" / "config.json", str(tmp_path / "a" / "config.json")):
        assert find_run(tmp_path, {"data": path}) is None
        write_json(tmp_path / "c" / "config.json", {**RUN_SETTINGS, "data": str(path)})
        assert find_run(tmp_path, {"data": tmp_path / "a" / "config.json"}).folder.name == "c"
        write_json(tmp_path / "c" / "config.json", RUN_SETTINGS)
    os.utime(tmp_path / "c" / "config.json", (2, 2))
    write_json(tmp_path / "foreign" / "config.json", {"model_type": "bert"})
    with pytest.warns(UserWarning, match="foreign is left out: .* lacks settings"):
        assert find_run(tmp_path).folder.name == "b"
    (tmp_path / "foreign" / "config.json").unlink()
    (tmp_path / "foreign" / "config.json").symlink_to("config.json")  # cannot be opened
    with pytest.warns(UserWarning, match="foreign is left out"):
        assert find_run(tmp_path).folder.name == "b"


@pytest.mark.parametrize("algo", ["ppo", "a2c", "sac", "trpo"])
def test_agents_have_the_settings_of_their_file(algo, scenario):
    agent = make_agent(algo, make_env(scenario), 0)
    _, settings = find_algorithm(algo)
    for name in ("batch_size", "train_freq"):  # the former is made to part a rollout evenly
        settings.pop(name, None)
    told = {name: getattr(agent, name) for name in settings}
    if "clip_range" in told:
        told["clip_range"] = agent.clip_range(1)
    assert told == settings


@pytest.mark.parametrize("algo", ["td3", "ddpg"])
def test_deterministic_policies_explore_by_noise(algo, scenario):
    agent = make_agent(algo, make_env(scenario), 0)
    drawn = np.array([agent.action_noise() for _ in range(500)])
    assert drawn.shape == (500, 3)
    np.testing.assert_allclose(drawn.std(axis=0), 0.1, rtol=0.2)


def test_random_actions_fill_the_box(scenario):
    agent = make_agent("random", make_env(scenario), 0)
    actions, _ = agent.predict(np.zeros((999, 7), np.float32))
    assert actions.min() < -0.95
    assert actions.max() > 0.95
    assert abs(actions.mean()) < 0.1


def test_gradient_climbs_the_rewards_potential(scenario):
    env = LatentAnomalyVectorEnv(N_LANES, scenario=scenario)
    env.reset(seed=0)
    before, after = env.core.z.clone(), env.core.z + 0.1
    rewards = potential(env.core, after) - potential(env.core, before)
    terms = env.core.step(np.full((N_LANES, 3), 0.1 / env.core.step_size, np.float32)).terms
    assert torch.allclose(rewards, terms["bypass"] + terms["feasibility"], atol=1e-3)


def test_measures_of_an_attack_agree_with_figures_worked_out_by_hand(scenario):
    arena = Arena(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    arena.monitor.counts = SearchCounts(
        40, bypasses=10, feasible=20, episodes=5, successes=2, reward=7
    )
    assert arena.summary() == {
        "episodes": 5,
        "mean_reward": 1.4,
        "bypass_rate": 0.25,
        "success_rate": 0.4,
        "diversity": None,
        "feasibility_rate": 0.5,
    }


class Counting:
    """Counts its steps by the state that it is given back."""

    seen: ClassVar[list[tuple[int | None, np.ndarray, float]]] = []

    def predict(self, observation, state=None, episode_start=None):
        Counting.seen.append((state, episode_start.copy(), float(torch.rand(()))))
        return np.zeros((len(observation), 3), np.float32), (state or 0) + 1


def test_an_agent_is_given_its_state_and_told_of_starts(scenario):
    arena, drawn = Arena(LatentAnomalyVectorEnv(4, scenario=scenario)), []
    for seed in (0, 1):
        Counting.seen.clear()
        arena.play(Counting(), 8, seed)
        states, starts, draws = zip(*Counting.seen, strict=True)
        assert states == (None, *range(1, len(states)))
        assert starts[0].all()
        assert 0 < np.sum(starts[1:]) < 4 * len(starts[1:])
        drawn.append(draws[0])
    assert drawn[0] != drawn[1]
