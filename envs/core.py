"""The env's arithmetic for N lanes at once; every face of the env is built on it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from torch import Tensor

from common.errors import InputError, check_at_least, check_positive, one_line, refused_by
from common.plain_torch import plain_torch
from detectors.base import Detector
from envs.registration import FLAGSHIP_BACKEND, MAX_EPISODE_STEPS
from envs.rewards import Measures, RewardWeights, reward_terms
from envs.scenario import Scenario, build_scenario, load_scenario
from generators.base import Generator
from generators.feasibility import nearest_distance

if hasattr(os, "register_at_fork"):  # forked workers have none of the threads torch would wait for
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))

START_NOISE = 0.3
MIN_NOVELTY = 0.25
MAX_KNOWN = 4096  # rows of the bank that novelty is measured against
SCORE_SCALE = 4.0
OBSERVED_LOW = torch.tensor([-5.0, -1, 0, 0])  # of log-odds, margin, novelty and time
OBSERVED_HIGH = torch.tensor([5.0, 5, 1, 1])


@dataclass(frozen=True, eq=False)
class Step:
    """Outcome of one step of n lanes.

    Attributes:
        samples: candidates in the input's units, float64 (n, d).
        measures: of the candidates.
        bypass: whether the detector calls a candidate normal, bool (n,).
        success: whether it is also feasible and novel, bool (n,).
        terms: of the reward, by name, each float32 (n,).
        reward: their sum, float32 (n,).
    """

    samples: np.ndarray
    measures: Measures
    bypass: Tensor
    success: Tensor
    terms: dict[str, Tensor]
    reward: Tensor

    def info(self) -> dict[str, Any]:
        """Return what a step's info holds by name, arrays (n, ...), the reward's terms nested."""
        return {
            "sample": self.samples,
            "score": self.measures.log_odds.double().numpy(),
            "bypass": self.bypass.numpy(),
            "margin": self.measures.margin.double().numpy(),
            "novelty": self.measures.novelty.double().numpy(),
            "success": self.success.numpy(),
            "reward_terms": {name: term.double().numpy() for name, term in self.terms.items()},
        }


class LatentCore:
    """State and transition of `n_lanes` independent episodes on one scenario.

    Args:
        scenario: what is played on.
        n_lanes: number of episodes at once.
        horizon: steps an episode lasts, for the observation's last entry.
        step_size: latent distance of an action entry of 1.
        weights: of the reward's terms.
    """

    @plain_torch()
    def __init__(
        self,
        scenario: Scenario,
        n_lanes: int,
        horizon: int,
        step_size: float,
        weights: RewardWeights,
    ) -> None:
        self.scenario, self.horizon = scenario, horizon
        self.step_size, self.weights = step_size, weights
        self.restore()
        self.latent_dim = scenario.generator.latent_dim
        self.limit = scenario.latent_limit or float(self.latents.abs().max()) + 1
        self.z = torch.zeros(n_lanes, self.latent_dim)
        self.elapsed = torch.zeros(n_lanes, dtype=torch.int64)
        self.started = torch.zeros(n_lanes, dtype=torch.bool)
        self.samples = np.zeros((n_lanes, scenario.X.shape[1]))
        self.measures = Measures(*torch.zeros(3, n_lanes))

    def restore(self) -> None:
        """Go back to the scenario's own detector, generator and bank."""
        self.detector = self.scenario.detector
        self._adopt(self.scenario.generator)
        self._keep(self.scenario.bank)

    def settle(self) -> None:
        """Make the live detector, generator and bank those that `restore` goes back to."""
        self.scenario = replace(
            self.scenario,
            detector=self.detector,
            generator=self.generator,
            bank=self.bank,
            latent_limit=self.limit,
        )

    def _keep(self, bank: np.ndarray) -> None:
        """Hold a bank; novelty is the distance to at most 4,096 of its rows, spread over time."""
        self.bank = bank
        chosen = np.linspace(0, len(bank) - 1, min(len(bank), MAX_KNOWN)).astype(int)
        self.scaled_bank = self.scenario.gate.scaler(bank[chosen])

    def spaces(self) -> tuple[Box, Box]:
        """Return a lane's observation space, float32 (latent_dim + 4,), and its action space."""
        low = np.r_[np.full(self.latent_dim, -self.limit), OBSERVED_LOW]
        high = np.r_[np.full(self.latent_dim, self.limit), OBSERVED_HIGH]
        observations = Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        return observations, Box(-1, 1, (self.latent_dim,), dtype=np.float32)

    def draw_start(
        self, rng: np.random.Generator, options: Mapping[str, Any] | None = None
    ) -> tuple[int, np.ndarray]:
        """Draw a training row and latent noise, float64 (latent_dim,), for an episode's start.

        `options={"row": i}` picks row i, without noise.
        """
        if options and "row" in options:
            return check_row(options["row"], len(self.scenario.X)), np.zeros(self.latent_dim)
        return int(rng.integers(len(self.latents))), rng.standard_normal(self.latent_dim)

    def reset(self, lanes: Tensor, rows: np.ndarray, noise: np.ndarray) -> None:
        """Start `lanes`, int64 (k,), at real `rows`, int (k,), plus latent `noise` (k, L)."""
        start = self.latents[rows] + START_NOISE * torch.from_numpy(noise).float()
        self.z = self.z.index_copy(0, lanes, start.clamp(-self.limit, self.limit))
        self.elapsed = self.elapsed.index_fill(0, lanes, 0)
        self.refresh(lanes)
        self.started = self.started.index_fill(0, lanes, True)

    def refresh(self, lanes: Tensor) -> None:
        """Measure `lanes` anew, after a reset or a change of detector or generator."""
        samples, fresh = self.measure(self.z[lanes])
        self.samples[lanes.numpy()] = samples
        pairs = zip(self.measures, fresh, strict=True)
        self.measures = Measures(*(old.index_copy(0, lanes, new) for old, new in pairs))

    @torch.no_grad()
    def measure(self, z: Tensor) -> tuple[np.ndarray, Measures]:
        """Decode latents (n, L) as anomalies; return rows, float64 (n, d), and their measures."""
        decoded = self.generator.decode_rows(z, z.new_ones(len(z)))
        rows = self._checked(decoded, "decodes to rows", (len(z), self.scenario.X.shape[1]))
        scaled = self.scenario.gate.scaler(rows)
        samples = rows.numpy()
        log_odds = torch.from_numpy(self.detector.decision_function(samples)).float()
        return samples, Measures(log_odds, self.scenario.gate.margin(scaled), self.novelty(scaled))

    def novelty(self, scaled: Tensor) -> Tensor:
        """Distance of scaled rows (n, d) to the bank in gate radii, clipped to [0, 1]."""
        return (nearest_distance(scaled, self.scaled_bank) / self.scenario.gate.radius).clamp(max=1)

    def step(self, actions: np.ndarray) -> Step:
        """Move every lane by `actions`, float32 (N, L) in [-1, 1].

        Raises:
            ResetNeeded: a lane was never reset.
            InputError: see `checked_actions`.
        """
        if not self.started.all():
            waiting = (~self.started).nonzero().flatten().tolist()
            raise ResetNeeded(f"Lanes {waiting} were never reset; call reset before step.")
        acts = checked_actions(actions, *self.z.shape)
        before = self.measures
        moved = self.z + self.step_size * acts.clamp(-1, 1)
        self.z = moved.clamp(-self.limit, self.limit)
        self.elapsed = self.elapsed + 1
        self.samples, self.measures = self.measure(self.z)
        bypass = self.measures.log_odds <= self.detector.threshold_
        success = bypass & (self.measures.margin > 0) & (self.measures.novelty > MIN_NOVELTY)
        terms = reward_terms(before, self.measures, success, self.weights)
        reward = torch.stack(list(terms.values())).sum(dim=0)
        return Step(self.samples.copy(), self.measures, bypass, success, terms, reward)

    def observe(self) -> np.ndarray:
        """Return observations, float32 (N, latent_dim + 4).

        A row is z, the log-odds over 4 within +-5, the margin in [-1, 5], the novelty in [0, 1]
        and the fraction of the episode used.
        """
        log_odds, margin, novelty = self.measures
        extra = [log_odds / SCORE_SCALE, margin, novelty, self.elapsed / self.horizon]
        observed = torch.stack(extra, dim=1).clamp(OBSERVED_LOW, OBSERVED_HIGH)
        return torch.cat([self.z, observed], dim=1).float().numpy()

    def replace_detector(self, detector: Detector) -> None:
        """Play on against another detector."""
        self.detector = detector
        self.refresh(torch.arange(len(self.z), device=self.z.device))

    def remember(self, rows: np.ndarray) -> None:
        """Add found `rows`, float64 (m, d) in the input's units, to the bank."""
        self._keep(np.concatenate([self.bank, rows]))
        novelty = self.novelty(self.scenario.gate.scaler(self.samples))
        self.measures = self.measures._replace(novelty=novelty)

    def replace_generator(self, generator: Generator) -> None:
        """Play on in another generator's latent space; raise `InputError` if its size differs."""
        if generator.latent_dim != self.latent_dim:
            raise InputError(
                f"The generator {type(generator).__name__} has {generator.latent_dim} latents in"
                f" place of {self.latent_dim}; partial_fit must keep latent_dim."
            )
        self._adopt(generator)
        self.refresh(torch.arange(len(self.z), device=self.z.device))

    def _adopt(self, generator: Generator) -> None:
        self.generator = generator
        with refused_by(f"The generator {type(generator).__name__}", "one"):
            latents = torch.from_numpy(generator.encode(self.scenario.X, self.scenario.y))
        shape = len(self.scenario.X), generator.latent_dim
        self.latents = self._checked(latents, "encodes to latents", shape).float()

    def _checked(self, values: Tensor, does: str, shape: tuple[int, int]) -> Tensor:
        """Return what the generator gave; raise `InputError` for another shape or if not finite."""
        name = type(self.generator).__name__
        if values.shape != shape:
            given = tuple(values.shape)
            raise InputError(f"The generator {name} {does} of the shape {given}, not {shape}.")
        if not values.isfinite().all():
            raise InputError(f"The generator {name} {does} that are not finite; mend it.")
        return values


def checked_actions(actions: np.ndarray, n_lanes: int, size: int) -> Tensor:
    """Return the actions of lanes as float32 (n_lanes, size).

    Raises:
        InputError: they have another shape, are no numbers, or one is NaN.
    """
    try:
        plain = actions if isinstance(actions, Tensor) else np.array(actions, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"The actions are no numbers ({one_line(error)}).") from error
    if plain.shape != (n_lanes, size):
        given = tuple(plain.shape)
        raise InputError(
            f"The actions of {n_lanes} lanes have the shape {given}; give {size} numbers for each."
        )
    checked = torch.as_tensor(plain, dtype=torch.float32, device="cpu").detach()
    if checked.isnan().any():
        raise InputError("An action is no number (NaN); give finite ones.")
    return checked


def check_row(row: Any, n_rows: int) -> int:
    """Return `row` as an index of a training row, or raise `InputError`."""
    if not isinstance(row, int | np.integer) or not 0 <= row < n_rows:
        raise InputError(f"options['row'] is {row!r}; pass a row number from 0 to {n_rows - 1}.")
    return int(row)


def make_core(
    n_lanes: int,
    scenario: Scenario | None = None,
    *,
    run: str | None = None,
    data: str | Path = "digits",
    label_column: str = "label",
    protocol: str = "unseen",
    detector: str = FLAGSHIP_BACKEND,
    generator: str = "cvae",
    seed: int = 0,
    horizon: int = MAX_EPISODE_STEPS,
    step_size: float = 0.7,
    weights: Mapping[str, float] | None = None,
) -> LatentCore:
    """Build a core for `n_lanes` episodes from a scenario, a run folder or a data set.

    Args:
        n_lanes: number of episodes at once.
        scenario: what to play on; takes precedence over everything that says how to get one.
        run: folder of a run written by `train.py`: its rows, generator and hardened detector, which
            take precedence over `data`, `label_column`, `protocol`, `detector`, `generator` and
            `seed`.
        data: source of the rows, as in `data.load`.
        label_column: column of a file's labels, likewise.
        protocol: which training rows are seen, one of `data.PROTOCOLS`, or "all".
        detector: id of the detector backend to fit and attack.
        generator: id of the generator to fit.
        seed: of the split and of the pretraining, not of the episodes.
        horizon: steps that the observation's last entry counts as a whole episode.
        step_size: latent distance of an action entry of 1.
        weights: reward weights that differ from the defaults of `RewardWeights`, by name.

    Raises:
        InputError: a number out of range, an unknown name, a missing or broken file, or rows that
            cannot be used.
    """
    numbers = SimpleNamespace(num_envs=n_lanes, horizon=horizon, seed=seed)
    check_at_least(numbers, num_envs=1, horizon=1, seed=0)
    check_positive("step_size", step_size)
    reward_weights = RewardWeights.checked(weights or {})
    if not isinstance(scenario, Scenario | None):
        raise InputError(
            f"scenario is {type(scenario).__name__}; give an envs.scenario.Scenario, which"
            " Scenario.assemble makes of rows and fitted parts."
        )
    if scenario is None and run is not None:
        scenario = load_scenario(run)
    elif scenario is None:
        scenario = build_scenario(data, label_column, protocol, detector, generator, seed)
    return LatentCore(scenario, n_lanes, horizon, step_size, reward_weights)
