"""Generators keep one contract, and the feasibility gate keeps normal rows out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import detectors
import generators
from agents.hardening import harden
from agents.settings import HardeningSettings
from common.errors import InputError
from common.scaling import RowScaler
from envs.latent_anomaly import LatentAnomalyEnv
from generators.background import Background
from generators.cvae import ConditionalVAE
from generators.feasibility import FeasibilityGate, farthest, nearest_distance, nearest_other

ROOT = Path(__file__).parent.parent
QUICK = {"cvae": {"latent_dim": 3, "steps": 150}, "background": {}}


@pytest.fixture(scope="module")
def fitted(rows):
    return {id: generators.make(id, **QUICK[id]).fit(*rows) for id in QUICK}


def test_every_registered_generator_is_tested():
    """Asked in a process of its own, apart from what other tests register."""
    code = "import generators; print(*sorted(generators.ids()))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert there.stdout.split() == sorted(QUICK)


@pytest.mark.parametrize("id", QUICK)
def test_contract(fitted, rows, id):
    (X, y), generator = rows, fitted[id]
    z = generator.encode(X, y)
    assert z.shape == (len(X), generator.latent_dim)
    assert z.dtype == np.float32
    decoded = generator.decode(z, y)
    assert decoded.shape == X.shape
    assert decoded.dtype == np.float64
    unexplained = np.square(decoded - X).sum() / np.square(X - X.mean(axis=0)).sum()
    assert unexplained < 0.6
    first, second, other = (generator.sample(50, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first.shape == (50, X.shape[1])
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("id", QUICK)
def test_unknown_argument_is_refused(id):
    with pytest.raises(InputError, match=f"'{id}' cannot be made: .*latent_dims"):
        generators.make(id, latent_dims=3)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"latent_dim": 0}, "latent_dim is 0; give at least 1"),
        ({"latent_dim": 2.5}, r"latent_dim is 2\.5; give a whole number"),
        ({"hidden": 0}, "hidden is 0"),
        ({"steps": -1}, "steps is -1"),
        ({"beta": float("nan")}, "beta is nan; give a finite number above 0"),
    ],
)
def test_setting_out_of_range_is_refused(setting, sentence):
    with pytest.raises(InputError, match=sentence):
        generators.make("cvae", **setting)


@pytest.mark.parametrize("id", QUICK)
def test_rows_of_any_form_are_learned_alike_and_bad_ones_refused(fitted, rows, id):
    (X, y), z = rows, fitted[id].encode(*rows)
    forms = (pd.DataFrame(X), pd.Series(y)), (X.tolist(), y.tolist()), (X, y.astype(float))
    for form in forms:
        np.testing.assert_array_equal(generators.make(id, **QUICK[id]).fit(*form).encode(X, y), z)
    for bad in ((np.where(X > 2, np.nan, X), y), (X, y + 1), (X[:-1], y)):
        with pytest.raises(ValueError, match=r"NaN|Labels are 0|inconsistent"):
            generators.make(id, **QUICK[id]).fit(*bad)


@pytest.mark.parametrize("id", QUICK)
def test_save_and_load_decode_alike(fitted, rows, id, tmp_path):
    fitted[id].save(tmp_path)
    loaded = generators.registry.load(id).load(tmp_path)
    z = fitted[id].encode(*rows)
    np.testing.assert_array_equal(loaded.encode(*rows), z)
    np.testing.assert_array_equal(loaded.decode(z, rows[1]), fitted[id].decode(z, rows[1]))
    samples = [g.sample(20, np.random.default_rng(0)) for g in (loaded, fitted[id])]
    np.testing.assert_array_equal(*samples)


@pytest.mark.parametrize("id", QUICK)
def test_whole_number_columns_stay_whole_and_rows_within_reach(rows, id):
    X, y = rows[0].copy(), rows[1]
    X[:, 0] = np.round(X[:, 0])
    X[:, 1] = np.exp(4 * X[:, 1])
    generator = generators.make(id, **QUICK[id]).fit(X, y)
    samples = generator.sample(200, np.random.default_rng(0))
    np.testing.assert_array_equal(samples[:, 0], np.round(samples[:, 0]))
    scaled = generator.scaler(samples[:, :]).double()
    # Rounding may lead half a whole number out of reach.
    assert (scaled[:, 1:] <= generator.scaler.high[1:] + 1e-4).all()
    assert (scaled[:, 1:] >= generator.scaler.low[1:] - 1e-4).all()


@pytest.mark.parametrize("id", sorted(QUICK))
@pytest.mark.parametrize("constant", [0.0, 0.1, 7.0])
def test_constant_columns_stay_as_they_are(rows, id, constant):
    X, y = np.insert(rows[0], 2, constant, axis=1), rows[1]
    generator = generators.make(id, **QUICK[id]).fit(X, y)
    drawn = generator.sample(200, np.random.default_rng(0))
    np.testing.assert_allclose(drawn[:, 2], constant, atol=1e-12)
    assert (drawn.std(axis=0)[[0, 1, 3, 4]] > 0.1).all()


@pytest.mark.parametrize("n", [7, 30, 200])
@pytest.mark.parametrize("constant", [0.0, 0.1, 0.3, 1.1, 1e9 + 0.1])
def test_a_constant_column_is_not_scaled_by_its_rounding_errors(n, constant):
    scaler = RowScaler(1).fit(np.full((n, 1), constant))
    assert float(scaler([[constant + 1e-6]])) == pytest.approx(1e-6, abs=1e-6)


def test_cvae_draws_what_its_condition_says(rows):
    X, y = rows
    X = X + 6 * y[:, None]
    generator = generators.make("cvae", latent_dim=3, steps=400).fit(X, y)
    z = np.random.default_rng(0).standard_normal((200, 3))
    normal, anomalous = (generator.decode(z, np.full(200, label)) for label in (0, 1))
    assert anomalous.mean() > normal.mean() + 4


def test_cvae_partial_fit_follows_new_rows(rows):
    X, y = rows
    generator = generators.make("cvae", latent_dim=3, steps=300).fit(X, y)
    new = np.concatenate([X, np.full((200, X.shape[1]), -4.0)])
    labels = np.concatenate([y, np.ones(200, int)])

    def error() -> float:
        z = generator.encode(new[-200:], labels[-200:])
        return np.abs(generator.decode(z, labels[-200:]) - new[-200:]).mean()

    before = error()
    generator.partial_fit(new, labels)
    assert error() < before


@pytest.mark.parametrize("id", QUICK)
def test_sound_generator_has_no_fault(id):
    assert generators.check_generator(id, **QUICK[id]) == []


class Stuck(Background):
    def decode_scaled(self, z, y):
        return torch.zeros_like(z)


class Unseeded(Background):
    def sample(self, n, rng):
        return super().sample(n, np.random.default_rng())


class Grows(Background):
    def partial_fit(self, X, y):
        super().partial_fit(X, y)
        self.latent_dim += 1
        return self


class Double(Background):
    def encode_scaled(self, scaled, y):
        return scaled.double()


class NoProgress(Background):
    def __init__(self, random_state=0):
        super().__init__(random_state)


class NothingReturned(Background):
    def partial_fit(self, X, y):
        super().partial_fit(X, y)


class NeedsFolder(Background):
    def save(self, folder):
        (folder / "own").touch()
        super().save(folder)


class Forgetful(Background):
    """Decodes by what is not among its saved weights."""

    shift = 0.0

    def fit(self, X, y):
        self.shift = 1.0
        return super().fit(X, y)

    def decode_scaled(self, z, y):
        return z + self.shift


class ByBatch(Background):
    def decode_scaled(self, z, y):
        return z - z.mean(dim=0)


class Cumulative(Background):
    def decode_scaled(self, z, y):
        return z.cumsum(dim=0)


class NotFinite(Background):
    def encode_scaled(self, scaled, y):
        return scaled.log()


class DecodesNaN(Background):
    def decode_scaled(self, z, y):
        return z.log()


class SingleRows(Background):
    def decode_rows(self, z, y):
        return super().decode_rows(z, y).float()


class OneShort(Background):
    def sample(self, n, rng):
        return super().sample(n - 1, rng)


class Fixed(Background):
    def sample(self, n, rng):
        return super().sample(n, np.random.default_rng(0))


class Restless(Background):
    """Learns by draws that nobody seeds."""

    def fit(self, X, y):
        self.shift = float(np.random.default_rng().standard_normal())
        return super().fit(X, y)

    def encode_scaled(self, scaled, y):
        return scaled + self.shift


class Nobody(Background):
    def fit(self, X, y):
        super().fit(X, y)


class OthersSettings(ConditionalVAE):
    """Takes other settings than it is saved with."""

    def __init__(self, k=4, random_state=0, progress=False):
        super().__init__(k, hidden=8, steps=2, random_state=random_state)


class Unfit(Background):
    def fit(self, X, y):
        raise RuntimeError("out of order")


class Refusing(Background):
    def fit(self, X, y):
        raise InputError("These rows are refused.")


@pytest.mark.parametrize(
    ("cls", "sentence"),
    [
        (Stuck, "same row"),
        (Unseeded, "rng"),
        (Grows, "latent_dim"),
        (Double, "float32"),
        (NoProgress, "progress"),
        (NothingReturned, "must return the generator itself"),
        (Forgetful, "must decode as before"),
        (NeedsFolder, "saved into a folder that is not there yet"),
        (Restless, "random_state must encode alike"),
        (ByBatch, "depend on the other latents of the batch"),
        (Cumulative, "depend on the other latents of the batch"),
        (NotFinite, "encode must return finite latents"),
        (DecodesNaN, "decode must return finite rows"),
        (SingleRows, "decode must return float64"),
        (OneShort, "must return the shape (30, 5)"),
        (Fixed, "same rows whatever the rng"),
        (Nobody, "must return the generator"),
        (OthersSettings, "unexpected keyword argument 'latent_dim'); pass those that it takes"),
        (Unfit, "out of order"),
        (Refusing, "refused"),
        (RowScaler, "subclass"),
    ],
)
def test_each_fault_is_told_in_a_sentence(cls, sentence, monkeypatch):
    monkeypatch.setattr(generators.registry, "specs", {})
    generators.register("faulty", f"{cls.__module__}:{cls.__name__}")
    faults = generators.check_generator("faulty")
    assert any(sentence in fault for fault in faults), faults
    assert all(fault.startswith("faulty: ") and fault.endswith(".") for fault in faults)


class NoGenerator:
    def __init__(self, random_state, progress=False):
        pass


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (Nobody, "fit of the generator Nobody must return the generator"),
        (Unfit, r"The generator Unfit fails \(RuntimeError in .* out of order\)"),
        (NoGenerator, "The generator is NoGenerator; make it a subclass"),
    ],
)
def test_generators_that_fail_are_one_sentence(cls, told, rows, monkeypatch):
    monkeypatch.setattr(generators.registry, "specs", dict(generators.registry.specs))
    generators.register("failing", f"{cls.__module__}:{cls.__name__}")
    settings = HardeningSettings("extra-trees", "failing", rounds=0)
    with pytest.raises(InputError, match=told):
        harden(*rows, settings, 0)
    with pytest.raises(InputError, match=told):
        LatentAnomalyEnv(data="wine", generator="failing", detector="extra-trees")


def test_unknown_generator_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="did you mean cvae"):
        generators.make("cvea")


def make_gate(X: np.ndarray, y: np.ndarray) -> FeasibilityGate:
    return FeasibilityGate(RowScaler(X.shape[1]).fit(X)).fit(X, y, np.random.default_rng(0))


def test_gate_refuses_normals_and_passes_distant_rows(rows):
    X, y = rows
    gate = make_gate(X, y)
    assert not gate.feasible(X[y == 0]).any()
    assert gate.feasible(X[y == 0] + 20).all()


def test_gate_radius_is_the_95th_percentile_of_the_normals_own_distances(rows):
    X, y = rows
    gate = make_gate(X, y)
    normals = RowScaler(X.shape[1]).fit(X)(X[y == 0]).numpy()
    apart = np.linalg.norm(normals[:, None] - normals[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert gate.radius == pytest.approx(np.percentile(apart.min(axis=1), 95), rel=1e-4)


@pytest.mark.parametrize("dtype", [">f8", np.longdouble])
def test_rows_of_any_type_of_floats_are_encoded(rows, dtype):
    X, y = rows
    generator = generators.make("cvae", steps=3).fit(X, y)
    np.testing.assert_array_equal(generator.encode(X.astype(dtype), y), generator.encode(X, y))


@pytest.mark.parametrize("n", [1, 2, 2500])
def test_nearest_other_row(n):
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((n, 3))).float()
    apart = torch.cdist(rows, rows).fill_diagonal_(torch.inf)
    torch.testing.assert_close(nearest_other(rows), apart.amin(dim=1), rtol=1e-3, atol=1e-4)


def test_gate_does_not_mistake_repeated_rows_for_near_ones(rows):
    X, y = rows
    once, twice = make_gate(X, y), make_gate(np.concatenate([X, X]), np.concatenate([y, y]))
    assert twice.radius == pytest.approx(once.radius, rel=0.05)


@given(
    arrays(np.float32, (8, 2), elements=st.floats(-9, 9, width=16)),
    st.integers(1, 9),
    st.integers(0, 3),
)
def test_farthest_rows_lie_as_far_apart_as_the_next_one_would(X, n, n_references):
    """What is left out is no farther from those chosen than they are from each other."""
    rows, references = torch.from_numpy(X), torch.from_numpy(X[:n_references] + 1)
    chosen = farthest(rows, references, n).tolist()
    assert len(set(chosen)) == len(chosen) == min(n, len(rows))
    assert chosen == sorted(chosen)
    left = [row for row in range(len(rows)) if row not in chosen]
    if left:
        near = torch.cdist(rows[left], torch.cat([references, rows[chosen]])).amin(dim=1).max()
        for row in chosen:
            others = torch.cat([references, rows[[other for other in chosen if other != row]]])
            if len(others):
                assert torch.cdist(rows[[row]], others).min() >= near - 1e-2


def test_gate_cost_is_bounded():
    X = np.random.default_rng(0).standard_normal((5000, 2))
    gate = make_gate(X, np.zeros(5000, int))
    assert len(gate.references) == 2000


@pytest.mark.parametrize("normals", [np.zeros((1, 3)), np.ones((30, 3))])
def test_gate_survives_one_row_and_constant_columns(normals):
    X = np.concatenate([normals, np.full((2, 3), 5.0)])
    gate = make_gate(X, np.r_[np.zeros(len(normals), int), 1, 1])
    assert gate.feasible(X).tolist() == [False] * len(normals) + [True] * 2


@settings(deadline=None)
@given(
    X=arrays(
        np.float64,
        st.tuples(st.integers(2, 30), st.integers(1, 4)),
        elements=st.floats(-1e6, 1e6),
    )
)
@example(np.array([[-2.2e-309], [-1], [0], [0], [0]]))
@example(np.array([[1e-40]] * 30 + [[0]] * 68 + [[1], [2]]))
def test_scaling_is_inverted_within_the_rows_own_range(X):
    scaler = RowScaler(X.shape[1]).fit(X)
    scaled = scaler(X)
    assert scaled.isfinite().all()
    back = scaler.inverse(scaled).numpy()
    spread = X.std(axis=0) + 1e-3 * np.abs(X).max(axis=0) + 1e-6
    assert (np.abs(back - X) <= 0.02 * spread + 0.5 * scaler.whole.numpy()).all()


def test_scaling_keeps_the_order_of_rows_far_out():
    scaler = RowScaler(1).fit(np.random.default_rng(0).standard_normal((500, 1)))
    scaled = scaler(np.logspace(0, 25, 200)[:, None])[:, 0]
    assert (scaled.diff() > 0).all()


def test_nearest_distance_is_euclidean():
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.standard_normal((n, 3))) for n in (20, 30))
    torch.testing.assert_close(nearest_distance(a, b), torch.cdist(a, b).amin(dim=1))


def test_background_corrupts_normal_rows_in_three_ways_at_several_scales():
    """Normal rows are all 0 or all 1 here, and what is kept of them is seen."""
    y = np.repeat([0, 1], [300, 100])
    X = np.repeat(np.arange(300)[:, None] % 2, 20, axis=1).astype(float)
    X = np.concatenate([X, 5.5 * np.random.default_rng(0).standard_normal((100, 20))])
    generator = generators.make("background").fit(X, y)
    drawn = generator.sample(3000, np.random.default_rng(0))
    kept = np.isclose(drawn, 0, atol=1e-5) | np.isclose(drawn, 1, atol=1e-5)
    shuffled, noisy = kept.all(axis=1), ~kept.any(axis=1)
    assert shuffled.mean() == pytest.approx(1 / 3, abs=0.04)
    assert noisy.mean() == pytest.approx(1 / 3, abs=0.04)
    assert (np.ptp(drawn[shuffled], axis=1) > 0.5).mean() > 0.7
    scaled = [generator.scaler(rows).numpy() for rows in (drawn[noisy], X[:2])]
    noise = np.sqrt(np.square(scaled[0][:, None] - scaled[1]).mean(axis=2)).min(axis=1)
    assert np.quantile(noise, [0.05, 0.95]) == pytest.approx([0.1, 2], rel=0.3)


def test_background_leaves_no_normal_row_as_it_was_however_few_the_columns():
    rng, y = np.random.default_rng(0), np.repeat([0, 1], [500, 20])
    X = rng.standard_normal((520, 2))
    drawn = generators.make("background").fit(X, y).sample(2000, rng)
    as_it_was = np.isclose(drawn[:, None], X, atol=1e-5).all(axis=2).any(axis=1)
    assert as_it_was.mean() < 0.02


def test_cvae_draws_anomalies(rows):
    X, y = rows
    X = X + 6 * y[:, None]
    generator = generators.make("cvae", latent_dim=3, steps=300).fit(X, y)
    drawn = generator.sample(300, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(X[y == 1].mean(), abs=1.5)


def test_cvae_learns_from_rare_anomalies():
    rng, y = np.random.default_rng(0), np.repeat([0, 1], [2000, 5])
    X = rng.standard_normal((2005, 4)) + 8 * y[:, None]
    generator = generators.make("cvae", latent_dim=3, steps=150).fit(X, y)
    assert generator.sample(200, rng).mean() > 2


def test_cvae_encodes_by_the_label_and_as_tightly_as_beta_says(rows):
    X, y = rows
    loose, tight = (
        generators.make("cvae", latent_dim=3, steps=150, beta=beta).fit(X, y) for beta in (0.1, 20)
    )
    assert not np.allclose(loose.encode(X, y), loose.encode(X, 1 - y), atol=0.05)
    assert np.abs(loose.encode(X, y)).mean() > 2 * np.abs(tight.encode(X, y)).mean()


def test_cvaes_latents_spread_as_its_prior(rows):
    """Means and noise of the posterior together; the env perturbs and the agent starts there."""
    X, y = rows
    generator = generators.make("cvae", latent_dim=3, steps=300).fit(X, y)
    with torch.no_grad():
        mean, log_variance = generator.posterior(generator.scaler(X), torch.from_numpy(y).float())
    spread = (mean.var(dim=0) + log_variance.exp().mean(dim=0)).sqrt()
    assert ((spread > 0.6) & (spread < 1.6)).all()
    assert 0.05 < log_variance.exp().mean() < 0.5


@pytest.mark.parametrize("id", QUICK)
def test_loaded_generator_goes_on_as_the_saved_one_would(rows, id, tmp_path):
    settings = QUICK[id] | ({"steps": 90, "beta": 2.0} if id == "cvae" else {})
    generator = generators.make(id, random_state=3, **settings).fit(*rows)
    generator.save(tmp_path)
    loaded = generators.registry.load(id).load(tmp_path)
    z, y = np.ones((1, generator.latent_dim)), np.ones(1)
    goes_on, saved = (g.partial_fit(*rows).decode(z, y) for g in (loaded, generator))
    np.testing.assert_array_equal(goes_on, saved)


@pytest.mark.parametrize("unit", [1.0, 1e-20])
def test_one_wild_value_leaves_the_scale_of_a_column_as_it_was(unit):
    X = unit * np.random.default_rng(0).standard_normal((500, 1))
    X[0] = 1e6 * unit
    scaled = RowScaler(1).fit(X)(X)[1:]
    assert scaled.std() == pytest.approx(1, abs=0.1)
    assert scaled.mean() == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    ("center", "missing"), [(0, -999), (0, 999_999), (0, -1e10), (1e12, 0), (1.6e9, 2**31 - 1)]
)
def test_far_values_that_stand_for_missing_ones_leave_scale_and_gate(center, missing):
    rng = np.random.default_rng(0)
    X = center + rng.standard_normal((900, 4))
    X[500:, 0] += 6
    X[rng.random(X.shape) < 0.05] = missing
    scaled = RowScaler(4).fit(X[:500])(X[:500])
    middle = np.abs(X[:500] - center) < 3
    assert 0.5 < scaled[torch.from_numpy(middle)].std() < 1.2
    feasible = make_gate(X[:500], np.zeros(500, int)).feasible
    assert feasible(X[:500]).mean() < 0.1
    assert feasible(X[500:]).mean() > 0.8


def test_a_scaler_learns_on_the_device_that_it_is_on():
    X = np.random.default_rng(0).standard_normal((30, 3))
    scaler = RowScaler(3).to("meta").fit(X)
    assert scaler.high.device.type == scaler(X).device.type == "meta"


def test_rows_stay_within_32_bit_floats():
    largest = float(np.finfo(np.float32).max)
    X = np.linspace(-largest, largest, 300)[:, None]
    rows = RowScaler(1).fit(X).inverse(torch.tensor([[-99.0], [99.0]]))
    assert rows.tolist() == [[-largest], [largest]]


def test_column_that_varies_in_a_few_rows_only_is_scaled_by_them():
    X = np.zeros((500, 1))
    X[:3] = 1e-9
    assert RowScaler(1).fit(X)(X)[0] > 2


@pytest.mark.parametrize("make", [generators.make, detectors.make])
def test_torchs_global_generator_is_untouched(rows, make, tmp_path):
    before = torch.get_rng_state()
    fitted = make("cvae" if make is generators.make else "mamba-moe", steps=3).fit(*rows)
    assert torch.equal(torch.get_rng_state(), before)
    fitted.save(tmp_path)
    type(fitted).load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_gate_refers_to_normal_rows_of_the_whole_table():
    X = np.sort(np.random.default_rng(0).uniform(0, 100, 6000))[:, None]
    assert make_gate(X, np.zeros(6000, int)).feasible(X).mean() < 0.1
