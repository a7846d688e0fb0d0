"""UTD-MHAD: Matlab files in g and deg/s; the place of the sensor depends on the action."""

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from imu_saga.datasets import open_dataset
from imu_saga.signal.units import detect_acc_unit, detect_gyro_unit
from shared_peft.errors import DataError


@pytest.fixture
def root(tmp_path):
    open_dataset("utd_mhad").write_sample(tmp_path / "download")
    return tmp_path / "download"


def check_trials(root):
    """Compare every recording with its file as scipy reads it; return the recordings."""
    recordings = open_dataset("utd_mhad").read(root)
    for one in recordings:
        action, trial = one.session.split("_")
        stored = loadmat(root / f"Inertial/a{int(action[1:])}_{one.subject}_{trial}_inertial.mat")["d_iner"]
        expected = np.concatenate([stored[:, :3] * 9.80665, stored[:, 3:] * np.pi / 180], axis=1)
        np.testing.assert_allclose(one.signal, expected, rtol=1e-6)
        assert set(one.labels) == {int(action[1:]) - 1}
        assert one.placement == ("right wrist" if int(action[1:]) <= 21 else "right thigh")
    return recordings


def test_trials_are_the_files_in_si_units_where_the_sensor_was(root):
    recordings = check_trials(root)
    assert {one.placement for one in recordings} == {"right wrist", "right thigh"}
    assert len(open_dataset("utd_mhad").read(root.parent)) == len(recordings) == 8


def test_all_real_trials_are_read_and_their_units_are_what_the_signal_says(shared_root):
    root = shared_root / "data/imu/utd_mhad/raw"
    recordings = check_trials(root)
    assert len(recordings) == 861
    assert {one.subject for one in recordings} == {f"s{number}" for number in range(1, 9)}
    assert {int(one.labels[0]) for one in recordings} == set(range(27))
    assert len(open_dataset("utd_mhad").class_names()) == len(set(open_dataset("utd_mhad").class_names())) == 27
    for one in recordings:
        assert detect_acc_unit(one.signal[:, :3], one.where).unit == "m/s^2"
        assert detect_gyro_unit(one.signal[:, :3], one.signal[:, 3:], 50.0, one.where).unit == "rad/s"


def test_real_walking_and_jogging_in_place_have_the_tempo_of_steps(shared_root):
    steps = {}
    for one in open_dataset("utd_mhad").read(shared_root / "data/imu/utd_mhad/raw"):
        if one.labels[0] in (21, 22):  # the thigh swings once in two steps
            turning = one.signal[:, 3:] - one.signal[:, 3:].mean(axis=0)
            power = (np.abs(np.fft.rfft(turning, 1024, axis=0)) ** 2).sum(axis=1)
            steps.setdefault(int(one.labels[0]), []).append(np.argmax(power) * 50 / 1024)
    jogging, walking = np.median(steps[21]), np.median(steps[22])
    assert 0.5 < walking < jogging < 2.5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"d_other": np.zeros((9, 6))}, "d_iner, .* got only d_other"),
        ({"d_iner": np.zeros((9, 5))}, r"got shape \(9, 5\)"),
        ({"d_iner": np.full((9, 6), np.nan)}, "got nan among them"),
        ({"d_iner": {"field": 1.0}}, "got no numbers"),
        ({"d_iner": np.array([["text"], [1.0]], dtype=object)}, "got no numbers"),
        ({"d_iner": np.zeros((9, 6)) + 1j}, "got no numbers"),
    ],
)
def test_files_with_something_else_inside_are_refused(root, content, message):
    path = root / "Inertial/a3_s1_t1_inertial.mat"
    savemat(path, content)
    with pytest.raises(DataError, match=message) as error:
        open_dataset("utd_mhad").read(root)
    assert path.name in str(error.value)


def test_a_file_of_an_unknown_action_is_refused(root):
    path = root / "Inertial/a3_s1_t1_inertial.mat"
    path.rename(path.with_name("a28_s1_t1_inertial.mat"))
    with pytest.raises(DataError, match="with X from 1 to 27, got a28_s1_t1_inertial.mat"):
        open_dataset("utd_mhad").read(root)
