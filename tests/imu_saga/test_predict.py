"""Any recording in, labels at their times out: 416 Hz in g with gaps and odd names; smoothing, gravity, pictures."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from imu_saga.commands import COMMANDS
from imu_saga.datasets import open_dataset
from imu_saga.datasets.synthetic import to_recordings
from imu_saga.finetune import FinetuneConfig, finetune, predict_probabilities
from imu_saga.predict import FEW_MEASURED, GAP, TOO_SHORT, predict_csv, predict_recordings
from imu_saga.signal.gravity import remove_gravity
from imu_saga.signal.resample import resample
from imu_saga.signal.units import GRAVITY
from imu_saga.streaming.smoothing import SMOOTHINGS, build_smoothing
from imu_saga.synthetic import Population, generate
from imu_saga.timeline import label_runs
from imu_saga.trained import load_run, save_run
from imu_saga.windows import cut_windows
from shared_peft.command import run_commands
from shared_peft.errors import ConfigError, DataError, UnknownNameError
from shared_peft.training import RunFolder

ACTIVITIES = ("sit", "walk", "run")
POPULATION = Population(subjects=8, activities=ACTIVITIES, bout_s=24.0, sessions=1, gaps_per_minute=0.0, tilt_error=0.2)
ODD = ["t [s]", "Accel X (g)", "Accel Y (g)", "Accel Z (g)", "wx", "wy", "wz"]
MAPPING = {"time": ODD[0], "acc": ODD[1:4], "gyro": ODD[4:]}
COLUMNS = [f"{key}={value if isinstance(value, str) else ','.join(value)}" for key, value in MAPPING.items()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network trained on eight synthetic people with gravity, and one hardly trained without."""
    root = tmp_path_factory.mktemp("runs")
    recordings = [resample(one, 20.0) for session in generate(POPULATION) for one in to_recordings(session)]
    for gravity, steps in (("kept", 40), ("removed", 4)):
        chosen = recordings if gravity == "kept" else [remove_gravity(one) for one in recordings]
        windows, _ = cut_windows(chosen, ACTIVITIES, seconds=2.0)
        name, model = finetune(windows, FinetuneConfig(method="scratch", steps=steps, batch_size=32))
        save_run(RunFolder.create(root / gravity, "imu_saga.finetune", {}), name, model, windows, {"scores": {}})
    return root


def someone(seed=7, rate_hz=416.0):
    """A person never seen: (samples,) times [s], (samples, 6) SI and the activities' names."""
    population = replace(POPULATION, subjects=1, seed=seed, rate_hz=rate_hz, jitter=0.0, tilt_error=0.05)
    session = generate(population)[0]
    return session.times_s, session.signal, np.array(ACTIVITIES)[session.labels]


def write_csv(path, times, signal, kept):
    """Write the rows kept, in g and deg/s, under odd names."""
    values = signal / ([GRAVITY] * 3 + [np.pi / 180] * 3)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(ODD)
        writer.writerows([[f"{cell:.7f}" for cell in row] for row in np.column_stack([times, values])[kept]])


def call(*arguments):
    return run_commands("imu_saga", COMMANDS, [str(argument) for argument in arguments])


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The csv of 416 Hz with a short gap at 11.9 s and a long one at 30 s; its times and truth."""
    folder = tmp_path_factory.mktemp("csv")
    times, signal, truth = someone()
    kept = ~((times > 10.9) & (times < 11.38)) & ~((times > 30.0) & (times < 33.7))
    write_csv(folder / "me.csv", times, signal, kept)
    return folder / "me.csv", times, truth


def test_a_416_hz_csv_in_g_with_gaps_gets_the_right_labels_at_the_right_times(trained, recorded, tmp_path, capsys):
    path, times, truth = recorded
    assert call("predict", trained / "kept", path, "--columns", *COLUMNS, "--out", tmp_path / "out.csv") == 0
    rows = rows_of(tmp_path / "out.csv")
    gaps = [row for row in rows if row["note"] == GAP]
    assert [(float(row["start_s"]), float(row["end_s"])) for row in gaps] == [pytest.approx((30.0, 33.7), abs=0.1)]
    silent = [row for row in rows if row["note"] == FEW_MEASURED]
    assert [float(row["start_s"]) for row in silent] == pytest.approx([10.0])
    assert all(row["label"] == "" and row["confidence"] == "0.0000" for row in gaps + silent)
    judged = 0
    for row in rows:
        inside = truth[(times >= float(row["start_s"])) & (times < float(row["end_s"]))]
        if not row["note"] and len(set(inside)) == 1:
            assert row["label"] == inside[0]
            judged += 1
    assert judged >= 28
    assert "1 without a label, 1 long gaps" in capsys.readouterr().out
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_columns_are_taken_by_their_names_and_told(trained, recorded, tmp_path, capsys):
    labels = []
    for columns in ((), ("--columns", *COLUMNS, "gyro_unit=deg/s")):
        out = tmp_path / f"out{len(columns)}.csv"
        assert call("predict", trained / "kept", recorded[0], *columns, "--out", out, "--picture", "none") == 0
        labels.append([row["label"] for row in rows_of(out)])
    assert labels[0] == labels[1]
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("columns taken: --columns")]
    assert len(told) == 1
    assert "Accel X (g),Accel Y (g),Accel Z (g)" in told[0]
    assert "gyro=wx,wy,wz" in told[0]


def test_probabilities_are_those_of_the_resampled_windows(trained, recorded, tmp_path):
    path = recorded[0]
    out = tmp_path / "out.csv"
    options = ["--columns", *COLUMNS, "--out", out, "--picture", "none", "--probabilities", "--overlap", 0.5]
    assert call("predict", trained / "kept", path, *options) == 0
    assert not (tmp_path / "out.png").exists()
    recordings = [resample(one, 20.0) for one in open_dataset("csv", MAPPING).read(path)]
    windows, _ = cut_windows(recordings, (), seconds=2.0, overlap=0.5, keep_unlabelled=True, min_valid=0.0)
    expected = predict_probabilities(load_run(trained / "kept").model, windows.x).numpy()
    rows = [row for row in rows_of(out) if row["note"] != GAP]
    assert len(rows) == len(expected)
    for row, one in zip(rows, expected, strict=True):
        cells = [row[f"p_{name}"] for name in ACTIVITIES]
        if row["note"]:
            assert cells == ["", "", ""]
        else:
            assert [float(cell) for cell in cells] == pytest.approx(one.tolist(), abs=1e-6)
            assert row["label"] == ACTIVITIES[int(one.argmax())]
            assert float(row["confidence"]) == pytest.approx(one.max(), abs=1e-4)


def test_a_model_without_gravity_gets_recordings_without_it(trained, recorded):
    path, times, truth = recorded
    run = load_run(trained / "removed")
    found = predict_csv(run, path, options=MAPPING)
    recordings = [remove_gravity(resample(one, 20.0)) for one in open_dataset("csv", MAPPING).read(path)]
    again = predict_recordings(run, recordings)
    assert [each.label for each in found] == [each.label for each in again]
    for one, other in zip(found, again, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
    with pytest.raises(DataError, match="the accelerometer must measure gravity, as in training, got gravity removed"):
        predict_recordings(load_run(trained / "kept"), recordings)


def test_a_stretch_shorter_than_a_window_is_told_and_not_lost(trained, tmp_path):
    times, signal, _ = someone(rate_hz=100.0)
    kept = (times < 10) | ((times > 11) & (times < 12)) | (times > 14)
    write_csv(tmp_path / "me.csv", times, signal, kept)
    found = predict_csv(load_run(trained / "kept"), tmp_path / "me.csv", options=MAPPING)
    notes = [(round(each.start_s, 1), round(each.end_s, 1), each.note) for each in found if each.note]
    assert notes == [(10.0, 11.0, GAP), (11.0, 12.0, TOO_SHORT), (12.0, 14.0, GAP)]


def test_npz_files_and_registered_data_sets_are_read_by_the_same_command(trained, tmp_path):
    times, signal, _ = someone(rate_hz=100.0)
    write_csv(tmp_path / "me.csv", times, signal, np.ones(len(times), bool))
    columns = dict(zip(ODD, np.column_stack([times, signal / ([GRAVITY] * 3 + [np.pi / 180] * 3)]).T, strict=True))
    np.savez(tmp_path / "me.npz", **columns)
    for suffix in ("csv", "npz"):
        out = ["--out", tmp_path / f"{suffix}_out.csv", "--picture", "none"]
        assert call("predict", trained / "kept", tmp_path / f"me.{suffix}", "--columns", *COLUMNS, *out) == 0
    labels = [[row["label"] for row in rows_of(tmp_path / f"{suffix}_out.csv")] for suffix in ("csv", "npz")]
    assert labels[0] == labels[1]
    population = 'population={"subjects": 2, "bout_s": 8, "sessions": 1}'
    data = ["--data", "synthetic", "--columns", population, "--out", tmp_path / "all.csv"]
    assert call("predict", trained / "kept", tmp_path, *data) == 0
    assert len({row["session"] for row in rows_of(tmp_path / "all.csv")}) == 2


def test_smoothing_removes_a_single_stray_window():
    stray = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8], [0.2, 0.8]])

    def answers(name, **options):
        rule, memory, found = build_smoothing(name, options), (), []
        for row in stray:
            answer = rule.step(memory, row)
            memory = answer.memory
            found.append(answer.index)
        return found

    assert answers("none") == [0, 0, 1, 0, 1, 1, 1]
    assert answers("vote", n=3) == [0, 0, 0, 0, 1, 1, 1]
    assert answers("hysteresis", n=2, margin=0.1) == [0, 0, 0, 0, 0, 1, 1]
    assert answers("hysteresis", n=1, margin=0.5) == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_vote_is_the_most_frequent_of_the_last_n_and_its_mean_probability(n):
    shares = np.random.default_rng(n).dirichlet(np.ones(4), 200)
    rule, memory = build_smoothing("vote", {"n": n}), ()
    for row, share in enumerate(shares):
        answer = rule.step(memory, share)
        memory = answer.memory
        last = shares[max(0, row - n + 1) : row + 1]
        votes = [int((last.argmax(1) == index).sum()) for index in range(4)]
        assert votes[answer.index] == max(votes)
        best = max(last.mean(0)[index] for index in range(4) if votes[index] == max(votes))
        assert answer.confidence == pytest.approx(best)
        assert len(memory) <= n


@pytest.mark.parametrize("name", SMOOTHINGS.names())
def test_smoothing_leaves_a_steady_answer_alone(name):
    rule, memory = build_smoothing(name), ()
    for _ in range(20):
        answer = rule.step(memory, np.array([0.1, 0.7, 0.2]))
        memory = answer.memory
        assert (answer.index, answer.confidence) == (1, pytest.approx(0.7))


def test_wrong_smoothing_is_refused():
    with pytest.raises(UnknownNameError, match="smoothing: name must be one of hysteresis, none, vote, got 'median'"):
        build_smoothing("median")
    with pytest.raises(ConfigError, match="smoothing vote n: must be 1 or more, got 0"):
        build_smoothing("vote", {"n": 0})
    with pytest.raises(ConfigError, match=r"hysteresis margin: must be in \[0, 1\), got 1.0"):
        build_smoothing("hysteresis", {"margin": 1.0})


def test_runs_of_labels_cover_every_second_once(trained, recorded):
    run = load_run(trained / "kept")
    found = predict_csv(run, recorded[0], options=MAPPING, overlap=0.5)
    spans = list(label_runs(found))
    for (_, _, end_s), (_, start_s, _) in zip(spans, spans[1:], strict=False):
        assert start_s >= end_s - 1e-9
    for moment in np.arange(0.01, 70, 0.37):
        covering = [label for label, start, end in spans if start <= moment < end]
        last = [each.label for each in found if each.start_s <= moment < each.end_s][-1:]
        assert covering == last


def test_a_recording_without_a_single_whole_window_is_refused(trained, tmp_path):
    times, signal, _ = someone(rate_hz=100.0)
    write_csv(tmp_path / "me.csv", times, signal, times < 1.5)
    with pytest.raises(DataError, match="must hold 2 s or more without a break, got 1.5 s at most"):
        predict_csv(load_run(trained / "kept"), tmp_path / "me.csv", options=MAPPING | {"gyro_unit": "deg/s"})
