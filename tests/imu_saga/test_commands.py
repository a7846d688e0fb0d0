"""The command line from pre-training to a prediction, the comparison, and what is refused on the way."""

import csv
import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import f1_score

import imu_saga.encoders  # noqa: F401  (fills the registry)
from imu_saga.benchmark.pretraining_rows import ProtocolConfig, Sides, run_protocol, table
from imu_saga.card import read_card
from imu_saga.commands import COMMANDS
from imu_saga.commands.finetune import FinetuneOptions
from imu_saga.commands.pretrain import stored_options
from imu_saga.datasets import open_dataset
from imu_saga.encoder import ENCODERS
from imu_saga.evaluation import cross_data
from imu_saga.evaluation.cross_data import load_other, usable_channels
from imu_saga.evaluation.scores import full_scores
from imu_saga.finetune import FinetuneConfig, method_names, predict_probabilities
from imu_saga.predict import predict_csv
from imu_saga.pretrain import PretrainConfig
from imu_saga.search import SearchConfig
from imu_saga.signal.gravity import remove_gravity
from imu_saga.source import DataOptions, load_recordings, load_windows, parsed_options, split_windows
from imu_saga.trained import load_run
from shared_peft import METHODS
from shared_peft.command import run_commands
from shared_peft.config import from_json
from shared_peft.errors import ConfigError, DataError
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
    split = split_windows(*_windows())
    assert details["test_subjects"] == list(split.held_out)
    assert not set(details["train_subjects"]) & set(split.held_out)
    assert details["split"]["held_out"] == list(split.held_out)
    assert (details["task"], details["split"]["protocol"], details["split"]["fold"]) == ("activity", "subject", 0)


def test_every_run_of_a_chain_writes_its_sides_and_the_last_passes_the_audit(runs, tmp_path, capsys):
    for name, sides in (
        ("pre", {"pretrain", "test"}),
        ("search", {"pretrain", "train", "test"}),
        ("tuned", {"train", "test"}),
    ):
        assert set(json.loads((runs / name / "sides.json").read_text())["sides"]) == sides
    assert call("audit", runs / "tuned", "--out", tmp_path / "audit.json") == 0
    shown, found = capsys.readouterr().out, json.loads((tmp_path / "audit.json").read_text())
    assert found["verdict"] == "passed"
    assert "verdict: PASSED" in shown
    assert {each["run"] for each in found["findings"]} == {str(runs / "pre"), str(runs / "tuned")}
    assert call("audit", runs / "pre2") == 0
    assert str(runs / "search") in capsys.readouterr().out


def test_a_random_run_warns_and_fails_the_audit(runs, tmp_path, capsys):
    tune = ["--checkpoint", runs / "pre", "--shots", 3, "--steps", 2, "--protocol", "random"]
    assert call("finetune", *DATA, *tune, "--out", tmp_path / "run") == 0
    shown = capsys.readouterr().out
    assert "WARNING: protocol random" in shown
    assert "audit: leak" in shown
    assert call("audit", tmp_path / "run") == 2
    captured = capsys.readouterr()
    assert "| test | train |" in captured.out
    assert "LeakError: " in captured.err
    assert "shared by test and train" in captured.err
    assert call("evaluate", tmp_path / "run") == 0
    assert "WARNING: protocol random" in capsys.readouterr().out


def test_a_run_whose_checkpoint_is_gone_is_unknown_and_fails(runs, tmp_path, capsys):
    shutil.copytree(runs / "pre", tmp_path / "pre")
    tune = ["--checkpoint", tmp_path / "pre", "--shots", 3, "--steps", 2]
    assert call("finetune", *DATA, *tune, "--out", tmp_path / "run") == 0
    shutil.rmtree(tmp_path / "pre")
    assert call("audit", tmp_path / "run") == 2
    captured = capsys.readouterr()
    assert "verdict: UNKNOWN" in captured.out
    assert "all it was trained on must be known, got" in captured.err


def test_transductive_pretraining_passes_the_audit_only_when_asked(runs, tmp_path):
    sizes = ["--encoder-options", *(f"{name}={value}" for name, value in SMALL.items())]
    assert call("pretrain", *DATA, *sizes, "--steps", 2, "--transductive", "--out", tmp_path / "pre") == 0
    tune = ["--checkpoint", tmp_path / "pre", "--shots", 3, "--steps", 2]
    assert call("finetune", *DATA, *tune, "--out", tmp_path / "run") == 0
    assert call("audit", tmp_path / "run") == 2
    assert call("audit", tmp_path / "run", "--transductive") == 0


def test_a_user_run_scores_other_sessions_and_unseen_impostors(tmp_path, capsys):
    population = POPULATION.replace('"sessions": 1', '"sessions": 2')
    data = [*DATA[:-1], population, "--task", "user", "--protocol-options", "impostor_fraction=0.25"]
    tune = ["--method", "scratch", "--shots", 8, "--steps", 5]
    assert call("finetune", *data, *tune, "--out", tmp_path / "run") == 0
    stored = json.loads((tmp_path / "run" / "results.json").read_text())
    split, scores = stored["details"]["split"], stored["scores"]
    assert (split["protocol"], split["kind"], len(split["impostors"])) == ("session", "session", 1)
    assert len(load_run(tmp_path / "run").classes) == 3
    assert not set(split["impostors"]) & {*stored["details"]["train_subjects"], *scores["per_subject"]}
    assert set(scores["verification"]) == {
        f"{way}, {people} people" for way in ("probability", "embedding") for people in ("unseen", "enrolled")
    }
    out, picture = tmp_path / "scores.json", tmp_path / "far.png"
    capsys.readouterr()
    assert call("evaluate", tmp_path / "run", "--out", out, "--picture", picture) == 0
    assert json.loads(out.read_text()) == scores
    assert picture.stat().st_size > 10_000
    assert "verification by embedding, unseen people: EER" in capsys.readouterr().out
    assert call("audit", tmp_path / "run") == 0
    assert call("evaluate", tmp_path / "run", "--task", "activity") == 2
    assert "--task: must be user, the run's own, got activity" in capsys.readouterr().err


def test_scores_of_subjects_are_those_of_scikit_learn():
    windows, rng = people(subjects=5, each=6), np.random.default_rng(0)
    predicted = rng.integers(0, 3, len(windows))
    scores = full_scores(predicted, windows)
    for subject in np.unique(windows.subjects):
        rows = windows.subjects == subject
        expected = f1_score(windows.labels[rows], predicted[rows], average="macro")
        assert scores["per_subject"][str(subject)] == pytest.approx(expected)
    values = list(scores["per_subject"].values())
    about = {"mean": np.mean(values), "std": np.std(values, ddof=1), "worst": min(values)}
    assert scores["subject_macro_f1"] == pytest.approx(about)
    assert scores["accuracy"] == pytest.approx((predicted == windows.labels).mean())


def other_csv(folder, *, gyro: bool, subject: str = "me") -> list[object]:
    """Write a csv data set whose classes have names of their own; return the arguments that name it."""
    folder.mkdir()
    names = {0: "resting", 1: "strolling", 2: "jogging"}
    for recording in open_dataset("synthetic", parsed_options((POPULATION,))).read()[:2]:
        columns = recording.channels if gyro else recording.channels[:3]
        with (folder / f"{subject}_{recording.session}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["time", *columns, "what"])
            for row, (values, label) in enumerate(zip(recording.signal, recording.labels, strict=True)):
                cells = [f"{value:.5f}" for value in values[: len(columns)]]
                writer.writerow([f"{row / recording.rate_hz:.6f}", *cells, names[int(label)]])
    options = ["label=what", "gyro_unit=rad/s"] if gyro else ["label=what", "gyro=null"]
    return ["--data", "csv", "--root", folder, "--data-options", *options]


@pytest.mark.parametrize("gyro", [True, False])
def test_another_data_set_is_scored_on_matched_classes_and_channels(runs, tmp_path, capsys, gyro):
    other = other_csv(tmp_path / "csv", gyro=gyro)
    matched = ["--label-map", "walk=strolling", "sit=resting", "--out", tmp_path / "scores.json"]
    capsys.readouterr()
    assert call("evaluate", runs / "tuned", *other, *matched) == 0
    shown, scores = capsys.readouterr().out, json.loads((tmp_path / "scores.json").read_text())
    assert "classes compared: sit, walk\n" in shown
    assert "classes the data lack: run\n" in shown
    count = scores["compared"]["left_out_classes"]["jogging"]
    assert f"left out, because the model does not know them: jogging ({count} windows)" in shown
    assert scores["compared"]["missing_channels"] == ([] if gyro else ["gyro_x", "gyro_y", "gyro_z"])
    options = DataOptions(
        data="csv", root=tmp_path / "csv", seconds=2.0, data_options=tuple(str(each) for each in other[5:])
    )
    windows, _ = load_windows(options)
    known = windows.subset(windows.labels != windows.classes.index("jogging"))
    model = load_run(runs / "tuned", channels=known.channels).model
    answers = predict_probabilities(model, known.x).argmax(1).numpy()
    names = {"resting": "sit", "strolling": "walk"}
    truth = [load_run(runs / "tuned").classes.index(names[known.classes[label]]) for label in known.labels]
    assert scores["count"] == len(known)
    assert scores["accuracy"] == pytest.approx((answers == truth).mean(), abs=1e-9)


def test_data_a_model_was_trained_on_or_cannot_read_are_refused(runs, tmp_path, capsys):
    def refusal(*arguments: object) -> str:
        assert call("evaluate", runs / "tuned", *arguments) == 2
        return capsys.readouterr().err

    again = refusal("--data", "synthetic", "--data-options", POPULATION)
    assert "subjects must not have been trained on, got 3 of 4 in train of" in again
    assert "synthetic/p0" in again
    other = other_csv(tmp_path / "csv", gyro=True)
    assert "must show one of the model's classes: sit, walk, run, got jogging, resting, strolling" in refusal(*other)
    one_axis = [*other, "--label-map", "walk=dancing"]
    assert "old names must be among jogging, resting, strolling, got dancing" in refusal(*one_axis)


def test_sensors_must_be_there_whole_and_gravity_must_match():
    wanted = ("acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z")
    assert usable_channels(("mag_x", *wanted[:3]), wanted) == wanted[:3]
    assert usable_channels(wanted[::-1], wanted) == wanted
    with pytest.raises(DataError, match="must have whole sensors .* without acc_z"):
        usable_channels(wanted[:2], wanted)
    with pytest.raises(DataError, match="must have whole sensors .* without any of them"):
        usable_channels(("mag_x",), wanted)


def test_gravity_that_was_taken_out_cannot_be_put_back(runs, monkeypatch):
    made = from_json(FinetuneOptions, stored_options(runs / "tuned", "imu_saga.finetune"))
    card = read_card(runs / "tuned")
    recordings, classes = load_recordings(made.source)
    removed = [remove_gravity(recording) for recording in recordings]
    monkeypatch.setattr(cross_data, "load_recordings", lambda options: (removed, classes))
    with pytest.raises(DataError, match="gravity must be kept in the accelerometer.* Fine-tune .* --gravity removed"):
        load_other(made.source, card)


def test_data_that_changed_since_the_run_are_refused(runs, tmp_path, capsys):
    shutil.copytree(runs / "tuned", tmp_path / "run")
    made = json.loads((tmp_path / "run" / "config.json").read_text())
    made["config"]["source"]["split_seed"] = 3
    (tmp_path / "run" / "config.json").write_text(json.dumps(made))
    assert call("evaluate", tmp_path / "run") == 2
    assert "must hold out the 1 subjects the run held out" in capsys.readouterr().err


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
        starts=("equal", "searched"),
        methods=("lora_tsd",),
        baselines=("majority", "random_forest", "scratch"),
    )
    folder = RunFolder.create(tmp_path / "c", "imu_saga.compare", {})
    records = run_protocol(sides, config, folder)
    rows = ("majority", "random_forest", "scratch", "equal, lora_tsd", "searched, lora_tsd")
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
