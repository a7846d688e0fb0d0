"""The command line: every subcommand on real files, errors without tracebacks."""

import csv
import json
import shutil

import pytest

from shared_peft import METHODS
from shared_peft.command import run_commands
from shared_peft.directions_report import directions_methods
from shared_peft.errors import RunError
from vision.augmentation import AUGMENTATIONS
from vision.commands import COMMANDS
from vision.datasets import DATASETS
from vision.trained import SEGMENT, load_run

pytestmark = pytest.mark.filterwarnings("ignore:ranks lowered", "ignore:.* runs beside dense layers only")
START = ("--backbone", "small_conv", "--data", "digits", "--checkpoint", "none.pt")
QUICK = ("--backbone", "small_conv", "--data", "digits", "--classes", "7", "8", "--shots", 4, "--epochs", 4)


def call(*words: object) -> int:
    return run_commands("vision", COMMANDS, [str(word) for word in words])


def test_the_overview_shows_every_command_with_an_example(capsys):
    assert call() == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert command.example in shown


def test_finetune_evaluate_and_predict_follow_each_other(small_conv_run, colour_folder, tmp_path, capsys):
    run = tmp_path / "run"
    options = ("--method", "flora", "--adapter", "r=2", "--shots", 4, "--epochs", 2, "--checkpoint", small_conv_run)
    assert call("finetune", "--backbone", "small_conv", "--data", colour_folder, "--out", run, *options) == 0
    assert (
        f"{json.loads((run / 'results.json').read_text())['parameters']['trainable']:,} trained"
        in capsys.readouterr().out
    )
    assert call("evaluate", run, "--data", colour_folder, "--out", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["confusion"] == json.loads((run / "results.json").read_text())["confusion"]
    assert call("evaluate", run, "--out", tmp_path / "same.json") == 0  # on its own data
    assert json.loads((tmp_path / "same.json").read_text()) == scores
    assert call("predict", run, colour_folder / "test", "--out", tmp_path / "p.csv") == 0
    with (tmp_path / "p.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["path", "label", "confidence"]
    right = sum(f"/{row['label']}/" in row["path"] for row in rows)
    assert len(rows) == 12
    assert right == round(scores["accuracy"] * 12)
    assert all(1 / 3 - 1e-6 <= float(row["confidence"]) <= 1 for row in rows)


@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_trains_by_its_name_alone(small_conv_run, tmp_path, method):
    run, start = tmp_path / "run", ("--checkpoint", small_conv_run, "--method", method)
    assert call("finetune", *QUICK, *start, "--out", run) == 0
    assert json.loads((run / "adapter" / "adapter_config.json").read_text())["peft_type"] == method.upper()
    parameters = json.loads((run / "results.json").read_text())["parameters"]
    assert parameters["trainable"] == parameters["body"] + parameters["head"] > parameters["head"] == 2 * 48 + 2
    assert call("evaluate", run, "--data", "digits", "--out", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["confusion"] == json.loads((run / "results.json").read_text())["confusion"]


@pytest.mark.parametrize("method", directions_methods())
def test_tsd_reports_every_adapted_layer_of_a_run(small_conv_run, tmp_path, capsys, method):
    run, out = tmp_path / "run", tmp_path / "out"
    start = ("--checkpoint", small_conv_run, "--method", method, "--adapter", "r=2", "--batch-size", 8)
    assert call("finetune", *QUICK, *start, "--out", run) == 0
    capsys.readouterr()
    assert call("tsd", run, "--out", out) == 0
    shown = capsys.readouterr().out
    layers = json.loads((out / "tsd.json").read_text())["layers"]
    assert [layer["layer"] for layer in layers] == ["stem.conv", "stage1.conv", "reduce.conv", "stage2.conv"]
    for layer in layers:
        assert layer["layer"] in shown
        assert layer["step"] == 1
        assert len(layer["chosen"]) == (2 if method == "lora_init" else 8)
        assert 0 < layer["chosen_share"] <= 1
    assert (out / "tsd.png").stat().st_size > 10_000
    assert len((out / "tsd.csv").read_text().splitlines()) == 1 + sum(len(layer["sigma"]) for layer in layers)


def test_tsd_of_a_run_that_chooses_no_directions_says_what_it_needs(small_conv_run, tmp_path, capsys):
    assert call("tsd", small_conv_run, "--out", tmp_path / "out") == 2
    must = "must be a run of lora_dash, lora_init, lora_tsd, which choose task-specific directions, got a run without"
    assert must in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_broken_image_is_named_or_skipped(small_conv_run, colour_folder, tmp_path, capsys):
    (colour_folder / "test" / "red" / "x.jpg").write_bytes(b"broken")
    assert call("predict", small_conv_run, colour_folder / "test", "--out", tmp_path / "p.csv") == 2
    assert "x.jpg: must be an image Pillow can read" in capsys.readouterr().err
    assert not (tmp_path / "p.csv").exists()
    assert call("predict", small_conv_run, colour_folder / "test", "--out", tmp_path / "p.csv", "--skip-broken") == 0
    assert "skipped" in capsys.readouterr().err
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 13


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "nowhere", "--data", "digits"), "RunError: nowhere: must be a run folder"),
        (("predict", "nowhere", "nowhere"), "RunError: nowhere"),
        (("pretrain", "--backbone", "small_cnv", "--data", "digits", "--out", "o"), "Did you mean small_conv"),
        (("train",), f"command must be one of {', '.join(command.name for command in COMMANDS)}, got 'train'"),
        (("compare", *START, "--methods", "lora,lorra", "--out", "o"), "--method: method must be one of full, probe"),
        (("finetune", *START, "--augment", "ligth", "--out", "o"), "augmentation: name must be one of cutmix, light"),
    ],
)
def test_errors_are_one_line_without_a_traceback(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*words) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "o").exists()


def test_help_names_every_data_set_and_augmentation(capsys):
    for command in ("finetune", "pretrain", "compare"):
        with pytest.raises(SystemExit, match="0"):
            call(command, "--help")
        shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert all(name in shown for name in (*DATASETS.names(), *AUGMENTATIONS.names()))


def test_a_segmentation_run_is_refused_by_what_reads_classifiers(small_conv_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(small_conv_run, run)
    described = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**described, "kind": SEGMENT}))
    for words in (("evaluate", run, "--data", "digits"), ("predict", run, run), ("explain", run, "--data", "digits")):
        assert call(*words) == 2
        shown = capsys.readouterr().err
        assert "must be a run of a classifier, got vision.segment. Use python -m vision segment predict" in shown
    with pytest.raises(RunError, match="segment predict"):
        load_run(run)


def test_a_run_of_other_classes_is_refused(small_conv_run, colour_folder, capsys):
    assert call("evaluate", small_conv_run, "--data", colour_folder) == 2
    assert "DataError: colours: classes must be different ones of blue, green, red, got '0'" in capsys.readouterr().err
