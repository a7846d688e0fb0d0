"""MotionSense: gravity and userAcceleration are added, columns found by name, trials kept apart."""

import numpy as np
import pandas as pd
import pytest

from imu_saga.datasets import open_dataset
from shared_peft.errors import DataError


@pytest.fixture
def root(tmp_path):
    open_dataset("motionsense").write_sample(tmp_path / "download")
    return tmp_path / "download"


def expected(path):
    table = pd.read_csv(path)
    acc = [-9.80665 * (table[f"gravity.{axis}"] + table[f"userAcceleration.{axis}"]) for axis in "xyz"]
    return np.stack([*acc, *(table[f"rotationRate.{axis}"] for axis in "xyz")], axis=1)


def test_acceleration_is_the_sum_of_gravity_and_user_acceleration_upwards_at_rest(root):
    for one in open_dataset("motionsense").read(root):
        path = root / "A_DeviceMotion_data" / one.session / f"{one.subject}.csv"
        np.testing.assert_allclose(one.signal, expected(path), rtol=1e-5, atol=1e-6)


def test_columns_are_found_by_name_behind_the_unnamed_index(root):
    path = root / "A_DeviceMotion_data/wlk_7/sub_1.csv"
    before = expected(path)
    table = pd.read_csv(path, index_col=0)
    table[sorted(table.columns, reverse=True)].to_csv(path)
    one = next(
        one for one in open_dataset("motionsense").read(root) if (one.session, one.subject) == ("wlk_7", "sub_1")
    )
    np.testing.assert_allclose(one.signal, before, rtol=1e-5, atol=1e-6)


def test_the_trial_is_the_session_and_its_code_the_label(root):
    dataset = open_dataset("motionsense")
    recordings = dataset.read(root)
    found = {(one.session, one.subject): dataset.class_names()[one.labels[0]] for one in recordings}
    names = {"jog_16": "jogging", "sit_5": "sitting", "wlk_7": "walking"}
    assert found == {(folder, f"sub_{number}"): names[folder] for folder in names for number in (1, 2, 3)}


def test_the_usual_direction_turns_only_the_accelerometer_round(root):
    for apple, usual in zip(
        open_dataset("motionsense", {"direction": "apple"}).read(root),
        open_dataset("motionsense").read(root),
        strict=True,
    ):
        np.testing.assert_array_equal(usual.signal, apple.signal * np.array([-1, -1, -1, 1, 1, 1], np.float32))


def test_the_subjects_table_is_not_needed_and_no_trial(root):
    (root / "data_subjects_info.csv").unlink()
    dataset = open_dataset("motionsense")
    assert len(dataset.read(root)) == 9
    for folder in (root.parent, root / "A_DeviceMotion_data"):
        assert [one.where for one in dataset.read(folder)] == [one.where for one in dataset.read(root)]


def test_unknown_folders_and_empty_cells_are_refused(root):
    path = root / "A_DeviceMotion_data/wlk_7/sub_1.csv"
    whole = path.read_text()
    lines = whole.split("\n")
    cells = lines[5].split(",")
    cells[4] = ""
    path.write_text("\n".join([*lines[:5], ",".join(cells), *lines[6:]]))
    with pytest.raises(DataError, match=r"sub_1.csv, row 6: numbers must be finite"):
        open_dataset("motionsense").read(root)
    path.write_text(whole)
    (root / "A_DeviceMotion_data/wlk_7").rename(root / "A_DeviceMotion_data/abc_7")
    with pytest.raises(DataError, match=r"must be dws\|ups\|sit\|std\|wlk\|jog_N/sub_M.csv"):
        open_dataset("motionsense").read(root)
