"""Units are told from the signal on synthetic and real data, and refused where it contradicts or cannot tell."""

import numpy as np
import pytest
from scipy.io import loadmat

from imu_saga.datasets import open_dataset
from imu_saga.signal.units import acc_to_si, detect_acc_unit, detect_gyro_unit, gyro_to_si
from imu_saga.synthetic import Population, generate
from shared_peft.errors import DataError

ACC = {"m/s^2": 1.0, "g": 1 / 9.80665, "mg": 1000 / 9.80665}
GYRO = {"rad/s": 1.0, "deg/s": 180 / np.pi}


@pytest.fixture(scope="module")
def bouts():
    """(rows, 6) SI signals, one for each subject and activity, with the activity's name."""
    population = Population(subjects=4, placements=("waist", "wrist"), sessions=1, bout_s=20.0)
    return [
        (population.activities[label], session.signal[session.labels == label])
        for session in generate(population)
        for label in range(len(population.activities))
    ]


@pytest.mark.parametrize("unit", ACC)
def test_accelerometer_unit_is_told_in_every_activity(bouts, unit):
    for _, signal in bouts:
        assert detect_acc_unit(signal[:, :3] * ACC[unit], "x").unit == unit
        np.testing.assert_allclose(acc_to_si(signal[:, :3] * ACC[unit], "auto", "x"), signal[:, :3], rtol=1e-9)


@pytest.mark.parametrize("unit", GYRO)
def test_gyroscope_unit_is_told_or_refused_never_wrong(bouts, unit):
    told, refused = 0, set()
    for activity, signal in bouts:
        try:
            found = detect_gyro_unit(signal[:, :3], signal[:, 3:] * GYRO[unit], 50.0, "x").unit
        except DataError:
            refused.add(activity)
            continue
        assert found == unit
        told += 1
    assert refused <= {"sit", "stand"}
    assert told >= len(bouts) * 5 / 7


@pytest.mark.parametrize("unit", GYRO)
def test_gyroscope_unit_is_right_on_real_walks(shared_root, unit):
    recordings = open_dataset("sp_sw_har", {"placement": "both"}).read(shared_root / "data/imu/sp_sw_har")
    for recording in recordings[::9]:
        gyro = recording.signal[:, 3:] * GYRO[unit]
        assert detect_gyro_unit(recording.signal[:, :3], gyro, recording.rate_hz, "x").unit == unit


def test_units_of_utd_mhad_are_g_and_degrees(shared_root):
    for path in sorted((shared_root / "data/imu/utd_mhad/raw/Inertial").glob("*.mat"))[::20]:
        signal = loadmat(path)["d_iner"]
        assert detect_acc_unit(signal[:, :3], "x").unit == "g"
        assert detect_gyro_unit(signal[:, :3], signal[:, 3:], 50.0, "x").unit == "deg/s"


def test_units_are_never_wrong_on_vigorous_jumps_and_falls(shared_root):
    root, told, tried = shared_root / "data/imu/sisfall", 0, 0
    jumps = [one for one in open_dataset("sisfall").read(root) if one.session.startswith("D19")][::2]
    falls = [one for one in open_dataset("sisfall", {"falls": True}).read(root) if one.session.startswith("F")]
    for one in jumps + falls:
        acc, gyro = one.signal[:, :3].astype(np.float64), one.signal[:, 3:].astype(np.float64)
        for unit, scale in ACC.items():
            assert detect_acc_unit(acc * scale, "x").unit == unit
        for unit, scale in GYRO.items():
            tried += 1
            try:
                found = detect_gyro_unit(acc, gyro * scale, one.rate_hz, "x").unit
            except DataError:
                continue
            assert found == unit
            told += 1
    assert tried >= 150
    assert told >= 0.99 * tried


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.6, 1.0, 5.0, 9.0])
def test_noise_in_free_fall_has_no_unit(noise):
    generator = np.random.default_rng(0)
    acc, gyro = generator.normal(0, noise, (2000, 3)), generator.normal(0, noise, (2000, 3))
    for scale in ACC.values():
        with pytest.raises(DataError, match="acc must keep its direction|to tell the unit"):
            detect_acc_unit(acc * scale, "x")
        with pytest.raises(DataError, match="the device must turn"):
            detect_gyro_unit(acc * scale, gyro, 50.0, "x")


@pytest.mark.parametrize("unit", GYRO)
def test_a_broken_gyroscope_sample_changes_no_unit(bouts, unit):
    signal = next(signal for activity, signal in bouts if activity == "walk").copy()
    signal[100:103, 4] = 60.0
    assert detect_gyro_unit(signal[:, :3], signal[:, 3:] * GYRO[unit], 50.0, "x").unit == unit


@pytest.mark.parametrize(("row", "message"), [(5, "must stay within 4000 m/s.2, got 5000 at sample 5, axis z")])
def test_an_acceleration_beyond_every_sensor_is_refused(row, message):
    acc = still()[:, :3]
    acc[row, 2] = 5000.0
    with pytest.raises(DataError, match=message):
        acc_to_si(acc, "auto", "x")


def still(count=500, seed=0):
    noise = np.random.default_rng(seed).normal(0, 0.02, (count, 6))
    return noise + [0, 0, 9.81, 0, 0, 0]


def test_g_declared_as_si_is_refused():
    with pytest.raises(DataError, match=r"declared in m/s\^2 must have a median .* near 9.807, got 1, which fits g"):
        acc_to_si(still()[:, :3] / 9.81, "m/s^2", "walk.csv, columns ax, ay, az")


@pytest.mark.parametrize("scale", [0.0, 0.05, 3.0, 1e5])
def test_free_fall_missing_gravity_and_raw_counts_are_refused(scale):
    with pytest.raises(DataError, match="to tell the unit, got .* Convert it to m/s"):
        acc_to_si(still()[:, :3] * scale, "auto", "x")


def test_a_gyroscope_at_rest_is_refused_unless_declared():
    signal = still()
    with pytest.raises(DataError, match="the device must turn .* Declare the gyroscope's unit: rad/s or deg/s"):
        gyro_to_si(signal[:, :3], signal[:, 3:], "auto", 50.0, "x")
    np.testing.assert_allclose(gyro_to_si(signal[:, :3], signal[:, 3:], "rad/s", 50.0, "x"), signal[:, 3:])


@pytest.mark.parametrize(("declared", "true"), [("rad/s", "deg/s"), ("deg/s", "rad/s")])
def test_a_gyroscope_declared_in_the_other_unit_is_refused(declared, true):
    seconds = np.arange(1000) / 50
    tilt = 0.5 * np.sin(2 * np.pi * 0.2 * seconds)
    acc = 9.8 * np.stack([np.sin(tilt), 0 * tilt, np.cos(tilt)], axis=1)
    gyro = np.stack([0 * tilt, -np.gradient(tilt, seconds), 0 * tilt], axis=1) * GYRO[true]
    np.testing.assert_allclose(gyro_to_si(acc, gyro, true, 50.0, "x"), gyro / GYRO[true])
    with pytest.raises(DataError, match=f"gyro declared in {declared} must turn as fast .* Declare gyro in {true}"):
        gyro_to_si(acc, gyro, declared, 50.0, "x")


def test_impossible_rates_are_refused():
    with pytest.raises(DataError, match="must stay below 75 rad/s"):
        gyro_to_si(still()[:, :3], np.full((500, 3), 900.0), "rad/s", 50.0, "x")
