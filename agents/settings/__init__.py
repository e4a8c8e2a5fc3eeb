"""Settings: those of the hardening loop, and beside this file those of each algorithm."""

from dataclasses import dataclass

from common.errors import check_at_least, check_share


@dataclass(frozen=True)
class HardeningSettings:
    """How a detector is hardened.

    Attributes:
        detector: id of the detector backend.
        generator: id of the generator whose latent space is searched.
        algo: name of an algorithm in `agents.algorithms.ALGORITHMS`, or `module:Class`.
        rounds: rounds of search and retraining.
        timesteps: env steps a round at least, counted over all lanes; a rollout is finished.
        top_l: successes, those that crowd least, that a round adds to the bank.
        n_background: corrupted normal rows that the bank of synthetic anomalies starts with; fewer
            in small tables, where few of those drawn lie outside the normal rows' support.
        synthetic_weight: share of the anomalies' training weight that the bank gets.
        n_lanes: episodes at once.
        device: torch device of the detector, where it has one; by default its own.
        contamination: share of new rows labelled 0 that the detector shall call anomalies, by
            default a tenth. Only mamba-moe and mamba take it; the others refuse it.
    """

    detector: str = "mamba-moe"
    generator: str = "cvae"
    algo: str = "ppo"
    rounds: int = 4
    timesteps: int = 10_000
    top_l: int = 256
    n_background: int = 2000
    synthetic_weight: float = 0.1
    n_lanes: int = 64
    device: str | None = None
    contamination: float | None = None

    def check(self) -> None:
        """Raise `InputError` where a number is out of range."""
        check_at_least(self, rounds=0, timesteps=1, top_l=1, n_background=0, n_lanes=1)
        check_share("synthetic_weight", self.synthetic_weight)
