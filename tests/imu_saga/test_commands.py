"""The command line from pre-training to a prediction, the comparison, and what is refused on the way."""

import csv
import json

import numpy as np
import pytest

from imu_saga.commands import COMMANDS
from imu_saga.datasets import open_dataset
from imu_saga.encoder import ENCODERS
from imu_saga.finetune import FinetuneConfig, method_names
from imu_saga.predict import predict_csv
from imu_saga.pretrain import PretrainConfig
from imu_saga.protocol import ProtocolConfig, Sides, run_protocol, table
from imu_saga.search import SearchConfig
from imu_saga.source import DataOptions, load_windows, parsed_options, split_by_subject
from imu_saga.trained import load_run
from shared_peft import METHODS
from shared_peft.command import run_commands
from shared_peft.errors import ConfigError
from shared_peft.training import RunFolder
from tests.imu_saga.planted import people

SMALL = {"width": 16, "depth": 1, "heads": 2}
POPULATION = 'population={"subjects": 4, "bout_s": 14, "sessions": 1, "activities": ["sit", "walk", "run"]}'
DATA = ["--data", "synthetic", "--seconds", "2", "--data-options", POPULATION]


def call(*arguments: object) -> int:
    return run_commands("imu_saga", COMMANDS, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every command once, in order; the folder that holds their runs."""
    root = tmp_path_factory.mktemp("runs")
    sizes = ["--encoder-options", *(f"{name}={value}" for name, value in SMALL.items())]
    assert call("pretrain", *DATA, *sizes, "--steps", 40, "--batch-size", 32, "--out", root / "pre") == 0
    few = ["--trials", 6, "--shots", 4, "--finetune-steps", 10]
    assert call("search", "--checkpoint", root / "pre", *few, "--out", root / "search") == 0
    again = ["--weights-from", root / "search", "--steps", 10, "--out", root / "pre2"]
    assert call("pretrain", *DATA, *sizes, *again) == 0
    tune = ["--checkpoint", root / "pre", "--shots", 5, "--method", "lora_tsd", "--steps", 60, "--r", 2]
    assert call("finetune", *DATA, *tune, "--out", root / "tuned") == 0
    return root


def write_csv(path, rate_hz: float, seconds: float, *, scale: float = 1.0, gap: bool = False) -> None:
    recording = open_dataset("synthetic", parsed_options((POPULATION,))).read()[0]
    times = np.arange(0, min(seconds, recording.seconds - 1), 1 / rate_hz)
    grid = np.arange(len(recording.signal)) / recording.rate_hz
    columns = [np.interp(times, grid, column) * scale for column in recording.signal.T]
    rows = [[f"{value:.6f}" for value in row] for row in np.stack([times, *columns], axis=1)]
    if gap:
        first = round(2.2 * rate_hz)
        for row in rows[first : first + round(0.45 * rate_hz)]:
            row[1:] = [""] * 6
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["time", *recording.channels], *rows])


def test_the_search_stores_its_trials_and_pretraining_takes_its_weights(runs):
    best = json.loads((runs / "search" / "best.json").read_text())["weights"]
    assert len(json.loads((runs / "search" / "trials.json").read_text())) == 6
    made = json.loads((runs / "pre2" / "config.json").read_text())
    assert made["kind"] == "imu_saga.pretrain"
    assert sum(best.values()) == pytest.approx(1)


def test_the_held_out_people_were_seen_by_nothing(runs):
    details = json.loads((runs / "tuned" / "results.json").read_text())["details"]
    split = split_by_subject(*_windows())
    assert details["test_subjects"] == list(split.held_out)
    assert not set(details["train_subjects"]) & set(split.held_out)


def _windows():
    options = DataOptions(seconds=2.0, data_options=(POPULATION,))
    return load_windows(options)[0], options


def test_evaluate_repeats_the_scores_of_the_run(runs, tmp_path, capsys):
    assert call("evaluate", runs / "tuned", "--out", tmp_path / "scores.json") == 0
    stored = json.loads((runs / "tuned" / "results.json").read_text())["scores"]
    assert json.loads((tmp_path / "scores.json").read_text()) == stored
    assert f"macro-F1 {stored['macro_f1']:.3f}" in capsys.readouterr().out
    assert stored["macro_f1"] > 0.5


@pytest.mark.parametrize("rate_hz", [20.0, 50.0, 416.0])
def test_predict_reads_a_csv_of_any_rate(runs, tmp_path, rate_hz):
    write_csv(tmp_path / "me.csv", rate_hz, 12)
    assert call("predict", runs / "tuned", tmp_path / "me.csv", "--out", tmp_path / "out.csv") == 0
    with (tmp_path / "out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["start_s"]) for row in rows] == pytest.approx([0, 2, 4, 6, 8, 10][: len(rows)], abs=0.06)
    assert len(rows) >= 5
    assert all(row["label"] in ("sit", "walk", "run") and 1 / 3 <= float(row["confidence"]) <= 1 for row in rows)


def test_predict_gives_the_same_answers_at_another_rate(runs, tmp_path):
    run, found = load_run(runs / "tuned"), {}
    for rate_hz in (50.0, 200.0):
        write_csv(tmp_path / "me.csv", rate_hz, 12)
        found[rate_hz] = predict_csv(run, tmp_path / "me.csv", options={})
    assert [each.label for each in found[50.0]] == [each.label for each in found[200.0]]


def test_predict_abstains_where_too_little_was_measured(runs, tmp_path):
    write_csv(tmp_path / "me.csv", 50, 12, gap=True)
    found = predict_csv(load_run(runs / "tuned"), tmp_path / "me.csv", options={})
    assert [each.label == "" for each in found] == [row == 1 for row in range(len(found))]
    assert found[1].confidence == 0.0
    assert all(
        each.label for each in predict_csv(load_run(runs / "tuned"), tmp_path / "me.csv", options={}, min_valid=0.5)
    )


@pytest.mark.filterwarnings("ignore:ranks lowered")
@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_trains_by_its_name_alone(runs, tmp_path, method):
    tune = ["--checkpoint", runs / "pre", "--shots", 3, "--method", method, "--steps", 5]
    assert call("finetune", *DATA, *tune, "--out", tmp_path / "run") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["details"]["method"] == method
    assert results["details"]["trainable_parameters"] > 0
    described = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert described["peft_type"] == method.upper()
    assert call("evaluate", tmp_path / "run", "--out", tmp_path / "scores.json") == 0
    assert json.loads((tmp_path / "scores.json").read_text()) == results["scores"]


def test_tsd_reports_every_adapted_layer_of_a_run(runs, tmp_path, capsys):
    assert call("tsd", runs / "tuned", "--out", tmp_path / "out") == 0
    stored = json.loads((tmp_path / "out" / "tsd.json").read_text())
    names = [row.name for row in load_run(runs / "tuned").model.get_layer_status()]
    assert stored["method"] == "lora_tsd"
    assert [layer["layer"] for layer in stored["layers"]] == names
    assert all(layer["step"] == 60 // 4 and 0 < layer["chosen_share"] <= 1 for layer in stored["layers"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)
    assert (tmp_path / "out" / "tsd.png").stat().st_size > 10_000
    assert call("tsd", runs / "pre", "--out", tmp_path / "other") == 2
    assert "must be a run of kind imu_saga.finetune" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("finetune", "--method", "lorra"), f"method must be one of {', '.join(method_names())}, got 'lorra'"),
        (("finetune", "--method", "lora"), "must start from a checkpoint, got none"),
        (("pretrain", "--encoder", "lstm"), f"encoder: name must be one of {', '.join(ENCODERS.names())}, got 'lstm'"),
        (("pretrain", "--weights", "spans=1"), "masking level: name must be one of period, point, sensor, sub_period"),
        (("pretrain", "--weights", "point"), "--weights: must be NAME=VALUE, got 'point'"),
        (
            ("pretrain", "--encoder-options", "deep=3"),
            "key must be one of depth, heads, patch, slots, width, got 'deep'",
        ),
        (("finetune", "--method", "scratch", "--shots", "5000"), "must have 5000 labelled windows"),
    ],
)
def test_a_wrong_option_ends_with_status_2_and_one_line(arguments, message, tmp_path, capsys):
    assert call(*arguments[:1], *DATA, *arguments[1:], "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_predict_refuses_an_unknown_run_a_short_file_and_missing_columns(runs, tmp_path, capsys):
    write_csv(tmp_path / "short.csv", 50, 1)
    assert call("predict", tmp_path / "nothing", tmp_path / "short.csv") == 2
    assert "must be a run folder" in capsys.readouterr().err
    assert call("predict", runs / "tuned", tmp_path / "short.csv") == 2
    assert "must hold 2 s or more without a break" in capsys.readouterr().err
    write_csv(tmp_path / "me.csv", 50, 8)
    assert call("predict", runs / "tuned", tmp_path / "me.csv", "--columns", "gyro=null") == 2
    assert "must have the channels acc_x" in capsys.readouterr().err
    assert call("predict", runs / "tuned", tmp_path / "me.csv", "--columns", "acc=a,b,c") == 2
    assert "'a', 'b', 'c' must be in the header" in capsys.readouterr().err


def test_the_comparison_resumes_without_repeating_a_row(tmp_path, monkeypatch):
    windows = people(subjects=6, each=8)
    test = windows.subjects == "p0"
    sides = Sides(windows.subset(~test), windows.subset(~test), windows.subset(test))
    config = ProtocolConfig(
        shots=(4,),
        seeds=2,
        pretraining=PretrainConfig(steps=10, batch_size=16, options=SMALL),
        finetuning=FinetuneConfig(steps=10, batch_size=12, r=2),
        search=SearchConfig(trials=2, shots=4, finetune_steps=5),
        methods=("lora_tsd",),
    )
    folder = RunFolder.create(tmp_path / "c", "imu_saga.compare", {})
    records = run_protocol(sides, config, folder)
    rows = ("majority", "random_forest", "scratch", "point", "equal", "searched", "equal lora_tsd")
    assert [record["row"] for record in records[::2]] == list(rows)
    lines = []
    assert run_protocol(sides, config, folder, tell=lines.append) == records
    assert lines == []
    folder.write("records.json", records[:-1])
    assert run_protocol(sides, config, folder, tell=lines.append) == records, "a row is a function of its seed"
    assert len(lines) == 1
    shown = table([{"row": "a", "shots": 4, "seed": s, "macro_f1": f} for s, f in enumerate((0.5, 0.7))])
    assert shown.splitlines()[2] == "| a | 0.600 +- 0.141 |"


def test_options_are_parsed_as_json_lists_or_text():
    assert parsed_options(("a=1", "b=x,y", "c=true", 'd={"e": 2}', "f=walk")) == {
        "a": 1,
        "b": ["x", "y"],
        "c": True,
        "d": {"e": 2},
        "f": "walk",
    }
    with pytest.raises(ConfigError, match="must be NAME=VALUE, got 'a'"):
        parsed_options(("a",))
