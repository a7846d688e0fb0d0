"""Data sets combine on common classes and channels, and equal names in two of them stay two people."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from imu_saga.combine import Part, combine, parse_label_map, people_of
from imu_saga.datasets import open_dataset
from imu_saga.recording import ACC_CHANNELS, GYRO_CHANNELS, Recording
from imu_saga.source import DataOptions, load_split, load_windows
from shared_peft.errors import ConfigError, DataError
from tests.imu_saga.worn import worn


def record(dataset="a", channels=ACC_CHANNELS, labels=(0, 1, 2, -1), **changes):
    count = len(labels)
    signal = np.arange(count * len(channels), dtype=np.float32).reshape(count, -1)
    made = Recording(signal, channels, 10.0, np.asarray(labels), np.ones(count, bool), "s1", "r1", "waist", dataset)
    return dataclasses.replace(made, **changes)


def names(recording, classes):
    return [classes[label] if label >= 0 else "" for label in recording.labels]


def test_classes_are_renamed_merged_and_left_out_by_name():
    one = Part("a", [record("a")], ("walking", "strolling", "car"))
    two = Part("b", [record("b")], ("RUN", "walk", "other"))
    label_map = parse_label_map(["walk=walking,strolling", "run=RUN", "=other"])
    (first, second), classes = combine([one, two], label_map)
    assert classes == ("walk", "car", "run")
    assert names(first, classes) == ["walk", "walk", "car", ""]
    assert names(second, classes) == ["run", "walk", "", ""]


def test_one_part_without_a_map_comes_back_as_it_is():
    recording = record()
    found, classes = combine([Part("a", [recording], ("x", "y", "z"))], {})
    assert found[0] is recording
    assert classes == ("x", "y", "z")


def test_only_channels_all_have_are_kept_with_their_own_values():
    full = record("a", channels=(*GYRO_CHANNELS, *ACC_CHANNELS))
    small = record("b", channels=ACC_CHANNELS)
    (one, two), _ = combine([Part("a", [full], ("x", "y", "z")), Part("b", [small], ("x", "y", "z"))], {})
    assert one.channels == two.channels == ACC_CHANNELS
    np.testing.assert_array_equal(one.signal, full.signal[:, 3:])
    np.testing.assert_array_equal(two.signal, small.signal)


@pytest.mark.parametrize(
    ("second", "label_map", "message"),
    [
        ({"channels": GYRO_CHANNELS}, {}, "must have a channel in common, got acc_x, acc_y, acc_z and gyro_x"),
        ({"gravity": "removed"}, {}, "gravity must be kept in all .* Use --gravity removed"),
        ({}, {"jogging": "run"}, "--label-map: old names must be among x, y, z, got jogging"),
    ],
)
def test_what_cannot_be_combined_is_refused(second, label_map, message):
    parts = [Part("a", [record("a")], ("x", "y", "z")), Part("b", [record("b", **second)], ("x", "y", "z"))]
    with pytest.raises((DataError, ConfigError), match=message):
        combine(parts, label_map)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["walk"], "must be NEW=OLD,OLD, got 'walk'"),
        (["walk="], "must be NEW=OLD,OLD, got 'walk='"),
        (["walk=a,b", "run=b"], "class 'b' must have one new name, got walk and run"),
    ],
)
def test_a_label_map_that_says_nothing_or_two_things_is_refused(pairs, message):
    with pytest.raises(ConfigError, match=message):
        parse_label_map(pairs)


def test_people_carry_their_data_sets_name_once():
    assert set(people_of(worn(subjects=2))) == {"a/s0", "a/s1"}
    assert set(people_of(worn(datasets=("a", "b"), subjects=2))) == {"a/s0", "a/s1", "b/s0", "b/s1"}


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory) -> DataOptions:
    """SisFall and sp-sw-har samples, written in their raw formats."""
    root = tmp_path_factory.mktemp("data")
    for name in ("sisfall", "sp_sw_har"):
        open_dataset(name).write_sample(root / name)
    named = tuple(f"{name}={root / name}" for name in ("sisfall", "sp_sw_har"))
    return DataOptions(data=named, seconds=1.0, label_map=("walking=walking,WALKING", "=TURNING"))


def test_two_real_formats_become_one_set_of_windows(two_sets):
    windows, report = load_windows(two_sets)
    assert set(windows.datasets) == {"sisfall", "sp_sw_har"}
    assert set(windows.subjects) == {"sisfall/SA01", "sisfall/SE06", "sp_sw_har/s01", "sp_sw_har/s02"}
    assert "WALKING" not in windows.classes
    walking = windows.labels == windows.classes.index("walking")
    assert set(windows.datasets[walking]) == {"sisfall", "sp_sw_har"}
    assert windows.rate_hz == 20.0
    assert sum(count for _, count in report.per_class) == len(windows)
    alone, _ = load_windows(dataclasses.replace(two_sets, data="sisfall", root=_folder(two_sets, 0), label_map=()))
    np.testing.assert_array_equal(alone.x, windows.x[windows.datasets == "sisfall"])


def test_options_of_one_set_among_several_stay_its_own(two_sets):
    options = dataclasses.replace(two_sets, data_options=("sp_sw_har.placement=both", "source=raw"))
    windows, _ = load_windows(options)
    assert set(windows.placements) == {"waist", "phone", "watch"}
    with pytest.raises(ConfigError, match="data set sisfall: key must be one of .* got 'placement'"):
        load_windows(dataclasses.replace(two_sets, data_options=("placement=both",)))


def test_leaving_a_data_set_out_scores_the_classes_the_other_shows(two_sets):
    loaded = load_split(dataclasses.replace(two_sets, protocol="leave_dataset_out", fold=1))
    assert loaded.split.held_out == ("sp_sw_har",)
    assert set(loaded.windows.datasets[loaded.split.test]) == {"sp_sw_har"}
    shown = set(loaded.windows.labels[loaded.split.train].tolist())
    assert shown == set(range(len(loaded.windows.classes)))
    assert set(loaded.windows.labels[loaded.split.test].tolist()) == {loaded.windows.classes.index("walking")}
    assert set(loaded.left_out) == {"SEATED", "STANDING_UP", "SITTING_DOWN"}
    assert "left out, because training never shows them" in str(loaded)
    with pytest.raises(ConfigError, match=r"--fold: must be in \[0, 2\) with protocol leave_dataset_out, got 2"):
        load_split(dataclasses.replace(two_sets, protocol="leave_dataset_out", fold=2))


def test_one_folder_for_several_sets_and_a_set_named_twice_are_refused(two_sets):
    with pytest.raises(ConfigError, match="--root: must not stand beside several data sets"):
        load_windows(dataclasses.replace(two_sets, root=Path("somewhere")))
    with pytest.raises(ConfigError, match="--data: must name each data set once, got sisfall=x sisfall=y"):
        load_windows(DataOptions(data=("sisfall=x", "sisfall=y")))


def _folder(options: DataOptions, index: int) -> Path:
    return Path(options.data[index].partition("=")[2])


def test_people_whom_two_data_sets_show_are_the_same_people():
    shared = worn(datasets=("uci_har", "hapt"), subjects=2)
    shared = dataclasses.replace(shared, subjects=np.asarray([name.rpartition("/")[2] for name in shared.subjects]))
    assert set(people_of(shared)) == {"uci_har/s0", "uci_har/s1"}
