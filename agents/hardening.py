"""The hardening loop: search, retrain, refresh, repeat; then retrain on the whole bank."""

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import detectors
import generators
from agents.agent import make_agent
from agents.algorithms import load_algorithm
from agents.controls import GradientAgent, differentiable_log_odds
from agents.monitor import SearchMonitor
from agents.settings import HardeningSettings
from common.errors import InputError
from common.plain_torch import plain_torch
from common.randomness import global_seed
from common.rows import checked_rows
from common.seeds import draw_seed
from detectors.base import Detector, check_contamination
from detectors.replay import replay_set, retrained
from envs.retrain import VectorDetectorRetrainWrapper
from envs.rewards import RewardWeights
from envs.sb3 import SB3VecEnv
from envs.scenario import Scenario
from envs.vector import LatentAnomalyVectorEnv
from generators.base import Generator, fitted, refitted
from generators.feasibility import FeasibilityGate

EARLY_DIVERSITY = 0.2


@dataclass(frozen=True, eq=False)
class Hardened:
    """What the loop leaves.

    Attributes:
        scenario: real rows, generator, hardened detector, gate and bank.
        unhardened: the same backend fitted on the real rows alone.
        agent: the agent as it was after the last round.
        history: one dict a round, of plain numbers.
    """

    scenario: Scenario
    unhardened: Detector
    agent: Any
    history: list[dict[str, float]]

    @property
    def detectors(self) -> dict[str, Detector]:
        """The detector before and after hardening, by what tables and pictures call it."""
        return {"before hardening": self.unhardened, "after hardening": self.scenario.detector}


@plain_torch()
def harden(
    X: np.ndarray,
    y: np.ndarray,
    settings: HardeningSettings,
    seed: int,
    progress: bool = False,
    tensorboard_log: Path | None = None,
    on_round: Callable[[dict[str, float]], None] = lambda record: None,
) -> Hardened:
    """Run the loop on rows `X`, float64 (n, d), and labels `y`, int (n,).

    Args:
        X: rows in their own units.
        y: 1 for a known anomaly, 0 for everything else.
        settings: how to harden.
        seed: of everything drawn.
        progress: show a progress bar.
        tensorboard_log: folder for the agent's TensorBoard events.
        on_round: called with each round's record.

    Raises:
        InputError: a name is unknown, a setting is out of range, or a part refuses the rows.
        ValueError: values that are not finite or beyond float32, mismatched lengths, or labels
            other than 0 and 1, both present.
    """
    rng = np.random.default_rng(seed)
    generator, detector = make_parts(settings, rng, progress)
    X, y = checked_rows(X, y)
    unhardened = detector.fit(X, y)
    if not unhardened.trainable:
        warnings.warn(
            f"{settings.detector} can only be queried: it is attacked, and what is found is kept"
            " in the bank, but it is not retrained.",
            stacklevel=2,
        )
    generator = fitted(generator, X, y)
    scenario = Scenario.assemble(X, y, generator, unhardened, draw_seed(rng))
    bank = background_bank(X, y, scenario.gate, settings.n_background, rng)
    live = retrained(unhardened, X, y, bank, settings.synthetic_weight)
    scenario = replace(
        scenario, detector=live, bank=bank, synthetic_weight=settings.synthetic_weight
    )
    search = Search(scenario, settings, rng, tensorboard_log)
    with tqdm(total=settings.rounds * settings.timesteps, unit="step", disable=not progress) as bar:
        for index in range(settings.rounds):
            on_round(search.play_round(index, bar))
    core, final = search.core, live
    if len(core.bank) > len(bank):
        final = retrained(unhardened, X, y, core.bank, settings.synthetic_weight)
    hardened = replace(
        scenario,
        generator=core.generator,
        detector=final,
        bank=core.bank,
        latent_limit=core.limit,
    )
    return Hardened(hardened, unhardened, search.agent, search.history)


class Search:
    """The rounds: an agent in the batched env, whose detector and generator follow its finds."""

    def __init__(
        self,
        scenario: Scenario,
        settings: HardeningSettings,
        rng: np.random.Generator,
        tensorboard_log: Path | None,
    ) -> None:
        self.settings = settings
        env = LatentAnomalyVectorEnv(settings.n_lanes, scenario=scenario)
        self.core = env.core
        self.retraining = VectorDetectorRetrainWrapper(env, None, settings.top_l)
        self.monitor = SearchMonitor(self.retraining)
        self.seed = draw_seed(rng)
        self.agent = make_agent(settings.algo, SB3VecEnv(self.monitor), self.seed, tensorboard_log)
        self.history: list[dict[str, float]] = []

    def play_round(self, index: int, bar: tqdm) -> dict[str, float]:
        """Let the agent hunt, retrain the detector on what it found, refresh the generator.

        After the last round there is nobody to hunt against the one or in the other, so its finds
        only join the bank.
        """
        bar.set_description(f"round {index + 1}/{self.settings.rounds}, bank {len(self.core.bank)}")
        self.core.weights = round_weights(index, self.settings.rounds)
        self.monitor.start(bar)
        with global_seed(self.seed + index):
            self.agent.learn(self.settings.timesteps, reset_num_timesteps=index == 0)
        known = len(self.core.bank)
        if index + 1 < self.settings.rounds:
            self.retraining.retrain()
            self._refresh_generator()
            self.agent.set_env(self.agent.env)  # it resets: what was observed last is out of date
        else:
            self.core.remember(self.retraining.take_spread())
        self.core.settle()  # an agent may seed its env, which goes back to what is settled
        record = {
            "round": index + 1,
            **asdict(self.monitor.counts),
            "added": len(self.core.bank) - known,
            "bank": len(self.core.bank),
        }
        self.history.append(record)
        return record

    def _refresh_generator(self) -> None:
        """Go on training the generator on real rows and the bank."""
        X, y = self.core.scenario.X, self.core.scenario.y
        combined = replay_set(X, y, self.core.bank, self.settings.synthetic_weight)
        self.core.replace_generator(refitted(self.core.generator, *combined[:2]))


def make_parts(
    settings: HardeningSettings, rng: np.random.Generator, progress: bool = False
) -> tuple[Generator, Detector]:
    """Make the generator and the detector, and refuse settings that no loop can run with.

    Raises:
        InputError: a setting is out of range, a name is unknown or does not import, or the
            algorithm needs another detector.
    """
    settings.check()
    algorithm = load_algorithm(settings.algo)
    generator = generators.make(settings.generator, random_state=draw_seed(rng), progress=progress)
    detector = make_detector(settings, draw_seed(rng))
    if algorithm is GradientAgent:
        differentiable_log_odds(detector)  # refuses a black box before anything is fitted
    return generator, detector


def make_detector(settings: HardeningSettings, seed: int) -> Detector:
    """Build the backend; a `device` goes to those that take one.

    Raises:
        InputError: there is a `contamination`, which the backend does not take, or out of range.
    """
    detector = detectors.make(settings.detector, random_state=seed)
    accepted = detector.get_params()
    if settings.device is not None and "device" in accepted:
        detector.set_params(device=settings.device)
    if settings.contamination is not None:
        if "contamination" not in accepted:
            raise InputError(f"{settings.detector} takes no contamination; leave it out.")
        check_contamination(settings.contamination)
        detector.set_params(contamination=settings.contamination)
    return detector


def background_bank(
    X: np.ndarray, y: np.ndarray, gate: FeasibilityGate, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw up to `n` feasible feature-space negatives, float64 (m, d), of 4 n candidates."""
    candidates = generators.make("background").fit(X, y).sample(4 * n, rng)
    return candidates[gate.feasible(candidates)][:n]


def round_weights(index: int, rounds: int) -> RewardWeights:
    """Weigh diversity high in the first round, and less in each until the last."""
    final = RewardWeights()
    early = 1 - index / max(rounds - 1, 1)
    return replace(final, diversity=final.diversity + early * (EARLY_DIVERSITY - final.diversity))
