"""The command line: every subcommand on real files, errors without tracebacks."""

import csv
import json

import pytest

from shared_peft.command import run_commands
from vision.commands import COMMANDS

pytestmark = pytest.mark.filterwarnings("ignore:ranks lowered")


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
    assert call("predict", run, colour_folder / "test", "--out", tmp_path / "p.csv") == 0
    with (tmp_path / "p.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["path", "label", "confidence"]
    right = sum(f"/{row['label']}/" in row["path"] for row in rows)
    assert len(rows) == 12
    assert right == round(scores["accuracy"] * 12)
    assert all(1 / 3 - 1e-6 <= float(row["confidence"]) <= 1 for row in rows)


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
        (("train",), "command must be one of finetune, evaluate, predict, compare, pretrain, got 'train'"),
    ],
)
def test_errors_are_one_line_without_a_traceback(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*words) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "o").exists()


def test_a_run_of_other_classes_is_refused(small_conv_run, colour_folder, capsys):
    assert call("evaluate", small_conv_run, "--data", colour_folder) == 2
    assert "DataError: colours: classes must be different ones of blue, green, red, got '0'" in capsys.readouterr().err
