"""Tables of candidate labels, from file to trained run."""

import dataclasses
import json

import numpy as np
import pytest

from imu_saga.candidates import candidate_sets, read_candidates
from imu_saga.commands import COMMANDS
from imu_saga.finetune import FinetuneConfig
from imu_saga.source import DataOptions, load_windows
from imu_saga.windows import WindowSet
from shared_peft.command import run_commands
from shared_peft.errors import DataError
from tests.imu_saga.planted import people

QUICK = FinetuneConfig(method="scratch", steps=40, batch_size=24, learning_rate=3e-3)


def timed() -> WindowSet:
    """Return windows of 2 s: one session of two devices worn at once, and two other people's first session."""
    base = people(subjects=1, each=5).subset(np.arange(12))
    sessions = [f"diary/p{person}/walk_1/{place}" for person, place in ((0, "hip"), (0, "wrist"), (1, "hip"))]
    return dataclasses.replace(
        base,
        sessions=np.repeat(sessions, 4),
        placements=np.repeat(["hip", "wrist", "hip"], 4),
        start_s=np.tile([10.0, 12.0, 14.0, 16.0], 3),
        labels=np.asarray([0, 1, 2, -1] * 3),
    )


def written(path, *rows: str):
    path.write_text("\n".join(["session,start_s,end_s,candidates", *rows, ""]), encoding="utf-8")
    return path


def test_windows_inside_a_stretch_take_its_candidates_and_all_others_keep_their_label(tmp_path):
    windows = timed()
    path = written(
        tmp_path / "diary.csv",
        "p0/walk_1,11.99,16.01,slow|fast",
        "p0/walk_1,14,18,middle",
        "diary/p1/walk_1/hip,9,13,middle | fast",
    )
    sets, told = candidate_sets(windows, read_candidates(path, windows.classes))
    of_p0 = [[1, 0, 0], [1, 0, 1], [1, 1, 1], [0, 1, 0]]
    of_p1 = [[0, 1, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert sets.astype(int).tolist() == [*of_p0, *of_p0, *of_p1]
    assert told.astype(int).tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("p0/walk_1,18,10,slow", "row 2: end_s must come after start_s, got start_s 18, end_s 10"),
        ("p0/walk_1,,10,slow", "row 2: end_s must come after start_s, got start_s nan"),
        ("p0/walk_1,10,18,slow|fly", "row 2, column candidates: must be names among slow, middle, fast"),
        ("p0/walk_1,10,18,", "row 2, column candidates: must be names among"),
        ("p0/walk_1,ten,18,slow", "row 2, column start_s: must be a number"),
        ("p7/walk_1,10,18,slow", "column session: must name one session, got 0 for 'p7/walk_1'"),
        ("walk_1,10,18,slow", "must name one session, got 2 for 'walk_1': diary/p0/walk_1, diary/p1/walk_1"),
        ("p0/walk_1,10,11.9,slow", "a window of 2 s must fall inside a stretch, got none"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_row(row, message, tmp_path):
    windows = timed()
    with pytest.raises(DataError, match=message.replace("|", r"\|")):
        candidate_sets(windows, read_candidates(written(tmp_path / "diary.csv", row), windows.classes))


def test_a_table_without_its_columns_is_refused(tmp_path):
    path = tmp_path / "diary.csv"
    path.write_text("session,start_s,end_s,label\na,0,1,b\n", encoding="utf-8")
    with pytest.raises(DataError, match="columns 'candidates' must be in the header"):
        read_candidates(path, ("a", "b"))


POPULATION = 'population={"subjects": 4, "bout_s": 14, "sessions": 1, "activities": ["sit", "walk", "run"]}'
DATA = ["--data", "synthetic", "--seconds", "2", "--data-options", POPULATION, "--method", "scratch", "--steps", "3"]


def test_the_command_trains_on_a_diary_beside_few_labels(tmp_path, capsys):
    options = DataOptions(data="synthetic", seconds=2.0, data_options=(POPULATION,))
    found, _ = load_windows(options)
    rows = [
        f"{session},{start},{start + 2},{found.classes[label]}|{found.classes[(label + 1) % 3]}"
        for session, start, label in zip(found.sessions, found.start_s, found.labels, strict=True)
        if start % 4 == 0
    ]
    table = written(tmp_path / "diary.csv", *rows)
    asked = [*DATA, "--shots", "2", "--candidates", str(table), "--partial", "plcp", "--out", str(tmp_path / "run")]
    assert run_commands("imu_saga", COMMANDS, ["finetune", *asked]) == 0
    shown = capsys.readouterr().out
    assert "6 labelled windows, " in shown
    assert " with 2.0 candidates on average" in shown
    stored = json.loads((tmp_path / "run" / "results.json").read_text())
    on_the_training_side = ~np.isin(found.subjects, stored["details"]["test_subjects"])
    assert stored["details"]["candidate_windows"] == int((on_the_training_side & (found.start_s % 4 == 0)).sum())
    assert stored["details"]["shots"] == 2
    again = tmp_path / "again.json"
    assert run_commands("imu_saga", COMMANDS, ["evaluate", str(tmp_path / "run"), "--out", str(again)]) == 0
    capsys.readouterr()
    assert json.loads(again.read_text()) == stored["scores"]
    held_out = stored["details"]["test_subjects"][0]
    only = written(tmp_path / "other.csv", *[row for row in rows if f"/{held_out}/" in row])
    asked = [*DATA, "--shots", "2", "--candidates", str(only), "--out", str(tmp_path / "refused")]
    assert run_commands("imu_saga", COMMANDS, ["finetune", *asked]) == 2
    assert "must speak of at least one window of the training side" in capsys.readouterr().err
