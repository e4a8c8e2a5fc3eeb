"""The measurements of speed, on a small scale; no test looks at a time."""

import os
import signal

import pandas as pd
import pytest

from benchmarks import speed, stopwatch
from benchmarks.networks import PerceptronClassifier, active_parameters
from benchmarks.speed import CASES, SpeedSettings, compare, report
from common.errors import InputError


@pytest.fixture
def small(monkeypatch):
    sizes = {"TRAINING_ROWS": 150, "BATCH_ROWS": 300, "SEARCH_STEPS": 256, "MIN_SECONDS": 0}
    for name, size in sizes.items():
        monkeypatch.setattr(stopwatch, name, size)


@pytest.mark.parametrize(
    "name",
    ["mamba-moe", "extra-trees", "transformer", "perceptron", "2 experts", "mamba-moe, PPO"],
)
def test_a_case_gives_positive_figures(small, name):
    (case,) = (case for case in CASES if case.name == name)
    figures = stopwatch.measure(case.task, 0, case.settings)
    assert all(figure > 0 for figure in figures.values())
    assert ("share of product rate" in figures) == (name == "mamba-moe")


@pytest.mark.parametrize("native", [True, False])
def test_lanes_are_stepped_at_once_or_in_a_loop(small, native):
    case = speed.lanes("mamba-moe", 3, native)
    assert stopwatch.measure(case.task, 0, case.settings)["steps a second"] > 0


def test_a_fit_is_measured_with_its_memory():
    figures = stopwatch.train("catboost", 100, 4, seed=0)
    assert figures["us a row and column"] == pytest.approx(1e6 * figures["fit, s"] / 400)
    assert figures["peak memory, MB"] > 50


def test_no_case_is_measured_twice_a_round():
    assert len({(case.part, case.name) for case in CASES}) == len(CASES)


def test_perceptron_has_as_many_parameters_as_the_active_experts():
    network = PerceptronClassifier().build(32)
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert n_parameters == pytest.approx(active_parameters(), rel=0.02)


def test_cases_run_in_processes_of_their_own_and_are_written(tmp_path, capsys):
    names, environment = ("evaluate.py --help", "train.py --help"), os.environ.copy()
    compare(SpeedSettings(cases=names, rounds=2, out=tmp_path))
    records = pd.read_csv(tmp_path / "speed-startup.csv")
    assert list(records["case"]) == [*names, *names]
    assert list(records["round"]) == [0, 0, 1, 1]
    assert (records["value"] > 0).all()
    printed = capsys.readouterr().out
    assert printed.strip() == (tmp_path / "speed-startup.md").read_text().strip()
    assert all(name in printed for name in names)
    assert "one thread" in printed
    assert os.environ == environment  # the setting of one thread is theirs alone


def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(stopwatch, "measure", kill)
    with pytest.raises(InputError, match=r"measured knn was killed, .* --cases"):
        compare(SpeedSettings(cases=("knn",), out=tmp_path))


def test_tables_hold_medians_and_multiples_of_the_first_case():
    values = {"slow": [9, 4, 5, 6, 4], "quick": [1, 2, 2.5, 3, 90]}
    records = [
        ("part", case, number, "steps a second", value)
        for case, figures in values.items()
        for number, value in enumerate(figures)
    ]
    frame = pd.DataFrame(records, columns=["part", "case", "round", "figure", "value"])
    text = report(frame)
    assert "| slow | 5 | 1 |" in text
    assert "| quick | 2 | 0.5 |" in text


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"parts": ("scorin",)}, "did you mean scoring"),
        ({"cases": ("mamba-mo",)}, "did you mean mamba-moe"),
        ({"parts": ("env",), "cases": ("mamba-moe",)}, "No case of --cases is of the part env"),
        ({"rounds": 0}, "give at least 1"),
        ({"seed": -1}, "give at least 0"),
        ({"seed": 2**32}, "below 2"),
    ],
)
def test_bad_settings_are_one_sentence(settings, reason):
    with pytest.raises(InputError, match=reason):
        SpeedSettings(**settings).chosen()


def test_speeds_are_worked_out_from_the_time_of_a_call(monkeypatch):
    sizes = {"TRAINING_ROWS": 150, "BATCH_ROWS": 300}
    for name, size in sizes.items():
        monkeypatch.setattr(stopwatch, name, size)
    asked = []

    def half_a_second(call):
        asked.append(call())
        return 0.5

    monkeypatch.setattr(stopwatch, "seconds_a_call", half_a_second)
    figures = stopwatch.score("logistic-regression", 0)
    assert figures == {"batch, us a row": pytest.approx(1e6 * 0.5 / 300), "one row, us": 5e5}
    assert [len(scores) for scores in asked] == [300, 1]
    for native in (True, False):
        assert stopwatch.step_lanes("unhardened-extra-trees", 3, native, 0) == {"steps a second": 6}
