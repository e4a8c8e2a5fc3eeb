"""Every source of rows, and every row that is refused."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import pyarrow as pa
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.parquet import write_table

import data
from common.errors import InputError
from data.adbench_sums import SHA256
from data.files import read_rows

ADBENCH = Path(__file__).parents[2] / "shared" / "adbench"
needs_adbench = pytest.mark.skipif(not ADBENCH.is_dir(), reason=f"{ADBENCH} is not there")


def frame(n=40, n_anomalies=8):
    rng = np.random.default_rng(0)
    columns = {"speed": rng.normal(size=n), "count": rng.integers(9, size=n)}
    return pd.DataFrame({**columns, "label": (np.arange(n) < n_anomalies).astype(int)})


def with_value(column, row, value):
    """The good frame with one value, in a row counted from 1, replaced."""
    changed = frame().astype({column: object})
    changed.loc[row - 1, column] = value
    return changed


def arrays():
    good = frame()
    return good[["speed", "count"]].to_numpy(), good["label"].to_numpy()


def refusal(source, **arguments):
    """The sentence with which a source is refused."""
    with pytest.raises(InputError) as caught:
        data.load(str(source), **arguments)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence[-1] in ".?"
    return sentence


def csv_refusal(folder, rows, **arguments):
    rows.to_csv(folder / "rows.csv", index=False)
    sentence = refusal(folder / "rows.csv", **arguments)
    assert "rows.csv" in sentence
    return sentence


def npz_refusal(folder, **held):
    np.savez(folder / "rows.npz", **held)
    sentence = refusal(folder / "rows.npz")
    assert "rows.npz" in sentence
    return sentence


# Built-in sets


@pytest.mark.parametrize(
    ("name", "shape", "n_anomalies"),
    [("digits", (1797, 64), 360), ("breast-cancer", (569, 30), 212), ("wine", (178, 13), 48)],
)
def test_builtin_set(name, shape, n_anomalies):
    table = data.load(name)
    assert table.name == name
    assert name in data.BUILTIN
    assert table.X.shape == shape
    assert table.X.dtype == np.float64
    assert table.y.dtype == np.int64
    assert table.y.sum() == n_anomalies
    assert len(table.feature_names) == shape[1]
    assert all(type(feature) is str for feature in table.feature_names)


def test_digits_knows_its_kinds():
    table = data.load("digits")
    assert table.kind is not None
    assert table.kind.dtype == np.int64
    assert np.bincount(table.kind).tolist() == [1437, 178, 182]
    np.testing.assert_array_equal(table.kind > 0, table.y == 1)


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("digts", "did you mean digits?"),
        ("breast_cancer", "did you mean breast-cancer?"),
        ("zzzz", "choose from <a file that exists>, adbench:<name>, breast-cancer, digits, wine."),
    ],
)
def test_unknown_name_gives_near_misses(source, hint):
    sentence = refusal(source)
    assert repr(source) in sentence
    assert hint in sentence


# Files


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".CSV"])
def test_frame_is_read_back(tmp_path, suffix):
    rows, path = frame(), tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        rows.to_parquet(path)
    else:
        rows.to_csv(path, index=False)
    table = data.load(str(path))
    np.testing.assert_array_equal(table.X, rows[["speed", "count"]].to_numpy(np.float64))
    np.testing.assert_array_equal(table.y, rows["label"])
    assert (table.X.dtype, table.y.dtype) == (np.float64, np.int64)
    assert table.feature_names == ["speed", "count"]
    assert table.name == str(path)
    assert table.kind is None


def test_label_column_is_a_choice(tmp_path):
    rows = frame().rename(columns={"label": "speed", "speed": "label"})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    table = data.load(str(tmp_path / "rows.csv"), label_column="speed")
    assert sorted(table.feature_names) == ["count", "label"]
    np.testing.assert_array_equal(table.y, rows["speed"])


def test_npz_is_read_back(tmp_path):
    X, y = arrays()
    np.savez(tmp_path / "rows.npz", X=X.astype(np.float32), y=y.astype(np.uint8))
    table = data.load(str(tmp_path / "rows.npz"))
    np.testing.assert_array_equal(table.X, X.astype(np.float32))
    np.testing.assert_array_equal(table.y, y)
    assert (table.X.dtype, table.y.dtype) == (np.float64, np.int64)
    assert table.feature_names == ["x1", "x2"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_booleans_are_cast(tmp_path, suffix):
    rows = frame()
    rows = rows.assign(label=rows["label"] == 1, even=rows["count"] % 2 == 0)
    path = tmp_path / f"rows{suffix}"
    rows.to_csv(path, index=False) if suffix == ".csv" else rows.to_parquet(path)
    table = data.load(str(path))
    np.testing.assert_array_equal(table.y, rows["label"])
    np.testing.assert_array_equal(table.X[:, table.feature_names.index("even")], rows["even"])


def test_nullable_booleans_and_numbers_held_as_text_are_cast(tmp_path):
    rows = frame()
    typed = rows.astype({"label": "boolean", "speed": "category", "count": str})
    typed.to_parquet(tmp_path / "rows.parquet")
    table = data.load(str(tmp_path / "rows.parquet"))
    np.testing.assert_array_equal(table.X, rows[["speed", "count"]].to_numpy())
    np.testing.assert_array_equal(table.y, rows["label"])


# Refused sources


@pytest.mark.parametrize("name", ["rows.csv", "no/such/folder/rows", "./rows"])
def test_missing_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    sentence = refusal(name)
    assert str(Path(name)) in sentence
    assert "does not exist" in sentence


def test_folder(tmp_path):
    assert "is a folder" in refusal(tmp_path)


def test_unknown_suffix(tmp_path):
    (tmp_path / "rows.xlsx").write_bytes(b"")
    sentence = refusal(tmp_path / "rows.xlsx")
    assert "rows.xlsx" in sentence
    assert ".npz, .csv or .parquet" in sentence


@pytest.mark.parametrize("source", ["digits", "adbench:6_cardio", "rows.npz", "ROWS.NPZ"])
def test_no_column_of_labels_is_named_where_there_is_none_to_choose(source):
    with pytest.raises(InputError, match=f"^{source} has labels of its own; leave out .*'fraud'"):
        data.load(source, "fraud")


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\xff\x00", b"PK\x03\x04\xff"])
def test_corrupt_file(tmp_path, suffix, content):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    assert path.name in refusal(path)


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    X, y = arrays()
    np.savez_compressed(folder / "rows.npz", X=X, y=y)
    frame().to_csv(folder / "rows.csv", index=False)
    frame().to_parquet(folder / "rows.parquet")
    return [folder / f"rows{suffix}" for suffix in (".npz", ".csv", ".parquet")]


@given(draw=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_bytes_are_refused_or_read_never_a_crash(good_files, draw):
    good = draw.draw(st.sampled_from(good_files))
    content = bytearray(good.read_bytes())
    del content[draw.draw(st.integers(1, len(content))) :]
    for _ in range(draw.draw(st.integers(0, 4))):
        content[draw.draw(st.integers(0, len(content) - 1))] = draw.draw(st.integers(0, 255))
    damaged = good.with_name(f"damaged{good.suffix}")
    damaged.write_bytes(content)
    try:
        table = data.load(str(damaged))
    except InputError:
        return
    assert np.isfinite(table.X).all()
    assert set(table.y) == {0, 1}


def test_npz_without_x_and_y(tmp_path):
    sentence = npz_refusal(tmp_path, features=arrays()[0], y=arrays()[1])
    assert "arrays X and y, not features, y" in sentence


def test_plain_array_in_an_npz_file(tmp_path):
    with (tmp_path / "rows.npz").open("wb") as stream:
        np.save(stream, arrays()[0])
    assert "arrays X and y, not none" in refusal(tmp_path / "rows.npz")


class Unpickled:
    def __reduce__(self):
        return pytest.fail, ("an object was unpickled",)


@pytest.mark.parametrize("held", ["X", "y"])
def test_object_arrays_are_never_unpickled(tmp_path, held):
    X, y = arrays()
    objects = np.array([Unpickled()] * len(X), dtype=object)
    assert "pickle" in npz_refusal(tmp_path, **{"X": X, "y": y, held: objects})


# Refused rows


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (np.zeros(40), np.zeros(40), "X must have the shape (n, d), not (40,)"),
        (np.zeros((40, 2, 2)), np.zeros(40), "X must have the shape (n, d), not (40, 2, 2)"),
        (np.zeros((40, 2)), np.zeros((40, 1)), "y must have the shape (n,), not (40, 1)"),
        (np.zeros((40, 2)), np.zeros(39), "40 rows but y 39 labels"),
        (np.zeros((40, 2), [("a", float)]), np.zeros(40), "X holds records of a"),
        (np.zeros((40, 2)), np.zeros(40, [("y", int)]), "y holds records of y; give numbers"),
        (np.zeros(40, [("a", float)]), np.zeros(40), "X holds records of a"),
        (np.zeros((40, 2), "V8"), np.zeros(40), "X holds raw bytes; give numbers"),
        (np.zeros((40, 0)), np.arange(40) < 8, "no feature columns"),
        (np.full((40, 2), 1j), np.arange(40) < 8, "column 'x1' holds '1j' in row 1"),
        (np.full((40, 2), "red"), np.arange(40) < 8, "column 'x1' holds 'red' in row 1"),
    ],
)
def test_unfit_arrays(tmp_path, X, y, words):
    assert words in npz_refusal(tmp_path, X=X, y=y)


def test_missing_label_column_gives_near_misses(tmp_path):
    sentence = csv_refusal(tmp_path, frame().rename(columns={"label": "Label"}))
    assert (
        "no label column 'label'; rename one, or pass --label-column to train.py or score.py: "
        in sentence
    )
    assert sentence.endswith("did you mean 'Label'?")


def test_a_feature_is_not_proposed_as_the_label(tmp_path):
    sentence = csv_refusal(tmp_path, frame().rename(columns={"label": "fraud", "speed": "age"}))
    assert sentence.endswith("it has age, count, fraud.")


def test_blanks_around_a_name_are_seen(tmp_path):
    sentence = csv_refusal(tmp_path, frame().rename(columns={"label": " label"}))
    assert "did you mean ' label'?" in sentence


def test_a_label_in_the_index_is_found_there(tmp_path):
    frame().set_index("label").to_parquet(tmp_path / "rows.parquet")
    assert "'label' is the index; write it as a column" in refusal(tmp_path / "rows.parquet")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read anything")
@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_a_file_that_may_not_be_read_is_told_as_such(tmp_path, suffix):
    (tmp_path / f"rows{suffix}").touch(mode=0)
    with pytest.raises(PermissionError):
        data.load(tmp_path / f"rows{suffix}")


def test_a_blank_line_is_a_missing_value_where_there_is_one_column(tmp_path):
    (tmp_path / "one.csv").write_text("a\n1\n\n2\n")
    with pytest.raises(InputError, match="'a' misses a value in row 2"):
        read_rows(tmp_path / "one.csv", ["a"])
    (tmp_path / "two.csv").write_text("a,b\n1,3\n\n2,4\n\n")
    assert len(read_rows(tmp_path / "two.csv", ["a"])[1]) == 2


@pytest.mark.parametrize("ids", [range(5000, 5040), range(40), range(40, 0, -1)])
def test_a_named_index_is_among_the_rows_whatever_it_holds(tmp_path, ids):
    frame().set_index(pd.Index(ids, name="customer")).to_parquet(tmp_path / "rows.parquet")
    kept, X, _ = read_rows(tmp_path / "rows.parquet", ["speed", "count"])
    assert kept.columns.tolist() == ["customer", "speed", "count", "label"]
    assert kept["customer"].tolist() == list(ids)
    assert X.shape == (40, 2)


def test_missing_label_column_lists_at_most_ten_columns(tmp_path):
    rows = pd.DataFrame(np.zeros((40, 30)), columns=[f"q{i}" for i in range(30)])
    sentence = csv_refusal(tmp_path, rows)
    assert "q0, q1, " in sentence
    assert "q9, ..." in sentence
    assert "q10" not in sentence


def test_no_feature_columns(tmp_path):
    assert "no feature columns" in csv_refusal(tmp_path, frame()[["label"]])


@pytest.mark.parametrize("label", [2, -1, 0.5, "yes", np.inf])
def test_labels_other_than_0_and_1(tmp_path, label):
    sentence = csv_refusal(tmp_path, with_value("label", 7, label))
    assert "column 'label'" in sentence
    assert "row 7" in sentence
    assert "0 (normal) or 1 (anomaly)" in sentence


def test_a_row_without_a_label_is_told_as_such(tmp_path):
    sentence = csv_refusal(tmp_path, with_value("label", 7, None))
    assert "misses a label in row 7; give 0 to rows that are not known" in sentence


def test_labels_the_wrong_way_round_are_warned_of(tmp_path):
    frame(n_anomalies=30).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.warns(UserWarning, match=r"rows.csv: 75% of the rows have the label 1"):
        data.load(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "column 'count' misses a value in row 12; impute"),
        (np.inf, "column 'count' is infinite, or beyond what 32 bits hold, in row 12"),
        (-np.inf, "column 'count' is infinite, or beyond what 32 bits hold, in row 12"),
        (1e39, "column 'count' is infinite, or beyond what 32 bits hold, in row 12"),
        (-1.7e308, "column 'count' is infinite, or beyond what 32 bits hold, in row 12"),
        ("red", "column 'count' holds 'red' in row 12, not a number"),
        ("2024-05-01", "column 'count' holds '2024-05-01' in row 12, not a number"),
        ("11,766.00", "holds '11,766.00' in row 12, not a number; write it as a plain"),
    ],
)
def test_bad_feature_value_is_named(tmp_path, value, words):
    assert words in csv_refusal(tmp_path, with_value("count", 12, value))


def test_the_first_bad_row_is_named(tmp_path):
    rows = frame()
    rows.loc[[5, 30], "speed"] = np.nan
    assert "row 6;" in csv_refusal(tmp_path, rows)


def test_long_text_is_shortened(tmp_path):
    sentence = csv_refusal(tmp_path, with_value("count", 1, "long " * 1000))
    assert len(sentence) < 300


def test_dates_are_no_numbers(tmp_path):
    rows = frame().assign(day=pd.date_range("2024-01-01", periods=40))
    rows.to_parquet(tmp_path / "rows.parquet")
    sentence = refusal(tmp_path / "rows.parquet")
    assert "column 'day' holds '2024-01-01 00:00:00' in row 1, not a number" in sentence


def test_a_boolean_column_with_a_gap_misses_a_value(tmp_path):
    assert "'count' misses a value in row 3" in csv_refusal(
        tmp_path, with_value("count", 3, None).assign(count=[True, False, None, True] * 10)
    )


@pytest.mark.parametrize(
    ("n", "n_anomalies", "words"),
    [
        (40, 0, "holds no anomalies (label 1); give at least 4"),
        (40, 3, "holds 3 anomalies (label 1); give at least 4"),
        (40, 40, "holds no normal rows (label 0); give at least 4"),
        (40, 37, "holds 3 normal rows (label 0); give at least 4"),
        (19, 8, "holds 19 rows; give at least 20"),
        (0, 0, "holds 0 rows; give at least 20"),
    ],
)
def test_too_few_rows(tmp_path, n, n_anomalies, words):
    assert words in csv_refusal(tmp_path, frame(n, n_anomalies))


@pytest.mark.parametrize(("n", "n_anomalies"), [(20, 4), (20, 16)])
@pytest.mark.filterwarnings("ignore:.*the label 1")
def test_the_fewest_rows_are_enough(tmp_path, n, n_anomalies):
    frame(n, n_anomalies).to_csv(tmp_path / "rows.csv", index=False)
    assert data.load(str(tmp_path / "rows.csv")).y.sum() == n_anomalies


def test_repeated_column_is_refused(tmp_path):
    (tmp_path / "twice.csv").write_text("a,label,label\n" + "1,0,0\n" * 40)
    with pytest.raises(InputError, match="two columns called 'label'"):
        data.load(str(tmp_path / "twice.csv"))


@pytest.mark.parametrize("rows", ["1;0\n", "1,5;0\n", "1,5;0,0\n", "1;0\n1;0,5\n1,5;0,5\n"])
def test_semicolons_are_told(tmp_path, rows):
    (tmp_path / "semicolons.csv").write_text("a;label\n" + rows * 40)
    with pytest.raises(InputError, match="semicolons"):
        data.load(str(tmp_path / "semicolons.csv"))


@pytest.mark.parametrize(("mark", "name"), [("\t", "tabs"), ("|", "bars")])
def test_other_separators_are_told(tmp_path, mark, name):
    frame().to_csv(tmp_path / "rows.csv", sep=mark, index=False)
    assert f"parts values by {name}" in refusal(tmp_path / "rows.csv")


def test_a_line_for_spreadsheets_is_told(tmp_path):
    (tmp_path / "rows.csv").write_text("sep=,\n" + frame().to_csv(index=False))
    assert "begins with 'sep='; delete that line" in refusal(tmp_path / "rows.csv")


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "rows.csv")
    assert "is no regular file" in refusal(tmp_path / "rows.csv")


def test_a_cache_that_is_a_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SWIFT_HYDRA_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="is a file; name a folder in SWIFT_HYDRA_CACHE"):
        data.load("adbench:wine")


def test_a_name_may_hold_a_semicolon(tmp_path):
    frame().rename(columns={"speed": "a;b"}).to_csv(tmp_path / "rows.csv", index=False)
    assert "a;b" in data.load(tmp_path / "rows.csv").feature_names


def test_other_text_than_utf_8_and_no_text_are_told(tmp_path):
    frame().rename(columns={"speed": "Höhe"}).to_csv(tmp_path / "rows.csv", encoding="latin-1")
    assert "save it as UTF-8" in refusal(tmp_path / "rows.csv")
    (tmp_path / "rows.csv").write_text("")
    assert "rows.csv is empty" in refusal(tmp_path / "rows.csv")


def test_a_comma_at_the_end_of_lines_is_told(tmp_path):
    lines = frame().to_csv(index=False).splitlines()
    (tmp_path / "rows.csv").write_text("".join(f"{line},\n" for line in lines))
    n_columns = len(frame().columns)
    assert f"column {n_columns + 1} has no name" in refusal(tmp_path / "rows.csv")


def test_two_columns_of_a_parquet_file_with_one_name_are_told(tmp_path):
    columns = [pa.array(range(40)), pa.array(range(40)), pa.array([0, 1] * 20)]
    write_table(pa.table(columns, names=["b", "b", "label"]), tmp_path / "rows.parquet")
    assert "two columns called 'b'" in refusal(tmp_path / "rows.parquet")


def test_rows_are_no_source():
    with pytest.raises(InputError, match="not from DataFrame"):
        data.load(frame())


def test_integer_beyond_float64_is_named(tmp_path):
    lines = ["a,label", *(f"{i},{i % 2}" for i in range(40))]
    lines[7] = "1" * 400 + ",0"
    (tmp_path / "long.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"column 'a' .* in row 7"):
        data.load(str(tmp_path / "long.csv"))


@pytest.mark.parametrize("counted", [False, True])
def test_rows_longer_than_the_header(tmp_path, counted):
    """Where the first column counts up, pandas makes of it the index that it makes of none."""
    rows = frame().assign(speed=range(40)) if counted else frame()
    header, *lines = rows.to_csv(index=False).splitlines()
    (tmp_path / "rows.csv").write_text("\n".join([header, *(f"{line},9" for line in lines)]))
    assert "more values than the header" in refusal(tmp_path / "rows.csv")


# ADBench


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("SWIFT_HYDRA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def downloads(monkeypatch):
    """The addresses downloaded from; each holds the bytes or raises the error set in `content`."""

    class Server:
        def __init__(self):
            self.addresses = []
            self.content = requests.ConnectionError("no route to host")

        def __call__(self, downloader, url, output_file, pooch, check_only=False):
            self.addresses.append(url)
            if isinstance(self.content, Exception):
                raise self.content
            Path(output_file).write_bytes(self.content)

    server = Server()
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", lambda *args, **kw: server(*args, **kw))
    return server


@pytest.fixture
def good_npz(good_files):
    return good_files[0].read_bytes()


@pytest.mark.parametrize("name", ["12_fault", "fault"])
def test_adbench_set_is_downloaded_once(cache, downloads, good_npz, monkeypatch, name):
    downloads.content = good_npz
    monkeypatch.setitem(SHA256, "12_fault.npz", hashlib.sha256(good_npz).hexdigest())
    table = data.load(f"adbench:{name}")
    again = data.load(f"adbench:{name}")
    assert downloads.addresses == [
        "https://raw.githubusercontent.com/Minqi824/ADBench/main/adbench/datasets/Classical/"
        "12_fault.npz"
    ]
    assert table.name == "adbench:12_fault"
    np.testing.assert_array_equal(table.X, arrays()[0])
    np.testing.assert_array_equal(again.X, table.X)
    assert (cache / "12_fault.npz").read_bytes() == good_npz


def test_set_without_a_known_checksum_warns(cache, downloads, good_npz):
    downloads.content = good_npz
    with pytest.warns(UserWarning, match=r"checksum of 36_speech\.npz is unknown"):
        assert data.load("adbench:speech").name == "adbench:36_speech"


@pytest.mark.filterwarnings("ignore:The checksum")
def test_a_broken_set_without_a_known_checksum_is_to_be_deleted(cache, downloads, good_npz):
    downloads.content = good_npz[:-1]
    assert "36_speech.npz is broken; delete it" in refusal("adbench:speech")


@pytest.mark.parametrize(
    "error",
    [requests.ConnectionError("no route to host"), requests.HTTPError("404"), TimeoutError()],
)
def test_failed_download(cache, downloads, error):
    downloads.content = error
    sentence = refusal("adbench:12_fault")
    assert "Cannot fetch https://raw.githubusercontent.com/" in sentence
    assert "12_fault.npz" in sentence
    assert str(cache) in sentence


def test_checksum_mismatch_is_refused_and_not_kept(cache, downloads, good_npz):
    downloads.content = good_npz
    sentence = refusal("adbench:fault")
    assert "12_fault.npz differs from its known checksum" in sentence
    assert not (cache / "12_fault.npz").exists()


@pytest.mark.parametrize(
    ("name", "near"), [("falt", "fault"), ("12_falt", "fault"), ("ionosphere", "Ionosphere")]
)
def test_unknown_adbench_set_gives_near_misses(downloads, name, near):
    sentence = refusal(f"adbench:{name}")
    assert repr(name) in sentence
    assert near in sentence.partition("did you mean ")[2]
    assert downloads.addresses == []


def test_the_47_classical_sets_are_listed():
    numbers = [int(file.partition("_")[0]) for file in SHA256]
    assert numbers == list(range(1, 48))
    assert all(file.endswith(".npz") for file in SHA256)
    unknown = [file for file, checksum in SHA256.items() if checksum is None]
    assert unknown == ["3_backdoor.npz", "9_census.npz", "13_fraud.npz", "36_speech.npz"]


@needs_adbench
def test_published_sums_are_the_listed_ones():
    lines = (ADBENCH / "ALL_SHA256SUMS").read_text().splitlines()
    published = {file: checksum for checksum, file in map(str.split, lines)}
    assert {file: checksum for file, checksum in SHA256.items() if checksum} == published


@needs_adbench
@pytest.mark.parametrize(
    ("source", "shape", "n_anomalies"),
    [
        ("adbench:18_Ionosphere", (351, 32), 126),
        ("adbench:satellite", (6435, 36), 2036),
        ("adbench:10_cover", (286048, 10), 2747),
    ],
)
def test_published_set_is_read_from_a_filled_cache(
    downloads, monkeypatch, source, shape, n_anomalies
):
    monkeypatch.setenv("SWIFT_HYDRA_CACHE", str(ADBENCH))
    table = data.load(source)
    assert table.X.shape == shape
    assert table.y.sum() == n_anomalies
    assert downloads.addresses == []


def test_a_row_index_is_no_feature(tmp_path):
    frame().to_csv(tmp_path / "rows.csv")
    assert "index=False" in refusal(tmp_path / "rows.csv")
