"""Inspection finds every planted defect, with numbers, and the options it prints are those that read the file."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from imu_saga.commands import COMMANDS
from imu_saga.datasets import open_dataset
from imu_saga.inspection.axes import MAPS, calm_bias, clipped_part, fit_arrangement
from imu_saga.inspection.facts import inspect_table
from imu_saga.inspection.guess import as_flag, guess_columns
from imu_saga.source import parsed_options
from shared_peft.command import run_commands
from shared_peft.errors import DataError

RATE_HZ, COUNT = 100.0, 2400
AXES = ["ax", "ay", "az", "gx", "gy", "gz"]


def turning():
    """(samples, 3) gravity [m/s^2] and angular rate [rad/s] of a device turned by known rotations, by scipy."""
    seconds = np.arange(COUNT) / RATE_HZ
    waves = [0.6 * np.sin(2 * np.pi * f * seconds + p) for f, p in ((0.31, 0.0), (0.47, 1.0), (0.23, 2.0))]
    attitude = Rotation.from_euler("xyz", np.stack(waves, axis=1))
    step = (attitude[:-1].inv() * attitude[1:]).as_rotvec() * RATE_HZ
    return attitude.inv().apply([0, 0, 9.81]), np.concatenate([step, step[-1:]])


def frame(scale=1.0):
    acc, gyro = turning()
    table = pd.DataFrame(np.concatenate([acc * scale, gyro], axis=1), columns=AXES)
    table.insert(0, "t", np.arange(COUNT) / RATE_HZ)
    table["activity"] = np.where(np.arange(COUNT) < COUNT // 2, "walk", "sit")
    return table


def inspected(table, path, **options):
    table.to_csv(path / "walk.csv", index=False)
    return inspect_table(path / "walk.csv", options)


HEADERS = {
    "t,ax,ay,az,gx,gy,gz,label": ("t", "ax,ay,az", "gx,gy,gz"),
    "time,seconds_elapsed,z,y,x": ("seconds_elapsed", "x,y,z", None),
    "timestamp,accX,accY,accZ,gyrX,gyrY,gyrZ,magX,magY,magZ": ("timestamp", "accX,accY,accZ", "gyrX,gyrY,gyrZ"),
    "time,gFx,gFy,gFz,wx,wy,wz": ("time", "gFx,gFy,gFz", "wx,wy,wz"),
    "Time (s),Acceleration x (m/s^2),Acceleration y (m/s^2),Acceleration z (m/s^2),Absolute acceleration (m/s^2)": (
        "Time (s)", "Acceleration x (m/s^2),Acceleration y (m/s^2),Acceleration z (m/s^2)", None,
    ),
    "Accelerometer X (m/s²),Accelerometer Y (m/s²),Accelerometer Z (m/s²),Gyro X (°/s),Gyro Y (°/s),Gyro Z (°/s),t": (
        "t",
        "Accelerometer X (m/s²),Accelerometer Y (m/s²),Accelerometer Z (m/s²)",
        "Gyro X (°/s),Gyro Y (°/s),Gyro Z (°/s)",
    ),
    "loggingTime(txt),accelerometerAccelerationX(G),accelerometerAccelerationY(G),accelerometerAccelerationZ(G),"
    "motionUserAccelerationX(G),motionUserAccelerationY(G),motionUserAccelerationZ(G)": (
        "loggingTime(txt)",
        "accelerometerAccelerationX(G),accelerometerAccelerationY(G),accelerometerAccelerationZ(G)",
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_common_headers_are_understood_and_printed_as_they_are_typed(header):
    time, acc, gyro = HEADERS[header]
    guess = guess_columns(header.split(","))
    assert (guess["time"], guess["acc"]) == (time, acc.split(","))
    assert guess["gyro"] == (None if gyro is None else gyro.split(","))
    assert parsed_options(tuple(shlex.split(as_flag(guess))[1:])) == guess


def test_acceleration_without_gravity_is_no_accelerometer():
    assert "acc" not in guess_columns(["Time (s)", *(f"Linear Acceleration {axis} (m/s^2)" for axis in "xyz")])


def test_names_with_commas_are_typed_as_json():
    options = {"acc": ["a,x", "a,y", "a,z"], "gyro": None}
    assert parsed_options(tuple(shlex.split(as_flag(options))[1:])) == options


def test_a_clean_recording_is_described_by_its_numbers(tmp_path):
    facts = inspected(frame(1 / 9.80665), tmp_path)
    assert facts.clock is not None
    assert facts.clock.rate_hz == pytest.approx(RATE_HZ, rel=1e-6)
    assert (facts.clock.unit, facts.clock.gaps, facts.clock.repeated, facts.clock.backwards) == ("s", 0, 0, 0)
    assert facts.clock.jitter < 1e-6
    assert (facts.acc_unit.unit, facts.gyro_unit.unit) == ("g", "rad/s")
    assert "median |acc| 1" in facts.acc_unit.evidence
    mean = turning()[0].mean(axis=0)
    np.testing.assert_allclose(facts.gravity, mean / np.linalg.norm(mean), atol=1e-6)
    assert facts.arrangement is not None
    assert facts.arrangement.given > 0.98
    assert not facts.arrangement.exchanged


def test_planted_clock_defects_are_counted(tmp_path):
    table = frame().drop(index=[*range(300, 340), 900])
    table = pd.concat([table.iloc[:1000], table.iloc[999:1000], table.iloc[1000:], table.iloc[100:150]])
    clock = inspected(table, tmp_path).clock
    assert clock is not None
    assert (clock.gaps, clock.repeated, clock.backwards) == (2, 1, 1)
    assert clock.longest_gap_s == pytest.approx(0.41)
    assert clock.first_backwards == 2 + COUNT - 41 + 1


def test_jitter_is_measured(tmp_path):
    table = frame()
    table["t"] += np.random.default_rng(0).uniform(-0.002, 0.002, COUNT)
    clock = inspected(table, tmp_path).clock
    assert clock is not None
    assert clock.jitter == pytest.approx(0.2 * np.sqrt(2 / 3), rel=0.05)  # a difference of two uniform numbers


def test_planted_axis_defects_are_told(tmp_path):
    table = frame()
    table["ax"] = table["ax"].clip(upper=3.0)
    table["gy"] = 0.0
    table["gz"] = table["gx"]
    table.loc[7:9, "ay"] = np.nan
    axes = {axis.name: axis for axis in inspected(table, tmp_path).axes}
    assert axes["ax"].clipped == pytest.approx((turning()[0][:, 0] >= 3).mean(), abs=1e-3)
    assert (axes["ay"].missing, axes["ay"].clipped) == (3, 0.0)
    assert axes["gy"].constant
    assert axes["gz"].same_as == "gx"
    assert not axes["az"].constant


def test_smooth_extremes_are_not_taken_for_a_rail():
    assert clipped_part(np.sin(np.linspace(0, 60, 5000))) == 0.0
    assert clipped_part(np.clip(np.sin(np.linspace(0, 60, 5000)), -1, 0.5)) == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("index", range(0, len(MAPS), 5))
def test_every_order_and_sign_of_axes_is_recovered(index):
    acc, gyro = turning()
    order, signs = MAPS[index]
    logged = np.empty_like(gyro)
    logged[:, order] = gyro * signs  # so that logged[:, order] * signs is the truth
    found = fit_arrangement(acc, logged, RATE_HZ)
    assert found is not None
    assert found.mapping == tuple(("-" if s < 0 else "") + "xyz"[i] for i, s in zip(order, signs, strict=True))
    assert found.exchanged == (index != 0)


def test_the_bias_is_that_of_the_still_second_and_none_without_one():
    generator = np.random.default_rng(0)
    gyro = np.concatenate([generator.normal(0, 1, (500, 3)), generator.normal([0.1, -0.2, 0.3], 0.01, (200, 3))])
    np.testing.assert_allclose(calm_bias(gyro, RATE_HZ, "rad/s"), [0.1, -0.2, 0.3], atol=0.01)
    assert calm_bias(gyro[:500], RATE_HZ, "rad/s") is None


def test_the_printed_cure_reads_the_file(tmp_path, capsys):
    table = frame()
    table = pd.concat([table.iloc[1500:], table.iloc[:1500]])
    path = tmp_path / "walk.csv"
    table.to_csv(path, index=False, sep=";", decimal=",")
    assert run_commands("imu_saga", COMMANDS, ["inspect", str(path), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "backwards  1 rows are earlier than the row before, first row 902" in printed
    assert "refused" in printed
    cure = next(line for line in printed.splitlines() if line.startswith("cure")).partition("--columns")[2]
    with pytest.warns(UserWarning, match="sorted by t"):
        (made,) = open_dataset("csv", parsed_options(tuple(shlex.split(cure)))).read(path)
    np.testing.assert_allclose(made.signal, np.concatenate(turning(), axis=1), atol=1e-4)
    stored = json.loads((tmp_path / "out/inspection.json").read_text())
    assert stored["table"]["clock"]["backwards"] == 1
    assert (tmp_path / "out/inspection.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["csv", "npz", "parquet"])
def test_the_own_sample_of_every_format_is_inspected(tmp_path, capsys, kind):
    open_dataset(kind).write_sample(tmp_path)
    assert run_commands("imu_saga", COMMANDS, ["inspect", str(tmp_path / f"ann.{kind}")]) == 0
    printed = capsys.readouterr().out
    assert "50.00 Hz" in printed
    assert "20.0 s at 50.00 Hz, 100.0 % measured" in printed
    assert "windows    2 windows (rock 1, roll 1); dropped: 1 mixed" in printed


def test_a_data_set_is_inspected_by_name(tmp_path, capsys):
    open_dataset("sisfall").write_sample(tmp_path)
    assert run_commands("imu_saga", COMMANDS, ["inspect", str(tmp_path), "--data", "sisfall"]) == 0
    printed = capsys.readouterr().out
    assert "200.00 Hz" in printed
    assert [line.split() for line in printed.splitlines() if line.startswith("SA01")] == [["SA01", "8.0", "8.0", "8.0"]]


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b't,ax,ay,az\n\xff,"1,2\n3\n', b"\0\0", b"", b"t,ax,ay,az\n,,,\n"])
def test_a_file_that_holds_nothing_is_refused_without_a_traceback(tmp_path, capsys, content):
    (tmp_path / "x.csv").write_bytes(content)
    status = run_commands("imu_saga", COMMANDS, ["inspect", str(tmp_path / "x.csv")])
    caught = capsys.readouterr()
    assert status in (0, 2)
    assert "DataError" in caught.err or "refused" in caught.out


def test_columns_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(DataError, match="columns bx must be in the header, got t, ax, ay"):
        inspected(frame(), tmp_path, acc=["bx", "ay", "az"])
