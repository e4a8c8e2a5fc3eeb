"""The conformance check of a generator, for its author."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import generators
from common.conformance import faults, made_up_rows
from generators.base import Generator, fitted


@dataclass(frozen=True)
class Trial:
    """A generator on trial, fitted on the rows `X`, float (n, d), and labels `y`, int (n,)."""

    id: str
    make: Callable[[], Generator]
    fitted: Generator
    X: np.ndarray
    y: np.ndarray

    def reloaded(self) -> Generator:
        """Return a copy of the fitted generator that was saved, into a new folder, and loaded."""
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "generator"
            self.fitted.save(folder)
            return generators.registry.load(self.id).load(folder)


def check_generator(id: str, **kwargs: Any) -> list[str]:
    """Say what is wrong with the generator `id`, one plain sentence a fault; [] if nothing is.

    It is made (with `kwargs`), fitted on 144 rows of 5 columns, 24 of them anomalies, and tried in
    all that the env and the hardening loop ask of it.

    Raises:
        InputError: the id is unknown, or its class cannot be imported.
    """
    if not issubclass(generators.registry.load(id), Generator):
        return [f"{id}: it must be a subclass of generators.base.Generator."]
    X, y = made_up_rows()

    def make() -> Generator:
        return generators.make(id, **{"random_state": 0, "progress": False, **kwargs})

    try:
        generator = make()
    except Exception as error:
        return [
            f"{id}: it must be made with a random_state and progress=False, but raised {error!r}."
        ]
    try:
        learned = fitted(generator, X, y)
    except Exception as error:
        return [f"{id}: fit(X, y) must work, but raised {error!r}."]
    trial = Trial(id, make, learned, X, y)
    return [f"{id}: {fault}" for check in CHECKS for fault in faults(check, trial)]


def encodes_and_decodes(trial: Trial) -> Iterator[str]:
    """It must encode rows and decode latents."""
    z = trial.fitted.encode(trial.X, trial.y)
    wanted = (len(trial.X), trial.fitted.latent_dim)
    if z.shape != wanted or z.dtype != np.float32:
        yield f"encode must return float32 {wanted}, not {z.dtype} {z.shape}."
    elif not np.isfinite(z).all():
        yield "encode must return finite latents."
    rows = trial.fitted.decode(z, trial.y)
    if rows.shape != trial.X.shape or rows.dtype != np.float64:
        yield f"decode must return float64 {trial.X.shape}, not {rows.dtype} {rows.shape}."
    elif not np.isfinite(rows).all():
        yield "decode must return finite rows."
    elif not all(
        np.allclose(trial.fitted.decode(z[[i]], trial.y[[i]]), rows[i], rtol=1e-3, atol=1e-3)
        for i in range(-5, 0)
    ):
        yield "decode must not let a row depend on the other latents of the batch."


def follows_its_latent(trial: Trial) -> Iterator[str]:
    """It must decode different latents to different rows."""
    z = np.zeros((2, trial.fitted.latent_dim), np.float32)
    z[1] = 1
    rows = trial.fitted.decode(z, np.ones(2, dtype=int))
    if np.array_equal(rows[0], rows[1]):
        yield "decode gives every latent the same row, so that an agent can change nothing."


def is_reproducible(trial: Trial) -> Iterator[str]:
    """It must learn alike when fitted twice with the same random_state."""
    again = fitted(trial.make(), trial.X, trial.y)
    first, second = (part.encode(trial.X, trial.y) for part in (trial.fitted, again))
    if not np.array_equal(first, second):
        yield "two fits with the same random_state must encode alike; take and use random_state."


def samples(trial: Trial) -> Iterator[str]:
    """It must draw rows from the random generator that it is given."""
    first, again, other = (trial.fitted.sample(30, np.random.default_rng(s)) for s in (0, 0, 1))
    wanted = (30, trial.X.shape[1])
    if first.shape != wanted:
        yield f"sample(30, rng) must return the shape {wanted}, not {first.shape}."
    elif not np.array_equal(first, again):
        yield "sample must draw from the rng that it is given and from nothing else."
    elif np.array_equal(first, other):
        yield "sample draws the same rows whatever the rng."


def goes_on(trial: Trial) -> Iterator[str]:
    """It must go on training in partial_fit and keep its latent_dim."""
    copy = trial.reloaded()
    before = copy.latent_dim
    anomalies = np.random.default_rng(0).uniform(-9, 9, (40, trial.X.shape[1]))
    rows, labels = np.r_[trial.X, anomalies], np.r_[trial.y, np.ones(40, np.int64)]
    if copy.partial_fit(rows, labels) is not copy:
        yield "partial_fit must return the generator itself."
    if copy.latent_dim != before:
        yield f"partial_fit must keep latent_dim, but took it from {before} to {copy.latent_dim}."


def survives_saving(trial: Trial) -> Iterator[str]:
    """It must be saved into a folder that is not there yet, and loaded without change."""
    loaded, z = trial.reloaded(), trial.fitted.encode(trial.X, trial.y)
    if not np.allclose(loaded.encode(trial.X, trial.y), z, atol=1e-5):
        yield "a saved and loaded generator must encode as before."
    if not np.allclose(loaded.decode(z, trial.y), trial.fitted.decode(z, trial.y), atol=1e-5):
        yield "a saved and loaded generator must decode as before."
    drawn, before = (part.sample(30, np.random.default_rng(0)) for part in (loaded, trial.fitted))
    if not np.allclose(drawn, before, atol=1e-5):
        yield "a saved and loaded generator must draw the rows that it drew before."


CHECKS = [
    encodes_and_decodes,
    follows_its_latent,
    is_reproducible,
    samples,
    survives_saving,
    goes_on,
]
