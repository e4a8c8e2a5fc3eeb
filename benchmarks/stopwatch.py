"""What `benchmarks.speed` measures, each call in a process of its own on one thread."""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_classification
from torch.utils.flop_counter import FlopCounterMode

import detectors
from benchmarks.methods import METHODS, Factory, Method, supervised
from benchmarks.threads import single_thread
from detectors.mamba_moe import MambaMoEDetector
from detectors.replay import replay_set

ROOT = Path(__file__).parent.parent
TRAINING_ROWS = 4000
BATCH_ROWS = 10_000
SEARCH_STEPS = 8192
MIN_CALLS = 5
MIN_SECONDS = 0.5
PRODUCT = 1024  # rows and columns of the matrix product that ours is compared with
HARDENED, RUNTIME = "mamba-moe-hardened", "mamba-moe-onnx"


def hardened(X: np.ndarray, y: np.ndarray, seed: int) -> MambaMoEDetector:
    """Fit the flagship on rows and a bank of as many uniform rows as are a quarter of them."""
    rng = np.random.default_rng(seed)
    bank = rng.uniform(X.min(axis=0), X.max(axis=0), (len(X) // 4, X.shape[1]))
    return MambaMoEDetector(random_state=seed).fit(*replay_set(X, y, bank, 0.1))


def exported(X: np.ndarray, y: np.ndarray, seed: int) -> Method:
    """Fit the flagship, write it as ONNX and open it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        detectors.export_onnx(MambaMoEDetector(random_state=seed).fit(X, y), path)
        return detectors.open_onnx(path)


def fitted(factory: Factory, X: np.ndarray, y: np.ndarray, seed: int) -> Method:
    """Make a method and fit it."""
    return factory(seed).fit(X, y)


SCORERS: dict[str, Callable[[np.ndarray, np.ndarray, int], Method]] = {
    **{name: partial(fitted, factory) for name, factory in METHODS.items()},
    HARDENED: hardened,
    RUNTIME: exported,
    "transformer": partial(
        fitted, partial(supervised, "benchmarks.networks:TransformerClassifier")
    ),
    "perceptron": partial(fitted, partial(supervised, "benchmarks.networks:PerceptronClassifier")),
}


def measure(task: str, seed: int, settings: dict[str, Any]) -> dict[str, float]:
    """Run one of `TASKS` on one thread and return its figures."""
    with single_thread():
        return TASKS[task](seed=seed, **settings)


def table(n_rows: int, n_features: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows, float64 (n, d), and labels, 5 % of them anomalies."""
    return make_classification(
        n_rows, n_features, n_informative=n_features // 2, weights=[0.95], random_state=seed
    )


def seconds_a_call(call: Callable[[], Any]) -> float:
    """Median processor time of a call, at least five of them after one that warms up."""
    call()
    times: list[float] = []
    while len(times) < MIN_CALLS or sum(times) < MIN_SECONDS:
        started = process_time()
        call()
        times.append(process_time() - started)
    return float(np.median(times))


def score(method: str, seed: int) -> dict[str, float]:
    """Time a fitted method on a batch and on one row, both 32 columns wide."""
    X, y = table(TRAINING_ROWS + BATCH_ROWS, 32, seed)
    scorer = SCORERS[method](X[:TRAINING_ROWS], y[:TRAINING_ROWS], seed)
    batch, row = X[TRAINING_ROWS:].copy(), X[-1:].copy()
    seconds = seconds_a_call(lambda: scorer.decision_function(batch))
    figures = {
        "batch, us a row": 1e6 * seconds / BATCH_ROWS,
        "one row, us": 1e6 * seconds_a_call(lambda: scorer.decision_function(row)),
    }
    if isinstance(scorer, MambaMoEDetector):
        figures["share of product rate"] = product_flops(scorer, batch) / seconds / product_rate()
    return figures


def product_flops(detector: MambaMoEDetector, batch: np.ndarray) -> float:
    """Count the operations of the matrix products that scoring a batch takes."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector.log_odds(torch.from_numpy(batch))
    return counter.get_total_flops()


def product_rate() -> float:
    """Measure the operations a second of a large float32 matrix product."""
    square = torch.ones(PRODUCT, PRODUCT)
    return 2 * PRODUCT**3 / seconds_a_call(lambda: square @ square)


def score_experts(n_experts: int, seed: int) -> dict[str, float]:
    """Time the mixture with so many experts, `top_k` of which score a row."""
    X, y = table(TRAINING_ROWS + BATCH_ROWS, 32, seed)
    detector = MambaMoEDetector(n_experts=n_experts, random_state=seed)
    detector.fit(X[:TRAINING_ROWS], y[:TRAINING_ROWS])
    batch = X[TRAINING_ROWS:].copy()
    seconds = seconds_a_call(lambda: detector.decision_function(batch))
    return {"batch, us a row": 1e6 * seconds / BATCH_ROWS}


def scenario(detector: str, seed: int) -> Any:
    """Fit detector and generator and put them together; return an `envs.scenario.Scenario`."""
    from envs.scenario import Scenario
    from generators.cvae import ConditionalVAE

    X, y = table(TRAINING_ROWS, 32, seed)
    generator = ConditionalVAE(random_state=seed, steps=300).fit(X, y)
    attacked: Any = SCORERS[detector](X, y, seed)
    return Scenario.assemble(X, y, generator, attacked, seed)


def step_lanes(detector: str, n_lanes: int, native: bool, seed: int) -> dict[str, float]:
    """Count the env's steps a second with uniform actions, lanes at once or in a loop."""
    import gymnasium as gym
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    from envs import FLAGSHIP

    ground = scenario(detector, seed)
    env: gym.vector.VectorEnv
    if native:
        env = gym.make_vec(FLAGSHIP, n_lanes, scenario=ground)
    else:
        make = partial(gym.make, FLAGSHIP, scenario=ground)
        env = SyncVectorEnv([make] * n_lanes, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    return {"steps a second": n_lanes / seconds_a_call(lambda: env.step(env.action_space.sample()))}


def search(detector: str, seed: int) -> dict[str, float]:
    """Count PPO's steps a second end to end: acting, the env and learning."""
    from agents.agent import make_agent
    from envs.sb3 import SB3VecEnv
    from envs.vector import LatentAnomalyVectorEnv

    env = SB3VecEnv(LatentAnomalyVectorEnv(64, scenario=scenario(detector, seed)))
    agent = make_agent("ppo", env, seed)
    agent.learn(SEARCH_STEPS // 4)
    started = process_time()
    agent.learn(SEARCH_STEPS)
    return {"steps a second": agent.num_timesteps / (process_time() - started)}


def train(method: str, n_rows: int, n_features: int, seed: int) -> dict[str, float]:
    """Time a fit; peak memory is that of the process, so it has the interpreter's and torch's."""
    unit = 1024**2 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    X, y = table(n_rows, n_features, seed)
    started = process_time()
    SCORERS[method](X, y, seed)
    seconds = process_time() - started
    return {
        "fit, s": seconds,
        "us a row and column": 1e6 * seconds / X.size,
        "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    }


def start(arguments: list[str], seed: int) -> dict[str, float]:
    """Time a run of the interpreter by the wall clock."""
    started = perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=True)
    return {"seconds": perf_counter() - started}


TASKS: dict[str, Callable[..., dict[str, float]]] = {
    "score": score,
    "experts": score_experts,
    "lanes": step_lanes,
    "search": search,
    "train": train,
    "start": start,
}
