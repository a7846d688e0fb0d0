"""The benchmark's engine: budgets, folds, resuming, scores, what is within noise, tables, pictures, the command."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from imu_saga.benchmark.contender import Contender, contender, contender_names
from imu_saga.benchmark.engine import Grid, draw_labels, fingerprint, possible_shots, run_benchmark
from imu_saga.benchmark.noise import DRAWS, differences_from, macro_f1, resampled_scores
from imu_saga.benchmark.pictures import draw_benchmark
from imu_saga.benchmark.records import confusions_of_subjects, score_cell
from imu_saga.benchmark.sides import Sides, load_sides
from imu_saga.benchmark.starts import Starts, given_start
from imu_saga.benchmark.table import csv_text, difference_text, score_table, summary
from imu_saga.commands import COMMANDS
from imu_saga.evaluation.footprint import write_footprint
from imu_saga.finetune import FinetuneConfig
from imu_saga.pretrain import PretrainConfig, pretrain
from imu_saga.search import SearchConfig
from imu_saga.source import DataOptions
from shared_peft.command import run_commands
from shared_peft.errors import ConfigError, DataError, RunError, UnknownNameError
from shared_peft.training import RunFolder
from tests.imu_saga.planted import people

POPULATION = 'population={"subjects": 4, "bout_s": 14, "sessions": 1, "activities": ["sit", "walk", "run"]}'
DATA = ["--data", "synthetic", "--seconds", "2", "--data-options", POPULATION]


def call(*arguments: object) -> int:
    return run_commands("imu_saga", COMMANDS, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folds():
    windows = people(subjects=6, each=6)
    addresses = [f"my/{subject}/{row}/waist" for row, subject in enumerate(windows.subjects)]
    windows = dataclasses.replace(windows, sessions=np.asarray(addresses))
    names = np.unique(windows.subjects)
    return [side(windows, names[:3], "0"), side(windows, names[3:], "1")]


def side(windows, held_out, name):
    test = np.isin(windows.subjects, held_out)
    return Sides(windows.subset(~test), windows.subset(~test), windows.subset(test), name)


def folder(path):
    return RunFolder.create(path, "imu_saga.benchmark", {}, resume=True)


def guesser(name, right, calls=None):
    """Answer right with probability ``right``, drawn from the cell's seed and the row's name."""

    def answer(cell):
        if calls is not None:
            calls.append(cell)
        rng = np.random.default_rng([cell.seed, len(cell.labelled), len(name), int(cell.sides.name)])
        labels = cell.sides.test.labels
        wrong = (labels + rng.integers(1, 3, len(labels))) % 3
        return np.eye(3)[np.where(rng.random(len(labels)) < right, labels, wrong)]

    return Contender(name, answer)


def test_rows_see_the_same_labels_of_training_people_and_no_more_than_the_budget(folds, tmp_path):
    calls = []
    rows = [guesser("a", 1.0, calls), guesser("bb", 0.5, calls)]
    found = run_benchmark(folds, rows, Grid((1, 4, 0), 2), folder(tmp_path)).records
    assert len(found) == len(calls) == 2 * 2 * 3 * 2
    half = len(calls) // 2
    for one, other in zip(calls[:half], calls[half:], strict=True):
        np.testing.assert_array_equal(one.labelled.x, other.labelled.x)
    for cell, record in zip(calls, found, strict=True):
        assert not set(cell.labelled.subjects) & set(cell.sides.test.subjects)
        each = record["shots"] or 18
        assert np.bincount(cell.labelled.labels).tolist() == [each] * 3
        assert record["labels"] == 3 * each
    few, more = (draw_labels(folds[0].train, shots, 7) for shots in (2, 5))
    assert set(few.sessions) < set(more.sessions), "more labels keep the fewer"


def test_a_killed_benchmark_goes_on_and_ends_as_if_it_had_not_been_killed(folds, tmp_path):
    grid = Grid((2, 3), 2)
    whole = run_benchmark(folds, [guesser("a", 0.7), guesser("bb", 0.6)], grid, folder(tmp_path / "whole"))
    calls = []

    def dying(row, cells):
        def answer(cell):
            if len(calls) == cells:
                raise KeyboardInterrupt
            return row.answer(cell)

        return Contender(row.name, answer)

    for cells in (3, 5, 14):
        rows = [dying(guesser("a", 0.7, calls), cells), dying(guesser("bb", 0.6, calls), cells)]
        with pytest.raises(KeyboardInterrupt):
            run_benchmark(folds, rows, grid, folder(tmp_path / "killed"))
        assert len(json.loads((tmp_path / "killed" / "records.json").read_text())) == cells
    lines, rows = [], [guesser("a", 0.7, calls), guesser("bb", 0.6, calls)]
    again = run_benchmark(folds, rows, grid, folder(tmp_path / "killed"), tell=lines.append)
    assert again.records == whole.records
    assert len(calls) == 16, "no cell is run twice"
    assert len(lines) == 2
    files = [(tmp_path / name / "records.json").read_text() for name in ("whole", "killed")]
    assert files[0] == files[1]


def test_numbers_of_shots_that_a_class_cannot_give_are_left_out_with_a_note(folds, tmp_path):
    train = folds[1].train
    third = np.flatnonzero(train.labels == 2)
    scarce = train.subset(np.setdiff1d(np.arange(len(train)), third[3:]))
    poor = [folds[0], dataclasses.replace(folds[1], train=scarce)]
    shots, notes = possible_shots(poor, (5, 0, 3, 100))
    assert shots == (3, 0)
    assert notes == tuple(f"k={k} left out: class 'fast' has 3 windows in fold 1" for k in (5, 100))
    with pytest.raises(DataError, match="must be 3 or less: class 'fast' has no more windows in fold 1, got 5"):
        run_benchmark(poor, [guesser("a", 1.0)], Grid((5, 100), 1), folder(tmp_path))


def test_a_class_the_training_side_never_shows_is_no_obstacle_and_counts_as_an_error(folds, tmp_path):
    missing = folds[0].train.subset(folds[0].train.labels != 1)
    poor = [dataclasses.replace(folds[0], train=missing)]
    tuning = FinetuneConfig()
    rows = [contender(name, tuning, lambda sides: None) for name in ("majority", "logistic_regression")]
    found = run_benchmark(poor, rows, Grid((2,), 1), folder(tmp_path)).records
    assert [record["labels"] for record in found] == [4, 4]
    assert all(record["per_class_f1"][1] == 0 for record in found)


def test_scores_equal_scikit_learns_for_all_windows_and_every_person(folds):
    test = folds[0].test
    answers = np.random.default_rng(0).random((len(test), 3))
    answers[:, 2] -= 0.4 * (test.labels == 0)
    scored, predicted = score_cell(answers, test), answers.argmax(axis=1)
    assert scored["macro_f1"] == pytest.approx(f1_score(test.labels, predicted, average="macro"))
    assert scored["per_class_f1"] == pytest.approx(f1_score(test.labels, predicted, average=None))
    assert scored["confusion"] == confusion_matrix(test.labels, predicted).tolist()
    matrices = confusions_of_subjects(scored)
    for matrix, (subject, one) in zip(matrices, scored["subjects"].items(), strict=True):
        rows = test.subjects == subject
        assert one["macro_f1"] == pytest.approx(f1_score(test.labels[rows], predicted[rows], average="macro"))
        assert one["accuracy"] == pytest.approx((test.labels[rows] == predicted[rows]).mean())
        np.testing.assert_array_equal(matrix, confusion_matrix(test.labels[rows], predicted[rows], labels=range(3)))
        assert macro_f1(matrix) == pytest.approx(one["macro_f1"])
    np.testing.assert_array_equal(matrices.sum(axis=0), scored["confusion"])


class Ones:
    """A generator whose weights are all 1."""

    def exponential(self, size):
        return np.ones(size)


def test_the_bootstrap_with_equal_weights_is_the_mean_over_folds_and_draws(folds, tmp_path):
    rows = [guesser("a", 0.8), guesser("bb", 0.6)]
    records = run_benchmark(folds, rows, Grid((2,), 3), folder(tmp_path)).records
    for row, scores in resampled_scores(records, ("a", "bb"), Ones()).items():
        assert scores.shape == (DRAWS,)
        np.testing.assert_allclose(scores, np.mean([r["macro_f1"] for r in records if r["row"] == row]))


def test_a_better_row_is_told_from_noise_and_an_equal_one_is_not(folds, tmp_path):
    rows = [guesser("a", 0.8), guesser("bb", 0.8), guesser("ccc", 0.5)]
    records = run_benchmark(folds, rows, Grid((2,), 4), folder(tmp_path)).records
    copies = [{**record, "row": "dddd"} for record in records if record["row"] == "a"]
    found = differences_from([*records, *copies], np.random.default_rng(0))
    by_row = {each.row: each for each in found}
    best = found[0].other
    equal, worse = ({"a", "bb"} - {best}).pop(), by_row["ccc"]
    assert by_row[equal].within_noise
    assert not worse.within_noise
    assert worse.low < worse.mean < worse.high < -0.1
    of_copy = by_row["dddd"]
    if best == "a":
        assert (of_copy.mean, of_copy.low, of_copy.high) == (0, 0, 0)
    assert f"k=2, beside {best}: " in difference_text(found)
    assert "ccc behind (-" in difference_text(found)
    turned = differences_from([*records, *copies], np.random.default_rng(0), reference="ccc")
    assert f"{best} ahead (+" in difference_text(turned)
    assert {each.other for each in turned} == {"ccc"}


def test_luck_with_the_labels_of_one_fold_is_noise_even_with_a_single_draw_a_fold():
    """Every person of a fold does better by the same amount, in one fold for one row, in the other for the other."""

    def record(row, fold, right):
        counts = [[0, 0, right], [0, 1, 100 - right], [1, 1, 100]]
        subjects = {f"{fold}{person}": {"counts": counts} for person in range(400)}
        f1 = float(macro_f1(np.array([[right, 100 - right], [0, 100]])))
        return {
            "row": row, "fold": fold, "shots": 1, "seed": 0, "macro_f1": f1, "classes": ["a", "b"], "subjects": subjects
        }  # fmt: skip

    records = [record("x", "0", 90), record("x", "1", 60), record("y", "0", 70), record("y", "1", 75)]
    assert differences_from(records, np.random.default_rng(0))[0].within_noise


def test_the_interval_stands_around_the_difference_where_people_are_the_classes():
    """F1 is not linear in a class's weight: weighted draws of forty one-class people lie below the score itself."""

    def record(row, right):
        classes = [f"p{person}" for person in range(40)]
        hits = np.full((40, 40), (100 - right) // 39) + np.eye(40, dtype=int) * (right - (100 - right) // 39)
        subjects = {
            name: {"counts": [[person, other, int(hits[person, other])] for other in range(40)]}
            for person, name in enumerate(classes)
        }
        f1 = float(macro_f1(hits[None])[0])
        return {
            "row": row, "fold": "0", "shots": 1, "seed": 0, "macro_f1": f1, "classes": classes, "subjects": subjects
        }  # fmt: skip

    records = [record("x", 61), record("y", 22)]
    found = differences_from(records, np.random.default_rng(0))[0]
    draws = resampled_scores(records, ["x", "y"], np.random.default_rng(0))
    assert abs((draws["y"] - draws["x"]).mean() - found.mean) > 0.02  # what is corrected for
    assert (found.low + found.high) / 2 == pytest.approx(found.mean, abs=0.01)


def test_intervals_hold_the_true_difference_as_often_as_they_say(folds, tmp_path):
    """Forty benchmarks of two rows that answer right with the same probability: about 95 % hold 0."""
    wide = [
        side(people(subjects=12, each=4, samples=4), [f"p{n}" for n in range(12) if n % 2 == fold], str(fold))
        for fold in range(2)
    ]
    held = []
    for trial in range(40):
        rows = [guesser("a" * (2 * trial + 1), 0.7), guesser("b" * (2 * trial + 2), 0.7)]
        records = run_benchmark(wide, rows, Grid((1,), 1), folder(tmp_path / str(trial))).records
        held.append(differences_from(records, np.random.default_rng(trial))[0].within_noise)
    assert np.mean(held) >= 0.85


def test_tables_hold_means_deviations_and_every_record(folds, tmp_path):
    records = run_benchmark(folds, [guesser("a", 0.8), guesser("bb", 0.6)], Grid((0, 2), 2), folder(tmp_path)).records
    lines = score_table(records, "accuracy").splitlines()
    assert lines[0] == "| row | k=2 | all |"
    values = [record["accuracy"] for record in records if (record["row"], record["shots"]) == ("bb", 0)]
    assert lines[3].endswith(f"| {np.mean(values):.3f} +- {np.std(values, ddof=1):.3f} |")
    rows = list(csv.DictReader(csv_text(records).splitlines()))
    assert [float(row["macro_f1"]) for row in rows] == [record["macro_f1"] for record in records]
    assert [float(row["f1_fast"]) for row in rows] == [record["per_class_f1"][2] for record in records]
    told = summary(records, differences_from(records, np.random.default_rng(0)))
    assert [cell["cells"] for cell in told["cells"]] == [4] * 4
    assert {each["shots"] for each in told["differences"]} == {0, 2}


def test_pictures_are_drawn_for_one_row_and_for_many_and_for_classes_that_differ_between_folds(folds, tmp_path):
    rows = [guesser("x" * (n + 1), 0.9 - 0.1 * n) for n in range(5)]
    records = run_benchmark(folds, rows, Grid((1, 4, 0), 1), folder(tmp_path / "run")).records
    other = [
        {**r, "classes": ["slow", "fast"], "per_class_f1": [0.5, 0.6], "confusion": [[3, 1], [0, 4]]}
        for r in records
        if r["fold"] == "1"
    ]
    mixed = [record for record in records if record["fold"] == "0"] + other
    for name, chosen in (("many", mixed), ("one", [record for record in records if record["row"] == "x"])):
        files = draw_benchmark(chosen, tmp_path / name)
        assert [file.name for file in files] == ["curves.png", "classes.png", "confusion.png", "subjects.png"]
        assert all(file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 5_000 for file in files)


def test_folds_keep_people_apart_and_hold_everyone_out_once():
    options = DataOptions(seconds=2.0, data_options=(POPULATION,), protocol="group_k_fold", overlap=0.5)
    made = load_sides(dataclasses.replace(options, protocol_options=("n_folds=2",)), splits=2)
    assert [sides.name for sides in made] == ["0.0", "0.1", "1.0", "1.1"]
    for draw in (made[:2], made[2:]):
        tested = [subject for sides in draw for subject in np.unique(sides.test.subjects)]
        assert sorted(tested) == sorted(set(tested))
        assert len(tested) == 4
    for sides in made:
        known = set(sides.train.subjects) | set(sides.unlabelled.subjects)
        assert not known & set(sides.test.subjects)
        assert len(sides.unlabelled) > len(sides.train), "windows without a label are for pre-training"
        order = np.lexsort((sides.test.start_s, sides.test.sessions))
        same = sides.test.sessions[order][1:] == sides.test.sessions[order][:-1]
        assert (np.diff(sides.test.start_s[order])[same] > 1.9).all(), "test windows never overlap"
    assert fingerprint(made[:2]) != fingerprint(made[2:])
    with pytest.raises(ConfigError, match="--splits: must be 1 or more, got 0"):
        load_sides(options, splits=0)


def test_networks_start_from_encoders_of_their_folds_training_side_or_from_one_checked(folds, tmp_path):
    small = PretrainConfig(steps=3, batch_size=8, options={"width": 16, "depth": 1, "heads": 2})
    starts = Starts(tmp_path / "b", small, SearchConfig())
    tuning = FinetuneConfig(steps=3, batch_size=6)
    rows = [contender(name, tuning, starts.equal) for name in ("scratch", "head", "lora")]
    records = run_benchmark(folds, rows, Grid((2,), 1), folder(tmp_path / "b")).records
    assert len(records) == 6
    assert all((tmp_path / "b" / "pretrain_equal" / fold / "model.safetensors").is_file() for fold in "01")
    run = RunFolder.create(tmp_path / "seen", "imu_saga.pretrain", {})
    pretrain(folds[0].train, small, run, progress=None)
    write_footprint(run.path, {"pretrain": folds[0].train}, task="activity", protocol="subject")
    start = given_start(run.path)
    assert start(folds[0]) == run.path
    with pytest.raises(DataError, match="no subject that fold 1 is tested on may have been trained on, got 3 in both"):
        start(folds[1])
    assert given_start(run.path / "model.safetensors")(folds[1]) == run.path / "model.safetensors"


def test_what_cannot_be_run_is_refused(folds, tmp_path):
    with pytest.raises(
        UnknownNameError,
        match="name must be one of cnn, .*majority, .*auto, full, head, discriminant, scratch, .*'forrest'",
    ):
        contender("forrest", FinetuneConfig(), lambda sides: None)
    assert {"minirocket", "scratch", "lora_tsd"} < set(contender_names())
    for rows in ([], [guesser("a", 1.0), guesser("a", 0.5)]):
        with pytest.raises(ConfigError, match="--methods: must be different names"):
            run_benchmark(folds, rows, Grid(), folder(tmp_path / "a"))
    for shots in ((), (-1,), (2, 2)):
        with pytest.raises(ConfigError, match="--shots: must be different numbers"):
            Grid(shots)
    with pytest.raises(ConfigError, match="--seeds"):
        Grid(seeds=0)
    unlabelled = dataclasses.replace(folds[0].test, labels=np.full(len(folds[0].test), -1))
    with pytest.raises(DataError, match="the test side must hold labelled windows, and no others, got 0 of 54"):
        run_benchmark(
            [dataclasses.replace(folds[0], test=unlabelled)], [guesser("a", 1.0)], Grid(), folder(tmp_path / "b")
        )
    broken = folder(tmp_path / "c")
    broken.write("records.json", [{"row": "a"}])
    with pytest.raises(RunError, match="must hold a list of records"):
        run_benchmark(folds, [guesser("a", 1.0)], Grid((1,), 1), broken)


def test_the_command_prints_writes_draws_resumes_and_refuses_another_recipe(tmp_path, capsys):
    out = tmp_path / "b"
    methods = ["--methods", "majority", "logistic_regression", "--seeds", 2, "--out", out]
    assert call("benchmark", *DATA, *methods, "--shots", 1, 3, 500, 0) == 0
    shown = capsys.readouterr().out
    assert "| row | k=1 | k=3 | all |" in shown
    assert "k=500 left out: class" in shown
    assert "beside logistic_regression: majority behind" in shown
    wanted = {"records.json", "table.csv", "table.md", "summary.json", "curves.png", "classes.png"}
    assert wanted | {"confusion.png", "subjects.png"} <= {path.name for path in out.iterdir()}
    stored = json.loads((out / "records.json").read_text())
    assert len(stored) == 2 * 3 * 2
    assert call("benchmark", *DATA, *methods, "--shots", 1, 3, 500, 0) == 2
    assert "must be a new folder" in capsys.readouterr().err
    (out / "records.json").write_text(json.dumps(stored[:-1]))
    assert call("benchmark", *DATA, *methods, "--shots", 1, 3, 500, 0, "--resume") == 0
    assert json.loads((out / "records.json").read_text()) == stored
    capsys.readouterr()
    assert call("benchmark", *DATA, *methods, "--shots", 1, 3, "--resume") == 2
    assert "must keep its configuration, got changes in shots" in capsys.readouterr().err
    assert call("benchmark", *DATA, "--methods", "forrest", "--out", tmp_path / "x") == 2
    assert "'forrest'" in capsys.readouterr().err
