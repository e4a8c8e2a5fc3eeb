"""What every protocol promises of every table, and each protocol of its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import data
from common.errors import InputError
from data import Split, Table

ADBENCH = Path(__file__).parents[2] / "shared" / "adbench"

protocols = st.sampled_from(data.PROTOCOLS)
seeds = st.integers(0, 2**32)


def make_table(sizes, seed=0):
    """A table of distinct rows; sizes are those of the normal rows and of each anomaly kind.

    The kinds lie far apart on a circle around the normal rows.
    """
    kind = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    noise = np.random.default_rng(seed + 1).normal(size=(len(kind), 2))
    angle = 2 * np.pi * kind / (len(sizes) - 1)
    X = noise + 100 * (kind > 0)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Table(X, (kind > 0).astype(np.int64), ["a", "b"], "made", kind)


def without_kinds(table):
    return replace(table, kind=None)


@st.composite
def tables(draw):
    """Tables of two to five kinds, told or not, large enough for a kind to be on both sides."""
    kinds = draw(st.lists(st.integers(10, 40), min_size=2, max_size=5))
    table = make_table([draw(st.integers(20, 200)), *kinds], draw(st.integers(0, 99)))
    return table if draw(st.booleans()) else without_kinds(table)


def numbers(table, X):
    """The numbers in `table` of the rows of `X`."""
    number = {row.tobytes(): i for i, row in enumerate(table.X)}
    return np.array([number[row.tobytes()] for row in X])


def kinds(table, X):
    """The kinds of anomalies among the rows of `X`."""
    return set(table.kind[numbers(table, X)]) - {0}


def same(one, other):
    fields = ("X_train", "y_train", "X_test", "y_test")
    return all(np.array_equal(getattr(one, field), getattr(other, field)) for field in fields)


# Every protocol


@given(tables(), protocols, seeds)
@settings(max_examples=100, deadline=None)
def test_sides_are_disjoint_unscaled_rows_with_both_classes(table, protocol, seed):
    split = data.split(table, protocol, seed)
    assert isinstance(split, Split)
    train, test = numbers(table, split.X_train), numbers(table, split.X_test)
    assert len(set(train) | set(test)) == len(train) + len(test)
    assert set(split.y_train) == set(split.y_test) == {0, 1}
    assert (split.y_train <= table.y[train]).all()
    np.testing.assert_array_equal(split.y_test, table.y[test])
    assert split.X_train.dtype == split.X_test.dtype == np.float64
    assert split.y_train.dtype == split.y_test.dtype == np.int64


@given(tables(), protocols, seeds)
@settings(max_examples=30, deadline=None)
def test_a_seed_fixes_the_split_and_the_global_generator_is_untouched(table, protocol, seed):
    before = str(np.random.get_state(legacy=False))  # noqa: NPY002
    first, second = (data.split(table, protocol, seed) for _ in range(2))
    assert same(first, second)
    assert str(np.random.get_state(legacy=False)) == before  # noqa: NPY002


@pytest.mark.parametrize("protocol", ["full", data.ALL])
@pytest.mark.parametrize("seed", [-1, None])
def test_a_seed_that_is_none_is_refused(seed, protocol):
    with pytest.raises(InputError, match="seed is"):
        data.split(data.load("wine"), protocol, seed)


@pytest.mark.parametrize("protocol", data.PROTOCOLS)
def test_another_seed_gives_another_split(protocol):
    table = make_table([100, 20, 20])
    assert not same(data.split(table, protocol, 0), data.split(table, protocol, 1))


@pytest.mark.parametrize("protocol", [*data.PROTOCOLS, data.ALL])
def test_the_table_is_left_as_it_was(protocol):
    table, twin = make_table([100, 20, 20]), make_table([100, 20, 20])
    split = data.split(table, protocol, 0)
    split.X_train[:] = split.y_train[:] = split.X_test[:] = split.y_test[:] = -1
    for field in ("X", "y", "kind"):
        np.testing.assert_array_equal(getattr(table, field), getattr(twin, field))


@given(tables(), st.sampled_from(["full", "few"]), seeds)
@settings(max_examples=50, deadline=None)
def test_forty_percent_of_each_class_are_for_training(table, protocol, seed):
    split = data.split(table, protocol, seed)
    assert len(split.X_train) + len(split.X_test) == len(table.X)
    for label in (0, 1):
        share = (table.y[numbers(table, split.X_train)] == label).sum()
        assert abs(share - 0.4 * (table.y == label).sum()) <= 0.5


@given(tables(), protocols, seeds, st.data())
@settings(max_examples=50, deadline=None)
def test_duplicate_rows_are_dropped(table, protocol, seed, draw):
    repeats = draw.draw(st.lists(st.integers(0, len(table.y) - 1), min_size=1, max_size=50))
    longer = table.take(np.concatenate([np.arange(len(table.y)), repeats]))
    assert same(data.split(longer, protocol, seed), data.split(table, protocol, seed))


@pytest.mark.parametrize("normal_first", [True, False])
def test_a_row_with_both_labels_is_an_anomaly(normal_first):
    table = make_table([100, 20])
    anomaly = np.flatnonzero(table.y)[:1]
    normal = replace(table.take(anomaly), y=np.array([0]), kind=np.array([0]))
    parts = [normal, table] if normal_first else [table, normal]
    both = replace(
        table,
        **{f: np.concatenate([getattr(part, f) for part in parts]) for f in ("X", "y", "kind")},
    )
    split = data.split(both, "full", 0)
    X, y = np.concatenate([split.X_train, split.X_test]), np.append(split.y_train, split.y_test)
    assert y[(table.X[anomaly] == X).all(axis=1)].tolist() == [1]
    assert len(y) == 120


@pytest.mark.parametrize(
    ("n_normals", "n_anomalies", "kept"),
    [
        (9_000, 1_000, 1_000),
        (18_000, 2_000, 1_000),
        (20_000, 40, 30),
        (20_000, 12, 12),
        (12, 20_000, 9_988),
    ],
)
def test_at_most_10000_rows_are_kept(n_normals, n_anomalies, kept):
    table = make_table([n_normals, n_anomalies])
    split = data.split(table, "full", 0)
    assert len(split.y_train) + len(split.y_test) == 10_000
    assert split.y_train.sum() + split.y_test.sum() == kept
    assert split.y_train.sum() == round(0.4 * kept)


@pytest.mark.parametrize("name", ["ful", "Unseen", "semi"])
def test_unknown_protocol(name):
    with pytest.raises(InputError, match=f"Unknown protocol '{name}'; (did you mean|choose from)"):
        data.split(make_table([50, 10]), name, 0)


@pytest.mark.parametrize("protocol", data.PROTOCOLS)
@pytest.mark.parametrize("label", [0, 1])
def test_a_class_of_one_distinct_row_cannot_be_split(protocol, label):
    table = make_table([50, 50])
    table.X[table.y == label] = 7.0
    with pytest.raises(InputError, match=r"made: the protocol .* leaves no distinct"):
        data.split(table, protocol, 0)


# all


@given(tables(), seeds, st.data())
@settings(max_examples=30, deadline=None)
def test_all_trains_on_every_distinct_row_and_holds_none_out(table, seed, draw):
    repeats = draw.draw(st.lists(st.integers(0, len(table.y) - 1), max_size=50))
    longer = table.take(np.concatenate([np.arange(len(table.y)), repeats]).astype(int))
    split = data.split(longer, data.ALL, seed)
    np.testing.assert_array_equal(split.X_train, table.X)
    np.testing.assert_array_equal(split.y_train, table.y)
    assert split.X_test.shape == (0, 2)
    assert split.y_test.shape == (0,)


def test_all_keeps_more_than_10000_rows():
    table = make_table([18_000, 2_000])
    assert len(data.split(table, data.ALL, 0).y_train) == 20_000


def test_all_needs_a_distinct_normal_row():
    table = make_table([50, 50])
    table.X[:] = 7.0
    with pytest.raises(InputError, match=r"no distinct normal row for the .*; add rows\.$"):
        data.split(table, data.ALL, 0)


# few


@given(tables(), seeds)
@settings(max_examples=50, deadline=None)
def test_few_is_full_with_five_labels(table, seed):
    full, few = data.split(table, "full", seed), data.split(table, "few", seed)
    np.testing.assert_array_equal(full.y_train, table.y[numbers(table, full.X_train)])
    np.testing.assert_array_equal(few.X_train, full.X_train)
    np.testing.assert_array_equal(few.X_test, full.X_test)
    assert full.y_train.sum() > 5
    assert few.y_train.sum() == 5


def test_few_labels_all_where_there_are_fewer():
    assert data.split(make_table([50, 10]), "few", 0).y_train.sum() == 4


# unseen


@given(tables(), seeds)
@settings(max_examples=50, deadline=None)
def test_unseen_is_full_without_some_anomalies(table, seed):
    full, unseen = data.split(table, "full", seed), data.split(table, "unseen", seed)
    for side in ("train", "test"):
        X, y = getattr(unseen, f"X_{side}"), getattr(unseen, f"y_{side}")
        np.testing.assert_array_equal(y, table.y[numbers(table, X)])
        before = getattr(full, f"X_{side}")
        assert set(numbers(table, X)) <= set(numbers(table, before))
        assert (y == 0).sum() == (getattr(full, f"y_{side}") == 0).sum()


@given(tables(), seeds)
@settings(max_examples=50, deadline=None)
def test_the_lowest_true_kinds_are_known_and_higher_ones_unseen(table, seed):
    assume(table.kind is not None)
    split = data.split(table, "unseen", seed)
    known, unseen = kinds(table, split.X_train), kinds(table, split.X_test)
    assert max(known) < min(unseen)


@pytest.mark.parametrize("constant", [0.1, 0.3, 1.1])
@pytest.mark.parametrize("size", [50, 57, 61, 70])
def test_a_constant_column_does_not_move_the_clusters(size, constant):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((size + 40, 3)), np.repeat([0, 1], [size, 40])
    known = []
    for columns in (X, np.column_stack([X, np.full(len(X), constant)])):
        names = [f"c{i}" for i in range(columns.shape[1])]
        split = data.split(data.Table(columns, y, names, "made up"), "unseen", 0)
        known.append(split.X_train[split.y_train == 1, :3])
    np.testing.assert_array_equal(*known)


@pytest.mark.parametrize(
    ("sizes", "known"),
    [
        ([50, 20, 20], {1}),
        ([50, 60, 20, 20], {1}),
        ([50, 10, 40, 60], {1, 2}),
        ([50, 10, 10, 80], {1, 2}),
        ([50, 20, 20, 20, 30, 10], {1, 2}),
    ],
)
def test_about_half_of_the_anomalies_are_known(sizes, known):
    table = make_table(sizes)
    split = data.split(table, "unseen", 0)
    assert kinds(table, split.X_train) == known
    assert kinds(table, split.X_test) == set(range(1, len(sizes))) - known


def test_unseen_digits_are_ones():
    table = data.load("digits")
    split = data.split(table, "unseen", 0)
    assert kinds(table, split.X_train) == {1}
    assert kinds(table, split.X_test) == {2}


@given(
    st.lists(st.integers(20, 40), min_size=4, max_size=4),
    st.integers(0, 99),
    seeds,
    st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)),
)
@settings(max_examples=25, deadline=None)
def test_untold_kinds_are_found_by_clustering_whatever_the_units(sizes, made, seed, units):
    table = make_table([200, *sizes], made)
    table.X[:] *= units
    split = data.split(without_kinds(table), "unseen", seed)
    known, unseen = kinds(table, split.X_train), kinds(table, split.X_test)
    assert known | unseen == {1, 2, 3, 4}
    assert not known & unseen


def test_a_single_true_kind_is_clustered():
    table = make_table([200, 30, 30, 30, 30])
    one_kind = replace(table, kind=table.y)
    assert same(data.split(one_kind, "unseen", 0), data.split(without_kinds(table), "unseen", 0))


def test_the_known_clusters_depend_on_the_seed():
    table = make_table([200, 30, 30, 30, 30])
    splits = [data.split(without_kinds(table), "unseen", seed) for seed in range(20)]
    assert len({frozenset(kinds(table, split.X_train)) for split in splits}) > 2


@pytest.mark.parametrize("sizes", [[7, 7], [8, 8, 8], [10, 10, 10, 10]])
def test_clusters_are_as_many_as_the_anomalies_allow(sizes):
    table = make_table([200, *sizes])
    split = data.split(without_kinds(table), "unseen", 0)
    known, unseen = kinds(table, split.X_train), kinds(table, split.X_test)
    assert known | unseen == set(range(1, len(sizes) + 1))
    assert not known & unseen


def test_a_side_without_anomalies_is_refused():
    table = make_table([50, 3, 1])
    outcomes = set()
    for seed in range(20):
        try:
            data.split(table, "unseen", seed)
            outcomes.add("split")
        except InputError as error:
            outcomes.add(str(error).partition("leaves ")[2].partition(";")[0])
    assert "split" in outcomes
    assert "no distinct anomaly for the test rows" in outcomes


# Real sets


@pytest.mark.parametrize("protocol", data.PROTOCOLS)
@pytest.mark.parametrize("name", data.BUILTIN)
def test_builtin_sets_split(name, protocol):
    split = data.split(data.load(name), protocol, 0)
    assert split.y_train.sum() >= 5
    assert split.y_test.sum() >= 5


@pytest.mark.skipif(not ADBENCH.is_dir(), reason=f"{ADBENCH} is not there")
@pytest.mark.parametrize("protocol", data.PROTOCOLS)
@pytest.mark.parametrize("name", ["12_fault", "18_Ionosphere", "34_smtp", "8_celeba"])
def test_adbench_sets_split(monkeypatch, name, protocol):
    monkeypatch.setenv("SWIFT_HYDRA_CACHE", str(ADBENCH))
    split = data.split(data.load(f"adbench:{name}"), protocol, 0)
    rows = np.concatenate([split.X_train, split.X_test])
    assert len(np.unique(rows, axis=0)) == len(rows) <= 10_000
    assert set(split.y_train) == set(split.y_test) == {0, 1}


@pytest.mark.parametrize("label", [0, 1])
def test_rows_that_are_kept_come_from_the_whole_table(label):
    y = np.repeat([0, 1], [18_000, 6_000])
    X = np.arange(len(y), dtype=float)[:, None]
    split = data.split(Table(X, y, ["a"], "made"), "full", 0)
    rows = np.concatenate([split.X_train, split.X_test])
    labels = np.append(split.y_train, split.y_test)
    assert rows[labels == label].mean() == pytest.approx(X[y == label].mean(), rel=0.02)


def test_the_five_labels_are_drawn_from_all_training_anomalies():
    y = np.repeat([0, 1], [100, 100])
    table = Table(np.arange(200.0)[:, None], y, ["a"], "made")
    splits = [data.split(table, "few", seed) for seed in range(20)]
    labelled = np.concatenate([split.X_train[split.y_train == 1] for split in splits])
    assert labelled.mean() == pytest.approx(150, abs=15)


def test_clusters_are_measured_in_units_of_the_training_rows():
    rng, y = np.random.default_rng(0), np.repeat([0, 1], [200, 80])
    X = rng.standard_normal((280, 2))
    X[200:240, 0] += 20
    X[240:, 1] += 20
    first = data.split(Table(X, y, ["a", "b"], "made"), "unseen", 0)
    far = X.copy()
    in_test = (X[:, None] == first.X_test[first.y_test == 0]).all(axis=2).any(axis=1)
    far[in_test, 0] *= 1e4
    again = data.split(Table(far, y, ["a", "b"], "made"), "unseen", 0)
    np.testing.assert_array_equal(again.X_train, first.X_train)


def test_repeated_rows_take_no_place_among_those_kept():
    X = np.random.default_rng(0).normal(size=(10_000, 2))
    once = Table(X, (np.arange(10_000) < 1_000).astype(np.int64), ["a", "b"], "made")
    halves = data.split(once.take(np.tile(np.arange(10_000), 2)), "full", 0)
    assert len(halves.y_train) + len(halves.y_test) == 10_000
