"""The command lines as a user types them."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import sleep

import numpy as np
import pandas as pd
import pytest
import torch
from commands import ROOT, command
from conftest import RUN_SETTINGS, Reached, blobs, stop
from matplotlib import image
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import detectors
from agents.comparison import compare, comparison_text
from agents.hardening import harden
from agents.report import detection_metrics
from agents.runs import open_run, write_run
from agents.settings import HardeningSettings
from common.command import run_command
from common.errors import InputError, refused_by
from common.files import check_file, check_folder, replacing, write_json
from common.tensors import save_tensors
from data import Split, Table, load, split
from detectors.trees import ExtraTreesDetector
from evaluate import EvaluateConfig, default_rows, default_scenario, evaluate
from score import ScoreConfig, score, write_csv
from train import TrainConfig, keep, run_name, train

UNHUNTED = {
    "protocol": "full",
    "detector": "extra-trees",
    "generator": "background",
    "rounds": 0,
    "n_background": 20,
}
QUICK = ["--rounds", "1", "--timesteps", "512", "--n-lanes", "16", "--n-background", "100"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def csv(folder) -> Path:
    X, y = blobs()
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"]).assign(fraud=y)
    frame.to_csv(folder / "mine.csv", index=False)
    return folder / "mine.csv"


@pytest.fixture(scope="module")
def run(folder, csv) -> Path:
    data = ["--data", csv, "--label-column", "fraud", "--protocol", "full"]
    done = command("train.py", *data, *QUICK, "--out", folder / "runs")
    assert done.returncode == 0, done.stderr
    assert "before hardening" in done.stdout
    assert "after hardening" in done.stdout
    (run,) = (folder / "runs").iterdir()
    assert str(run) in done.stdout
    return run


def test_run_folder_holds_everything(run):
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert files >= {
        "config.json",
        "columns.json",
        "command.txt",
        "metrics.json",
        "bank.parquet",
        "overview.png",
        "rows.safetensors",
        "generator/settings.json",
        "generator/weights.safetensors",
        "detector/weights.safetensors",
        "unhardened/weights.safetensors",
        "policy/agent.json",
        "policy/policy.safetensors",
    }
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    metrics = json.loads((run / "metrics.json").read_text())
    assert [event.value for event in events.Scalars("round/queries")] == [
        record["queries"] for record in metrics["history"]
    ]
    assert not any(name.endswith((".pkl", ".zip", ".pt")) for name in files)
    assert "-mine-ppo-0" in run.name
    told = (run / "command.txt").read_text()
    assert "train.py" in told
    assert "--timesteps 512" in told
    bank = pd.read_parquet(run / "bank.parquet")
    assert list(bank.columns) == ["a", "b", "c", "d"]
    assert len(bank) == metrics["history"][-1]["bank"]
    assert set(metrics["detection"]) == {"before hardening", "after hardening"}
    assert image.imread(run / "overview.png").std() > 0


def test_evaluate_prints_both_tables_of_the_latest_run(run, folder):
    where = ["--env-id", "LatentAnomaly-v0", "--runs", run.parent, "--episodes", 32]
    where += ["--timesteps", 512]
    first = command("evaluate.py", *where, "--json", folder / "figures.json")
    assert first.returncode == 0, first.stderr
    rows = "ppo, before hardening", "ppo anew, before hardening", "gradient, after hardening"
    for words in (str(run), *rows, "auroc"):
        assert words in first.stdout
    figures = json.loads((folder / "figures.json").read_text())
    for when in ("before hardening", "after hardening"):
        assert set(figures["env"][when]) == {"ppo", "ppo anew", "random", "gradient"}
        assert figures["env"][when]["random"]["episodes"] >= 32
    trained = json.loads((run / "metrics.json").read_text())["detection"]
    for when, measures in figures["detection"].items():
        assert measures["auroc"] == pytest.approx(trained[when]["auroc"], abs=1e-6)
    command("evaluate.py", *where, "--json", folder / "again.json")
    assert json.loads((folder / "again.json").read_text())["env"] == figures["env"]


def test_a_run_of_all_rows_holds_none_out(csv, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("agents.report.TIMING_SECONDS", 0.01)
    settings = {**UNHUNTED, "protocol": "all"}
    config = TrainConfig(data=str(csv), label_column="fraud", out=tmp_path / "runs", **settings)
    every, full = train(config), train(replace(config, protocol="full"))
    told = capsys.readouterr().out
    assert "all: 180 training rows with 30 labelled anomalies\n" in told
    assert told.count("No row is held out") == 1
    assert json.loads((every / "metrics.json").read_text())["detection"] == {}
    assert image.imread(every / "overview.png").std() > 0
    figures = evaluate(EvaluateConfig(run=every, episodes=8, timesteps=0))
    assert set(figures["env"]) == {"before hardening", "after hardening"}
    assert figures["detection"] == {}
    assert "No row is held out" in capsys.readouterr().out
    comparison = compare([every, full])
    assert comparison["detection"][every.name] == {}
    lines = [line.split() for line in comparison_text(comparison).splitlines()]
    assert [every.name, *"----"] in lines
    alone = {**comparison, "detection": {every.name: {}}}
    assert comparison_text(alone).endswith("hold rows out.")
    for run, held_out in ((every, False), (full, True)):
        score(ScoreConfig(csv, run, out=tmp_path / "scores.csv"))
        assert len(pd.read_csv(tmp_path / "scores.csv")) == 180
        assert ("This run held rows out" in capsys.readouterr().out) == held_out


def scored(data: Path, run: Path, out: Path) -> subprocess.CompletedProcess:
    return command("score.py", "--data", data, "--runs", run.parent, "--out", out)


@pytest.mark.parametrize("suffix", [".csv", ".PARQUET"])
def test_score_takes_the_columns_by_name_and_keeps_the_others(run, csv, tmp_path, suffix):
    known = pd.read_csv(csv)
    new = known[["d", "b", "a", "c"]].assign(client="nobody")
    new.index = pd.Index([f"{i:06}" for i in range(len(new))], name="account")
    new.to_parquet(tmp_path / "new.parquet")
    out = tmp_path / "deep" / f"scores{suffix}"
    done = scored(tmp_path / "new.parquet", run, out)
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(out, dtype={"account": str}) if suffix == ".csv" else pd.read_parquet(out)
    pd.testing.assert_frame_equal(written.set_index("account")[list(new.columns)], new)
    detector, X = detectors.load("mamba-moe", run / "detector"), known[list("abcd")].to_numpy()
    np.testing.assert_allclose(written["score"], detector.decision_function(X))
    np.testing.assert_allclose(written["probability"], detector.predict_proba(X)[:, 1])
    np.testing.assert_array_equal(written["predicted"], detector.predict(X))
    assert f"{len(X)} rows" in done.stdout
    assert f"{written['predicted'].sum()} are called anomalies" in done.stdout


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_score_measures_both_detectors_where_the_rows_have_labels(run, csv, tmp_path, suffix):
    rows = pd.read_csv(csv).assign(fraud=lambda rows: rows["fraud"].astype(bool))
    new = tmp_path / f"new{suffix}"
    rows.to_csv(new, index=False) if suffix == ".csv" else rows.to_parquet(new)
    labelled = ["--data", new, "--run", run, "--label-column"]
    done = command("score.py", *labelled, "fraud", "--out", tmp_path / "scores.csv")
    assert done.returncode == 0, done.stderr
    figures, X = {}, rows[list("abcd")].to_numpy()
    for when, part in (("before hardening", "unhardened"), ("after hardening", "detector")):
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(when)]
        figures[when] = [float(figure) for figure in line.removeprefix(when).split()]
        scores = detectors.load("mamba-moe", run / part).decision_function(X)
        assert figures[when][0] == pytest.approx(roc_auc_score(rows["fraud"], scores), abs=1e-3)
    written = pd.read_csv(tmp_path / "scores.csv")
    shares = written.groupby("fraud")["predicted"].mean()
    assert figures["after hardening"][2:] == pytest.approx([shares[True], shares[False]], abs=1e-3)


def test_labels_to_measure_by_are_checked_before_a_row_is_scored(run, csv, tmp_path):
    line = ["--data", csv, "--run", run, "--out", tmp_path / "scores.csv", "--label-column"]
    wrong = {"frauds": "did you mean 'fraud'?", "a": "learned from the column 'a'"}
    for column, words in wrong.items():
        assert_one_sentence(command("score.py", *line, column), words)
    line[1] = tmp_path / "new.csv"
    for fraud, words in {2: "labels must be 0", 1: "no normal rows", None: "leave out the"}.items():
        pd.read_csv(csv).assign(fraud=fraud).to_csv(tmp_path / "new.csv", index=False)
        assert_one_sentence(command("score.py", *line, "fraud"), words)
    np.savez(tmp_path / "new.npz", X=pd.read_csv(csv)[list("abcd")])
    line[1] = tmp_path / "new.npz"
    assert_one_sentence(command("score.py", *line, "x1"), "new.npz has no column of labels")
    assert not (tmp_path / "scores.csv").exists()


def test_score_leaves_the_text_of_a_csv_file_as_it_is(run, tmp_path):
    header, row = "account,country,flag,a,b,c,d,price", "000017,NA,true,1.50,0,1e0,2,"
    (tmp_path / "new.csv").write_text(f"{header}\n{row}\n")
    done = scored(tmp_path / "new.csv", run, tmp_path / "scores.csv")
    assert done.returncode == 0, done.stderr
    first, second = (tmp_path / "scores.csv").read_text().splitlines()
    assert first == f"{header},score,probability,predicted"
    assert second.startswith(f"{row},")


def test_a_column_of_the_run_may_be_called_score(tmp_path):
    X, y = blobs()
    table = pd.DataFrame(X, columns=["a", "b", "score", "predicted"])
    table.assign(label=y).to_csv(tmp_path / "mine.csv", index=False)
    table.to_csv(tmp_path / "new.csv", index=False)
    folder = train(TrainConfig(data=str(tmp_path / "mine.csv"), out=tmp_path / "runs", **UNHUNTED))
    score(ScoreConfig(tmp_path / "new.csv", folder, out=tmp_path / "scores.csv"))
    written = pd.read_csv(tmp_path / "scores.csv")
    pd.testing.assert_frame_equal(written[list(table)], table)
    scores = detectors.load("extra-trees", folder / "detector").decision_function(X)
    np.testing.assert_allclose(written["hydra_score"], scores)
    assert list(written.columns[4:]) == ["hydra_score", "hydra_probability", "hydra_predicted"]
    np.testing.assert_allclose(written["hydra_probability"], expit(scores))


class Strict(ExtraTreesDetector):
    """Calls a row an anomaly above another score than 0."""

    def _refit(self, *rows):
        super()._refit(*rows)
        self.threshold_ = 1.5


def test_the_probability_is_one_half_at_the_detectors_own_threshold(tmp_path, monkeypatch):
    monkeypatch.setattr(detectors.registry, "specs", dict(detectors.registry.specs))
    detectors.register("strict", f"{__name__}:Strict")
    X, y = blobs()
    table = pd.DataFrame(X, columns=list("abcd")).assign(label=y)
    table.to_csv(tmp_path / "mine.csv", index=False)
    settings = {**UNHUNTED, "detector": "strict"}
    folder = train(TrainConfig(data=str(tmp_path / "mine.csv"), out=tmp_path / "runs", **settings))
    score(ScoreConfig(tmp_path / "mine.csv", folder, out=tmp_path / "scores.csv"))
    written = pd.read_csv(tmp_path / "scores.csv")
    np.testing.assert_allclose(written["probability"], expit(written["score"] - 1.5))
    np.testing.assert_array_equal(written["predicted"], written["probability"] > 0.5)
    assert 0 < written["predicted"].sum() < (written["score"] > 0).sum()


def test_rows_of_another_table_than_the_latest_runs_are_told_with_the_run(tmp_path, capsys):
    X, y = blobs()
    pd.DataFrame(X, columns=list("abcd")).assign(label=y).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame(X, columns=list("wxyz")).to_csv(tmp_path / "new.csv", index=False)
    folder = train(TrainConfig(data=str(tmp_path / "a.csv"), out=tmp_path / "runs", **UNHUNTED))
    capsys.readouterr()
    with pytest.raises(InputError, match=r"new\.csv has no column 'a'"):
        score(ScoreConfig(tmp_path / "new.csv", runs=tmp_path / "runs", out=tmp_path / "s.csv"))
    assert capsys.readouterr().out == f"Run {folder}, extra-trees\n"


@pytest.mark.parametrize("text", ["one\rtwo", "one\r\ntwo", "one\ntwo", 'one,"two"', "plain"])
def test_written_text_is_read_back(tmp_path, text):
    table = pd.DataFrame({"note": [text, "", text], "a": [1.5, 2.0, 3.0], text: [4, 5, 6]})
    write_csv(table, tmp_path / "rows.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "rows.csv", keep_default_na=False), table)
    assert '"plain"' not in (tmp_path / "rows.csv").read_text()


def test_bytes_that_are_no_text_are_written(tmp_path):
    table = pd.DataFrame({"hash": [b"\xff\xfe", b"ab"], "a": [1.5, 2.0]})
    write_csv(table, tmp_path / "rows.csv")
    assert pd.read_csv(tmp_path / "rows.csv")["hash"].tolist() == [str(b"\xff\xfe"), str(b"ab")]


def test_a_name_that_is_no_text_is_in_the_command_that_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--data", "gr\udcf6sse.csv"])
    folder = train(TrainConfig(data="wine", out=tmp_path, **UNHUNTED))
    assert b"gr\xf6sse.csv" in (folder / "command.txt").read_bytes()


def test_columns_of_an_array_are_all_or_none(run, csv, tmp_path):
    X = pd.read_csv(csv).to_numpy()
    np.savez(tmp_path / "new.npz", X=X)
    done = scored(tmp_path / "new.npz", run, tmp_path / "scores.csv")
    assert_one_sentence(done, "X has 5 columns", "the 4 that are called a, b, c")
    np.savez(tmp_path / "new.npz", X=X[:, :4])
    done = scored(tmp_path / "new.npz", run, tmp_path / "scores.csv")
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(tmp_path / "scores.csv")
    np.testing.assert_allclose(written[list("abcd")], X[:, :4])


def test_index_with_the_name_of_a_column_is_refused(run, csv, tmp_path):
    rows = pd.read_csv(csv)
    rows.set_index("a", drop=False).to_parquet(tmp_path / "new.parquet")
    done = scored(tmp_path / "new.parquet", run, tmp_path / "scores.csv")
    assert_one_sentence(done, "its index has the name of a column", "rename either")


def test_unfit_rows_are_not_scored(run, csv, tmp_path):
    def assert_refused(frame, *words, out="scores.csv"):
        frame.to_csv(tmp_path / "new.csv", index=False)
        line = ["--data", tmp_path / "new.csv", "--run", run, "--out", tmp_path / out]
        assert_one_sentence(command("score.py", *line), *words)
        assert not (tmp_path / out).is_file()

    good = pd.read_csv(csv)
    assert_refused(good.rename(columns={"b": "bb"}), "no column 'b'", "add it, or rename 'bb'")
    assert_refused(good.assign(b="high"), "column 'b'", "'high' in row 1")
    assert_refused(good.assign(score=1), "'score'", "rename")
    assert_refused(good[:0], "no rows")
    assert_refused(good, "scores.txt", "--out", out="scores.txt")
    assert_refused(good, "is a folder", "--out", out=".")
    assert_refused(good.drop(columns="b"), "no column 'b'", "rename the one that holds it")
    same = ["--data", csv, "--run", run, "--out", csv]
    assert_one_sentence(command("score.py", *same), "holds the rows to score", "--out")
    where = ["--data", csv, "--runs", tmp_path / "none"]
    assert_one_sentence(command("score.py", *where), "No run", "--run")


def test_evaluate_without_a_run_says_so_and_plays_the_controls(folder):
    done = command("evaluate.py", "--episodes", 8, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    assert "No run in runs" in done.stdout
    assert "random" in done.stdout
    assert "unhardened" in done.stdout


def test_a_folder_of_runs_that_is_named_must_hold_one(tmp_path):
    done = command("evaluate.py", "--runs", tmp_path / "typo", "--episodes", 8)
    assert_one_sentence(done, "No run in", "--runs")


def test_numbers_stay_numbers_in_a_parquet_file(run, csv, tmp_path):
    rows = pd.read_csv(csv).assign(name="007")
    rows.to_csv(tmp_path / "new.csv", index=False)
    done = scored(tmp_path / "new.csv", run, tmp_path / "scores.parquet")
    assert done.returncode == 0, done.stderr
    written = pd.read_parquet(tmp_path / "scores.parquet")
    pd.testing.assert_frame_equal(written[list("abcd")], rows[list("abcd")])
    assert set(written["name"]) == {"007"}


def test_integers_beyond_64_bits_become_floats_in_a_parquet_file(run, csv, tmp_path):
    rows = pd.read_csv(csv).assign(b=range(10**30, 10**30 + len(pd.read_csv(csv))))
    rows.to_csv(tmp_path / "new.csv", index=False)
    done = scored(tmp_path / "new.csv", run, tmp_path / "scores.parquet")
    assert done.returncode == 0, done.stderr
    written = pd.read_parquet(tmp_path / "scores.parquet")
    np.testing.assert_allclose(written["b"], 1e30)
    pd.testing.assert_frame_equal(written[list("acd")], rows[list("acd")])


def test_same_seed_trains_alike(run, csv, folder):
    data = ["--data", csv, "--label-column", "fraud", "--protocol", "full"]
    done = command("train.py", *data, *QUICK, "--out", folder / "again")
    assert done.returncode == 0, done.stderr
    (again,) = (folder / "again").iterdir()
    first, second = (json.loads((path / "metrics.json").read_text()) for path in (run, again))
    assert first["history"] == second["history"]
    for when, measures in first["detection"].items():
        for name in ("auroc", "average_precision", "recall", "false_alarms"):
            assert measures[name] == second["detection"][when][name]


def assert_one_sentence(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere.csv"], ["nowhere.csv"]),
        (["--data", "digts"], ["did you mean digits"]),
        (["--detector", "mamba-mo"], ["did you mean mamba-moe"]),
        (["--algo", "pppo"], ["did you mean"]),
        (["--detector", "pyod:LOFF"], ["did you mean pyod:LOF"]),
        (["--generator", "cvea"], ["did you mean cvae"]),
        (["--protocol", "unsen"], ["did you mean unseen"]),
        (["--timesteps", "0"], ["timesteps"]),
        (["--seed", "-1"], ["seed is -1"]),
        (["--plugin", "./mine.py"], ["./mine.py", "a module's name"]),
        (["--algo", "agents.controls:Missing"], ["agents.controls:Missing"]),
        (["--device", "abacus"], ["abacus", "cpu"]),
    ],
)
def test_bad_argument_is_one_sentence_and_writes_nothing(arguments, words, tmp_path):
    done = command("train.py", "--data", "wine", *arguments, "--out", tmp_path / "runs")
    assert_one_sentence(done, *words)
    assert not list((tmp_path / "runs").rglob("*"))
    if "--device" not in arguments:
        assert not done.stdout
        assert not (tmp_path / "runs").exists()


def test_text_in_a_numeric_column_is_one_sentence(csv, tmp_path):
    frame = pd.read_csv(csv).astype({"b": object})
    frame.loc[4, "b"] = "high"
    frame.to_csv(tmp_path / "text.csv", index=False)
    done = command("train.py", "--data", tmp_path / "text.csv", "--label-column", "fraud")
    assert_one_sentence(done, "text.csv", "'b'", "high", "row 5")


def test_corrupt_or_missing_run_is_one_sentence(run, tmp_path):
    assert_one_sentence(command("evaluate.py", "--run", tmp_path / "none"), "none")
    for name in ("config.json", "detector/weights.safetensors", "policy/agent.json"):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(whole[: len(whole) // 2])
        try:
            assert_one_sentence(command("evaluate.py", "--run", run), Path(name).name)
        finally:
            (run / name).write_bytes(whole)


def test_bad_arguments_of_an_attack_are_one_sentence(tmp_path):
    assert_one_sentence(command("evaluate.py", "--episodes", "0"), "episodes is 0")
    assert_one_sentence(command("evaluate.py", "--json", tmp_path), "--json")


def test_folder_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "sub"
    assert_one_sentence(command("train.py", "--data", "wine", "--out", below), "is a file", "--out")
    assert_one_sentence(command("evaluate.py", "--json", below / "f"), "is a file", "--json")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_folder_that_cannot_be_written_into_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written into; name another folder with --out"):
        check_folder(tmp_path / "runs", "--out")


def test_what_the_system_refuses_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as refused:
        run_command(lambda: (tmp_path / "none" / "file").touch())
    assert refused.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_interrupt_is_one_word(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_command(interrupted)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.fixture
def handling():
    """Set what a signal does, and put it back afterwards."""
    former = {number: signal.getsignal(number) for number, _ in CODES}
    yield signal.signal
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), CODES)
def test_an_end_that_a_library_takes_for_something_else_keeps_its_code(number, code, handling):
    handling(number, signal.SIG_DFL)

    def ended(error):
        try:
            signal.raise_signal(number)
        except BaseException:
            raise error from None

    libraries = KeyboardInterrupt(), ImportError("initialization failed")  # CatBoost's and NumPy's
    for main in (*(partial(ended, e) for e in libraries), partial(signal.raise_signal, number)):
        with pytest.raises(SystemExit) as told:
            run_command(main)
        assert told.value.code == code


def test_a_second_signal_does_not_cut_cleaning_up_short(handling):
    handling(signal.SIGTERM, signal.SIG_DFL)
    cleaned = []

    def main():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned.append(True)

    with pytest.raises(SystemExit):
        run_command(main)
    assert cleaned


def test_what_stdout_cannot_encode_is_escaped(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    run_command(lambda: print("\u00fc.csv", flush=True))
    assert written.getvalue() == b"\\xfc.csv\n"


def test_bars_go_nowhere_where_stderr_is_closed(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    run_command(lambda: sys.stderr.write("half"))


@pytest.mark.parametrize("lacking", ["", "import signal; del signal.SIGHUP, signal.SIGPIPE; "])
def test_a_reader_that_had_enough_ends_a_command_quietly(lacking):
    """Where the system lacks signals, as Windows does, too."""
    code = "from common.command import run_command; run_command(lambda: print('row\\n' * 10**6))"
    code = lacking + code
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as printing:
        assert printing.stdout.readline() == b"row\n"
        printing.stdout.close()
        assert printing.stderr.read() == b""
    assert printing.returncode == 141


PRINT = "from common.command import run_command; input(); run_command(lambda: print('row\\n' * {}))"
BUFFERED = {"cwd": ROOT, "env": os.environ | {"PYTHONUNBUFFERED": ""}}


def test_a_reader_that_is_gone_before_a_line_is_flushed_ends_a_command_quietly():
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    program = [sys.executable, "-c", PRINT.format(1)]
    with subprocess.Popen(program, **BUFFERED, **pipes) as printing:
        printing.stdout.close()
        printing.stdin.write(b"\n")
        printing.stdin.close()
        assert printing.stderr.read() == b""
    assert printing.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("times", [1, 10**6])
def test_a_full_disk_under_stdout_is_one_line(times):
    program = [sys.executable, "-c", PRINT.format(times)]
    with Path("/dev/full").open("w") as full:
        pipes = {"stdout": full, "stderr": subprocess.PIPE}
        run = subprocess.run(program, input=b"\n", **BUFFERED, **pipes)
    assert run.returncode == 2
    assert run.stderr == b"error: [Errno 28] No space left on device\n"


def test_a_reader_that_is_gone_is_no_fault_of_a_class():
    with pytest.raises(BrokenPipeError), refused_by("The generator", "one"):
        raise BrokenPipeError


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/figures\.json cannot be written"):
        write_json(tmp_path / "file" / "figures.json", {})


@pytest.mark.parametrize(("said", "taken"), [(None, "1"), ("", "1"), ("3", "3")])
def test_a_command_runs_on_one_thread_unless_told_otherwise(said, taken, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    run_command(lambda: None)
    assert os.environ["OMP_NUM_THREADS"] == taken


def test_numba_runs_on_one_thread_too(monkeypatch):
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name)
    run_command(lambda: None)
    assert os.environ["NUMBA_NUM_THREADS"] == "1"


def test_a_signal_that_was_ignored_stays_so(handling):
    handling(signal.SIGHUP, signal.SIG_IGN)
    run_command(partial(signal.raise_signal, signal.SIGHUP))


def test_a_warning_is_told_in_one_line(capsys):
    run_command(partial(warnings.warn, "two\n  lines", stacklevel=1))
    assert capsys.readouterr().err == "warning: two lines\n"


def test_a_drive_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr("os.path.exists", lambda path: False)
    with pytest.raises(InputError, match="on no drive that is there; name another with --out"):
        check_folder(Path("runs"), "--out")


def test_figures_are_written_through_a_link_and_onto_nothing_but_files(tmp_path):
    link, pipe = tmp_path / "link.json", tmp_path / "pipe"
    link.symlink_to(tmp_path / "figures.json")
    write_json(link, {"auroc": 1})
    assert link.is_symlink()
    assert json.loads((tmp_path / "figures.json").read_text()) == {"auroc": 1}
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="no regular file; name a file with --json"):
        check_file(pipe, "--json")
    astray = tmp_path / "astray.json"
    astray.symlink_to(link / "figures.json")
    with pytest.raises(InputError, match=r"figures.json is a file; name a folder with --json"):
        check_file(astray, "--json")


def test_weights_have_the_permissions_of_other_files(tmp_path):
    save_tensors(tmp_path / "weights.safetensors", {"a": torch.zeros(2)})
    write_json(tmp_path / "settings.json", {})
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_a_warning_is_told_once_however_often_it_is_given(capsys):
    def warn():
        for said in ("twice", "twice", "once"):
            with warnings.catch_warnings():
                warnings.warn(said, stacklevel=1)

    run_command(warn)
    assert capsys.readouterr().err == "warning: twice\nwarning: once\n"


def test_terminated_training_leaves_nothing(tmp_path):
    line = [sys.executable, "train.py", "--data", "wine", "--protocol", "full", "--out", tmp_path]
    with subprocess.Popen([*map(str, line)], cwd=ROOT, stderr=subprocess.PIPE) as training:
        while training.poll() is None and not list(tmp_path.iterdir()):
            sleep(0.1)
        training.terminate()
        told = training.communicate()[1].decode()
    assert training.returncode == 143
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())


def test_an_env_of_somebody_else_plays_on_its_own_data(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Theirs-v0', entry_point='envs.latent_anomaly:LatentAnomalyEnv',\n"
        "    vector_entry_point='envs.vector:LatentAnomalyVectorEnv', kwargs=dict(data='wine',\n"
        "    protocol='full', detector='extra-trees', generator='background'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    line = ["--env-id", "theirs:Theirs-v0", "--episodes", 8]
    done = command("evaluate.py", *line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "playing the controls on wine" in done.stdout
    assert "in Theirs-v0" in done.stdout


def test_an_env_of_a_run_is_attacked_with_that_run(run, tmp_path, monkeypatch):
    (tmp_path / "hardened.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Mine-v0', entry_point='envs.latent_anomaly:LatentAnomalyEnv',\n"
        "    vector_entry_point='envs.vector:LatentAnomalyVectorEnv',\n"
        f"    kwargs=dict(run={str(run)!r}))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    line = ["--env-id", "hardened:Mine-v0", "--runs", "no", "--episodes", 8, "--timesteps", 0]
    done = command("evaluate.py", *line)
    assert done.returncode == 0, done.stderr
    assert "ppo anew" not in done.stdout
    assert f"Run {run}, " in done.stdout
    assert "after hardening" in done.stdout


def test_a_run_names_the_plugin_of_its_generator(run, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(run, copied)
    config = json.loads((copied / "config.json").read_text())
    write_json(copied / "config.json", {**config, "generator": "flow", "plugin": ["flows"]})
    done = command("evaluate.py", "--run", copied)
    assert_one_sentence(done, "flow, is a plugin's; pass --plugin flows")
    pd.DataFrame(blobs()[0], columns=list("abcd")).to_csv(tmp_path / "new.csv", index=False)
    where = ["--data", tmp_path / "new.csv", "--run", copied, "--out", tmp_path / "scores.csv"]
    done = command("score.py", *where)
    assert done.returncode == 0, done.stderr


def test_unknown_env_is_one_sentence():
    done = command("evaluate.py", "--env-id", "LatentAnomly-v0")
    assert_one_sentence(done, "did you mean LatentAnomaly-v0")


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("train.py", ["--seed", "mamba-moe", "forest", "pyod:<Class>", "cvae", "tqc", "ars"]),
        ("evaluate.py", ["--compare", "LatentAnomaly-v0", "LatentAnomaly/forest-v0"]),
        ("score.py", ["--data", "--run", "--out", "probability"]),
    ],
)
def test_help_lists_the_choices(script, names):
    done = command(script, "--help")
    assert done.returncode == 0
    for name in names:
        assert name in done.stdout


def test_plugins_backend_is_trained_and_attacked(folder, csv, monkeypatch):
    """A package that this one knows nothing of, another algorithm, and two runs side by side."""
    (folder / "wanderer.py").write_text("from agents.controls import RandomAgent as Wanderer\n")
    monkeypatch.syspath_prepend(folder)
    data = ["--data", csv, "--label-column", "fraud", "--protocol", "full", "--out", folder / "two"]
    for algo in ("trpo", "wanderer:Wanderer"):
        done = command("train.py", *data, *QUICK, "--detector", "forest", "--algo", algo)
        assert done.returncode == 0, done.stderr
        assert "forest on held-out rows" in done.stdout
    where = ["--env-id", "LatentAnomaly/forest-v0", "--runs", folder / "two", "--episodes", 16]
    assert_one_sentence(command("evaluate.py", *where), "pass --plugin wanderer")
    where += ["--plugin", "wanderer"]
    first, second = (command("evaluate.py", *where) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert "in LatentAnomaly/forest-v0" in first.stdout
    assert "anew" not in first.stdout
    assert first.stdout == second.stdout, "the same seed must print the same tables"
    runs = sorted((folder / "two").iterdir())
    done = command("evaluate.py", "--compare", *runs, "--json", folder / "compared.json")
    assert done.returncode == 0, done.stderr
    for run in runs:
        assert run.name in done.stdout
    compared = json.loads((folder / "compared.json").read_text())
    assert list(compared["settings"]) == ["algo"]
    for run in runs:
        metrics = json.loads((run / "metrics.json").read_text())
        assert compared["search"][run.name]["queries"] == metrics["history"][0]["queries"]
        assert compared["search"][run.name]["bank"] == len(pd.read_parquet(run / "bank.parquet"))
        after = compared["detection"][f"{run.name}, after hardening"]
        assert after == metrics["detection"]["after hardening"]
    for same in ([], runs[:1], [runs[0], runs[0]]):
        assert_one_sentence(command("evaluate.py", "--compare", *same), "two run folders")


def test_plugin_module_is_imported_first(csv, tmp_path, monkeypatch):
    text = "import detectors\ndetectors.register('mine', 'sklearn.naive_bayes:GaussianNB')\n"
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    data = ["--data", csv, "--label-column", "fraud", "--protocol", "full", "--out", tmp_path / "r"]
    plugin = ["--plugin", "mine"]
    done = command("train.py", *data, *QUICK, "--detector", "mine", *plugin)
    assert done.returncode == 0, done.stderr
    attack = ["--runs", tmp_path / "r", "--episodes", 8, "--timesteps", 64]
    done = command("evaluate.py", *attack, *plugin)
    assert done.returncode == 0, done.stderr
    done = command("score.py", "--runs", tmp_path / "r", "--data", csv, "--out", tmp_path / "s.csv")
    assert_one_sentence(done, "--plugin mine")
    assert_one_sentence(command("evaluate.py", *attack), "--plugin mine")
    assert_one_sentence(command("train.py", "--plugin", "no_such_module"), "no_such_module")


def test_a_run_is_named_by_its_set_whole_or_by_its_file_without_suffix(tmp_path):
    (tmp_path / "all.mine.csv").touch()
    config = TrainConfig(seed=3)
    assert run_name("adbench:22_magic.gamma", config).endswith("-adbench-22_magic.gamma-ppo-3")
    assert run_name(str(tmp_path / "all.mine.csv"), config).endswith("-all.mine-ppo-3")


def test_a_run_of_a_file_of_the_longest_name_can_be_named(tmp_path):
    name = "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 124 + ".csv"
    (tmp_path / name).touch()
    (tmp_path / run_name(str(tmp_path / name), TrainConfig())).mkdir()


def test_runs_that_begin_in_the_same_second_are_all_kept(tmp_path):
    kept = []
    for number in range(3):
        (tmp_path / "scratch").mkdir()
        (tmp_path / "scratch" / "config.json").write_text(str(number))
        kept.append(keep(tmp_path / "scratch", tmp_path / "run"))
    assert [folder.name for folder in kept] == ["run", "run-2", "run-3"]
    assert [(folder / "config.json").read_text() for folder in kept] == ["0", "1", "2"]


def test_a_name_that_another_run_takes_in_between_is_passed_over(tmp_path, monkeypatch):
    for name in ("scratch", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    exists = Path.exists
    answers = iter([False])
    monkeypatch.setattr(Path, "exists", lambda path: next(answers, exists(path)))
    assert keep(tmp_path / "scratch", tmp_path / "run").name == "run-2"


@pytest.mark.parametrize("refusals", [1, 9])
def test_a_folder_that_a_scanner_reads_is_moved_once_it_is_done(tmp_path, monkeypatch, refusals):
    (tmp_path / "scratch").mkdir()
    waits, rename, refused = [], Path.rename, iter([PermissionError] * refusals)

    def refusing(folder, path):
        if error := next(refused, None):
            raise error
        return rename(folder, path)

    monkeypatch.setattr(Path, "rename", refusing)
    monkeypatch.setattr("time.sleep", waits.append)
    moved = partial(keep, tmp_path / "scratch", tmp_path / "run")
    if refusals == 1:
        assert moved() == tmp_path / "run"
    else:
        with pytest.raises(PermissionError):
            moved()
    assert len(waits) == min(refusals, 4)


def test_seed_and_protocol_of_the_command_line_reach_split_and_loop(tmp_path, monkeypatch):
    monkeypatch.setattr("agents.hardening.harden", stop)
    config = TrainConfig(data="breast-cancer", protocol="few", seed=3, out=tmp_path)
    with pytest.raises(Reached) as reached:
        train(config)
    halves = split(load("breast-cancer"), "few", 3)
    np.testing.assert_array_equal(reached.value.args[0], halves.X_train)
    np.testing.assert_array_equal(reached.value.args[1], halves.y_train)
    assert reached.value.args[2:] == (config, 3)


def write_figures(folder, **found) -> None:
    write_json(folder / "config.json", {**RUN_SETTINGS, "out": str(folder), **found})
    write_json(
        folder / "metrics.json",
        {
            "detection": {},
            "history": [
                {"queries": 500, "bypasses": 20, "successes": 1},
                {"queries": 1500, "bypasses": 60, "successes": 2},
            ],
        },
    )
    save_tensors(folder / "rows.safetensors", {"bank": torch.zeros(7, 2)})


def test_compared_runs_are_told_apart_and_their_rounds_are_added_up(tmp_path):
    folders = [tmp_path / parent / "run" for parent in "ab"]
    write_figures(folders[0])
    write_figures(folders[1], seed=1, plugin=["mine"])
    compared = compare(folders)
    names = list(map(str, folders))
    assert compared["settings"] == {
        "plugin": {names[0]: None, names[1]: ["mine"]},
        "seed": {names[0]: 0, names[1]: 1},
    }
    found = {"queries": 2000, "bypasses": 80, "successes": 3, "bypasses_per_1000": 40, "bank": 7}
    assert compared["search"] == dict.fromkeys(names, found)


@pytest.mark.parametrize("name", RUN_SETTINGS)
def test_a_config_without_a_setting_or_with_a_foreign_one_is_refused(name, tmp_path):
    for value in (None, ["a"], {}):
        write_json(tmp_path / "config.json", {**RUN_SETTINGS, name: value})
        with pytest.raises(InputError, match=r"config.json lacks settings"):
            open_run(tmp_path)


@pytest.mark.parametrize("metrics", [{}, [], None, {"detection": {}, "history": [{}]}])
def test_foreign_metrics_and_names_are_refused(metrics, tmp_path):
    for name in "ab":
        write_figures(tmp_path / name)
    write_json(tmp_path / "a" / "metrics.json", metrics)
    with pytest.raises(InputError, match="a was saved by another version"):
        compare([tmp_path / "a", tmp_path / "b"])
    write_json(tmp_path / "b" / "columns.json", {"a": metrics})
    with pytest.raises(InputError, match=r"columns.json is no list of names"):
        open_run(tmp_path / "b").feature_names()


def test_a_run_of_another_backend_than_the_envs_is_refused(tmp_path):
    write_json(tmp_path / "config.json", RUN_SETTINGS)
    with pytest.raises(InputError, match="hardened catboost, not extra-trees"):
        evaluate(EvaluateConfig("LatentAnomaly/extra-trees-v0", run=tmp_path))


def test_an_attack_on_a_run_plays_as_many_episodes_as_asked(rows, tmp_path, monkeypatch):
    X, y = rows
    monkeypatch.setattr("agents.report.TIMING_SECONDS", 0.01)
    settings = HardeningSettings("extra-trees", "background", rounds=0, n_background=50)
    hardened = harden(X, y, settings, seed=1)
    halves = Split(X, y, X[::2].copy(), y[::2].copy())
    config = {**asdict(settings), "seed": 1}
    write_run(tmp_path, hardened, halves, Table(X, y, list("abcd"), "blobs"), config, {})
    attack = EvaluateConfig(run=tmp_path, episodes=65, timesteps=512)
    first, second = (evaluate(replace(attack, seed=seed)) for seed in (0, 1))
    before, after = (first["env"][f"{when} hardening"] for when in ("before", "after"))
    assert [measures["episodes"] for measures in [*before.values(), *after.values()]] == [128] * 6
    assert after["ppo"] != after["random"]
    assert after["ppo"] != after["ppo anew"]
    assert after["ppo anew"] != second["env"]["after hardening"]["ppo anew"]
    for algo in ("ppo", "random"):
        assert after[algo] != second["env"]["after hardening"][algo]
        assert before[algo]["bypass_rate"] > after[algo]["bypass_rate"]
    for when, detector in (("before", hardened.unhardened), ("after", hardened.scenario.detector)):
        told = first["detection"][f"{when} hardening"]
        auroc = detection_metrics(detector, halves.X_test, halves.y_test)["auroc"]
        assert told["auroc"] == auroc


def test_without_a_run_the_backend_of_the_env_is_scored(monkeypatch):
    settings = {**default_rows(), "data": "wine", "protocol": "full", "generator": "background"}
    scenarios, X_test, y_test = default_scenario({**settings, "detector": "extra-trees"})
    assert {name: type(each.detector) for name, each in scenarios.items()} == {
        "unhardened": ExtraTreesDetector
    }
    assert X_test.shape == (len(y_test), 13)


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with suppress(ZeroDivisionError), replacing(tmp_path / "file.json") as temporary:
        temporary.touch()
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("protocol", ["full", "unseen", "all"])
def test_without_a_run_the_env_is_scored_on_what_it_holds_out(protocol):
    parts = {"detector": "extra-trees", "generator": "background"}
    settings = {**default_rows(), **parts, "data": "wine", "protocol": protocol, "seed": 1}
    scenarios, X_test, y_test = default_scenario(settings)
    halves = split(load("wine"), protocol, 1)
    np.testing.assert_array_equal(scenarios["unhardened"].X, halves.X_train)
    np.testing.assert_array_equal(X_test, halves.X_test)
    np.testing.assert_array_equal(y_test, halves.y_test)
