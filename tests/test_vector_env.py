"""The native vector env against a loop of single envs, and its Stable-Baselines3 face."""

import os
import subprocess
import sys
import warnings
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from commands import ROOT
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.monitor import Monitor

from common.errors import InputError
from envs import FLAGSHIP
from envs.latent_anomaly import LatentAnomalyEnv
from envs.retrain import VectorDetectorRetrainWrapper
from envs.sb3 import SB3VecEnv
from envs.vector import LatentAnomalyVectorEnv

N_LANES = 5


def assert_alike(native, loop, where="result"):
    if isinstance(loop, dict):
        assert native.keys() == loop.keys(), where
        for key in loop:
            assert_alike(native[key], loop[key], f"{where}[{key!r}]")
    elif isinstance(loop, np.ndarray) and loop.dtype == object:
        for a, b in zip(native, loop, strict=True):
            assert (a is None) == (b is None), where
            if b is not None:
                assert_alike(a, b, where)
    else:
        assert np.asarray(native).dtype == np.asarray(loop).dtype, where
        np.testing.assert_allclose(native, loop, rtol=1e-3, atol=1e-3, err_msg=where)


def native_and_loop(scenario):
    make = partial(gym.make, FLAGSHIP, scenario=scenario)
    loop = SyncVectorEnv([make] * N_LANES, autoreset_mode=AutoresetMode.SAME_STEP)
    return gym.make_vec(FLAGSHIP, N_LANES, scenario=scenario), loop


def test_native_env_equals_the_loop_step_for_step(scenario):
    native, loop = native_and_loop(scenario)
    assert native.observation_space == loop.observation_space
    assert native.action_space == loop.action_space
    assert native.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    rng = np.random.default_rng(0)
    for a, b in zip(native.reset(seed=11), loop.reset(seed=11), strict=True):
        assert_alike(a, b)
    finished = np.zeros(2)
    for _ in range(40):
        actions = rng.uniform(-1, 1, native.action_space.shape).astype(np.float32)
        results = native.step(actions), loop.step(actions)
        for a, b in zip(*results, strict=True):
            assert_alike(a, b)
        finished += [results[0][2].sum(), results[0][3].sum()]
    assert (finished > 0).all(), "neither end of an episode may go untested"


def test_options_and_seeds_of_each_lane_are_as_in_the_loop(scenario):
    native, loop = native_and_loop(scenario)
    seeds = [7, 3, 3, 0, 11]
    for arguments in ({"seed": seeds}, {"options": {"row": 3}}, {"seed": 4}):
        for a, b in zip(native.reset(**arguments), loop.reset(**arguments), strict=True):
            assert_alike(a, b)
        assert native.np_random_seed == loop.np_random_seed
        states = [[rng.bit_generator.state for rng in env.np_random] for env in (native, loop)]
        assert states[0] == states[1]
    for given, each in ((np.array(seeds), tuple(seeds)), (np.int64(4), (4, 5, 6, 7, 8))):
        native.reset(seed=given)
        assert native.np_random_seed == each
    with pytest.raises(InputError, match="pass a row number"):
        native.reset(options={"row": -1})
    with pytest.raises(InputError, match="2 seeds for 5 lanes"):
        native.reset(seed=[1, 2])
    with pytest.raises(InputError, match="render_mode"):
        gym.make_vec(FLAGSHIP, N_LANES, scenario=scenario, render_mode="rgb_array")


def test_masked_lanes_alone_are_reset_as_in_the_loop(scenario):
    native, loop = native_and_loop(scenario)
    rng = np.random.default_rng(0)
    mask = np.array([False, True, False, True, True])
    started = [env.reset(seed=1)[0] for env in (native, loop)]
    for arguments in ({}, {"seed": 8}, {"seed": [4, None, 5, 6, None]}):
        for _ in range(3):
            actions = rng.uniform(-1, 1, native.action_space.shape).astype(np.float32)
            moved = [env.step(actions)[0] for env in (native, loop)]
        again = [env.reset(options={"reset_mask": mask}, **arguments) for env in (native, loop)]
        for a, b in zip(*again, strict=True):
            assert_alike(a, b)
        np.testing.assert_array_equal(again[0][0][~mask], moved[0][~mask])
    assert (started[0] != again[0][0]).any(axis=1).all()
    for wrong in (mask[:-1], mask.astype(int), np.zeros(N_LANES, dtype=bool)):
        with pytest.raises(InputError, match="reset_mask"):
            native.reset(options={"reset_mask": wrong})


def test_a_bare_env_that_was_never_reset_does_not_move(scenario):
    env = LatentAnomalyEnv(scenario=scenario)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(3, np.float32))
    env.reset(seed=0)
    env.step(np.zeros(3, np.float32))


FORKED = """
import os, sys, torch
import envs.core
torch.set_num_threads(2)
numbers = torch.ones(2_000_000)
numbers.exp()
child = os.fork()
if child == 0:
    numbers.exp()
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""


def test_a_forked_worker_does_not_wait_for_threads_that_it_has_not():
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", FORKED], env=environment, timeout=120, check=True)


def test_a_lane_that_was_never_reset_does_not_move(scenario):
    env = LatentAnomalyVectorEnv(3, scenario=scenario)
    still = np.zeros((3, 3), np.float32)
    with pytest.raises(ResetNeeded, match=r"Lanes \[0, 1, 2\]"):
        env.step(still)
    with pytest.raises(InputError, match="row"):
        env.reset(options={"row": -1})
    with pytest.raises(InputError, match=r"seed is 1\.5"):
        env.reset(seed=1.5)
    with pytest.raises(ResetNeeded, match=r"Lanes \[0, 1, 2\]"):
        env.step(still)
    env.reset(seed=0, options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(ResetNeeded, match=r"Lanes \[1\] were never reset"):
        env.step(still)
    env.reset(options={"reset_mask": np.array([False, True, False])})
    env.step(still)


def test_lanes_do_not_disturb_each_other(scenario):
    few, many = (LatentAnomalyVectorEnv(n, scenario=scenario) for n in (2, 6))
    few.reset(seed=5)
    many.reset(seed=5)
    rng = np.random.default_rng(0)
    for _ in range(20):
        actions = rng.uniform(-1, 1, (6, 3)).astype(np.float32)
        narrow, wide = few.step(actions[:2])[0], many.step(actions)[0]
        np.testing.assert_allclose(narrow, wide[:2], rtol=1e-3, atol=1e-3)


def test_sb3_face_gives_what_sb3_expects(scenario):
    env = SB3VecEnv(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    env.seed(0)
    observations = env.reset()
    assert observations.shape == (N_LANES, *env.observation_space.shape)
    assert observations.dtype == np.float32
    rng = np.random.default_rng(0)
    ends, total = [], np.zeros(N_LANES)
    for _ in range(40):
        actions = rng.uniform(-1, 1, (N_LANES, 3)).astype(np.float32)
        observations, rewards, dones, infos = env.step(actions)
        total += rewards
        for lane, info in enumerate(infos):
            assert sum(info["reward_terms"].values()) == pytest.approx(rewards[lane], abs=1e-4)
            assert info["success"] == info.get("is_success", False)
        for lane in np.flatnonzero(dones):
            info = infos[lane]
            assert env.observation_space.contains(info["terminal_observation"])
            assert not np.array_equal(info["terminal_observation"], observations[lane])
            assert info["TimeLimit.truncated"] != info["is_success"]
            assert info["episode"]["r"] == pytest.approx(total[lane], abs=1e-3)
            assert info["episode"]["l"] == 8 or info["is_success"]
            ends.append(info["is_success"])
            total[lane] = 0
    assert set(ends) == {True, False}


def test_sb3_options_are_handed_on_once_and_resets_are_told(scenario):
    env = SB3VecEnv(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    env.set_options({"row": 3})
    env.reset()
    assert env.reset_infos == [{"row": 3}] * N_LANES
    for _ in range(8):
        env.step(np.zeros((N_LANES, 3), np.float32))
    rows = env.get_attr("rows")[0].tolist()
    assert [info["row"] for info in env.reset_infos] == rows
    assert set(rows) != {3}
    mask = np.arange(N_LANES) == 1
    env.set_options([{"reset_mask": mask.copy()} for _ in range(N_LANES)])
    env.reset()
    env.set_options([{"row": lane} for lane in range(N_LANES)])
    with pytest.raises(InputError, match="reset alike"):
        env.reset()
    assert env.reset().shape == (N_LANES, 3 + 4)


def test_sb3_face_reaches_wrappers_by_name(scenario):
    wrapped = VectorDetectorRetrainWrapper(LatentAnomalyVectorEnv(N_LANES, scenario=scenario), 8)
    env = SB3VecEnv(wrapped)
    assert env.get_attr("found") == [[]] * N_LANES
    assert env.get_attr("core")[0] is wrapped.env.core
    env.set_attr("retrain_every", None)
    assert wrapped.retrain_every is None
    wrapped.found = [scenario.X[0]]
    env.env_method("retrain")
    assert len(wrapped.core.bank) == 1
    assert env.env_is_wrapped(Monitor) == [True] * N_LANES
    assert env.env_is_wrapped(TimeLimit) == [False] * N_LANES


def test_sb3_face_of_another_env_tells_no_success():
    make = partial(gym.make, "CartPole-v1")
    env = SB3VecEnv(SyncVectorEnv([make] * 2, autoreset_mode=AutoresetMode.SAME_STEP))
    env.seed(0)
    env.reset()
    ended: list[dict] = []
    while not ended:
        _, _, done, infos = env.step(np.ones(2, int))
        assert [info["TimeLimit.truncated"] for info in infos] == [False, False]
        ended = [info for info, over in zip(infos, done, strict=True) if over]
    assert "is_success" not in ended[0]
    assert ended[0]["episode"]["t"] > 0


@pytest.mark.parametrize("kind", ["native", "loop"])
def test_sb3_reset_of_some_lanes_leaves_the_others_alone(scenario, kind):
    """A vector env of Gymnasium's takes the mask out of the options that it is given."""
    make = partial(LatentAnomalyEnv, scenario=scenario)
    loop = SyncVectorEnv([make] * N_LANES, autoreset_mode=AutoresetMode.SAME_STEP)
    env = SB3VecEnv(loop if kind == "loop" else LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    env.reset()
    for _ in range(3):
        env.step(np.zeros((N_LANES, 3), np.float32))
    told, lengths = list(env.reset_infos), env.lengths.copy()
    assert lengths[0] > 0
    env.set_options({"reset_mask": np.arange(N_LANES) == 0})
    env.reset()
    assert env.lengths.tolist() == [0, *lengths[1:]]
    assert env.reset_infos[1:] == told[1:]


@pytest.mark.parametrize("limit", [0, -2, 1.5, None])
def test_episodes_of_no_whole_number_of_steps_are_refused(scenario, limit):
    with pytest.raises(InputError, match=f"max_episode_steps is {limit}"):
        LatentAnomalyVectorEnv(2, limit, scenario=scenario)


def test_a_limit_of_minus_1_is_none(scenario):
    env = LatentAnomalyVectorEnv(2, -1, scenario=scenario)
    env.reset(seed=0)
    steps = [env.step(np.zeros((2, 3), np.float32)) for _ in range(20)]
    assert not any(truncated.any() for _, _, _, truncated, _ in steps)


def test_actions_may_be_a_tensor_that_has_a_gradient(scenario):
    observations = []
    for actions in (np.full((2, 3), 0.5, np.float32), torch.full((2, 3), 0.5, requires_grad=True)):
        env = LatentAnomalyVectorEnv(2, scenario=scenario)
        env.reset(seed=0)
        observations.append(env.step(actions)[0])
    np.testing.assert_array_equal(*observations)


def test_actions_may_be_a_view_or_of_another_byte_order(scenario):
    actions, observations = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3), []
    frozen = actions.copy()
    frozen.flags.writeable = False
    for given in (actions, actions[:, ::-1].copy()[:, ::-1], actions.astype(">f4"), frozen):
        env = LatentAnomalyVectorEnv(2, scenario=scenario)
        env.reset(seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            observations.append(env.step(given)[0])
    for other in observations[1:]:
        np.testing.assert_array_equal(other, observations[0])


def test_sb3_seed_repeats_the_episodes(scenario):
    env = SB3VecEnv(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    episodes, actions = [], np.random.default_rng(0).uniform(-1, 1, (12, N_LANES, 3))
    for seed in (3, 3, 4):
        env.seed(seed)
        episodes.append([env.reset(), *(env.step(action)[0] for action in actions)])
    np.testing.assert_array_equal(*episodes[:2])
    assert not np.array_equal(*episodes[1:])
    assert not np.array_equal(env.reset(), episodes[2][0])


def test_sb3_face_takes_a_wrapper_whose_infos_have_one_mask(scenario):
    env = SB3VecEnv(RecordEpisodeStatistics(LatentAnomalyVectorEnv(N_LANES, scenario=scenario)))
    env.reset()
    lengths = []
    for _ in range(8):
        _, _, done, infos = env.step(np.zeros((N_LANES, 3), np.float32))
        lengths += [infos[lane]["episode"]["l"] for lane in np.flatnonzero(done)]
        told = [env.reset_infos[lane]["episode"]["l"] for lane in np.flatnonzero(done)]
        assert told == lengths[len(lengths) - len(told) :]
    assert len(lengths) >= N_LANES


def test_sb3_face_refuses_envs_that_reset_a_step_later(scenario):
    make = partial(gym.make, FLAGSHIP, scenario=scenario)
    with pytest.raises(InputError, match="SAME_STEP"):
        SB3VecEnv(SyncVectorEnv([make] * 2, autoreset_mode=AutoresetMode.NEXT_STEP))


def test_actions_of_another_shape_are_refused(scenario):
    env, lanes = (make(scenario=scenario) for make in (LatentAnomalyEnv, LatentAnomalyVectorEnv))
    env.reset(seed=0)
    lanes.reset(seed=0)
    for one, actions in ((env, np.ones(1)), (env, np.ones((1, 3))), (lanes, np.ones(3))):
        with pytest.raises(InputError, match="give 3 numbers for each"):
            one.step(actions.astype(np.float32))
    with pytest.raises(InputError, match="no numbers"):
        lanes.step([[1.0], [1.0, 2.0]])
    with pytest.raises(InputError, match="no number"):
        lanes.step(np.full((lanes.num_envs, 3), np.nan, np.float32))


def test_sb3_episodes_begin_anew_with_a_reset_and_end_with_their_own_observation(scenario):
    env = SB3VecEnv(LatentAnomalyVectorEnv(N_LANES, scenario=scenario))
    plain = LatentAnomalyVectorEnv(N_LANES, scenario=scenario)
    zeros = np.zeros((N_LANES, 3), np.float32)
    env.reset()
    env.step(zeros)
    env.seed(0)
    env.reset()
    plain.reset(seed=0)
    total, length = np.zeros((2, N_LANES))
    for _ in range(16):
        _, rewards, done, infos = env.step(zeros)
        final = plain.step(zeros)[4].get("final_obs")
        total, length = total + rewards, length + 1
        for lane in np.flatnonzero(done):
            np.testing.assert_array_equal(infos[lane]["terminal_observation"], final[lane])
            told = infos[lane]["episode"]
            assert told["r"] == pytest.approx(total[lane], abs=1e-3)
            assert told["l"] == length[lane]
            total[lane] = length[lane] = 0
