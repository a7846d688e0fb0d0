"""The battery every registered IMU data set passes, and the real files of two of them."""

import numpy as np
import pytest

from imu_saga.datasets import DATASETS, open_dataset
from imu_saga.recording import ACC_CHANNELS, GYRO_CHANNELS, UNLABELLED
from imu_saga.signal.resample import resample_all
from imu_saga.splits import check_apart, subject_split
from imu_saga.windows import cut_windows
from shared_peft.errors import ConfigError, DataError, UnknownNameError

SMALL = {
    "synthetic": {"population": {"subjects": 3, "bout_s": 8.0, "sessions": 1}},
    "csv": {"label": "label"},
    "npz": {"label": "label"},
    "parquet": {"label": "label"},
}
NEEDS_ROOT = [name for name, reader in DATASETS.items() if reader.needs_root]


@pytest.fixture(scope="module", params=DATASETS.names())
def sample(request, tmp_path_factory):
    """(data set, root, recordings) of a data set's own written sample."""
    root = tmp_path_factory.mktemp(request.param)
    dataset = open_dataset(request.param, SMALL.get(request.param))
    dataset.write_sample(root)
    return dataset, root, dataset.read(root)


def test_reads_its_own_sample_with_two_subjects_or_more(sample):
    dataset, _, recordings = sample
    assert len({recording.subject for recording in recordings}) >= 2
    assert {recording.dataset for recording in recordings} == {dataset.name}
    assert {recording.placement for recording in recordings} <= set(dataset.placements)
    assert all(set(recording.channels) <= set(dataset.channels) for recording in recordings)


def test_signals_are_in_si_units(sample):
    for recording in sample[2]:
        acc = recording.signal[:, [name in ACC_CHANNELS for name in recording.channels]]
        gyro = recording.signal[:, [name in GYRO_CHANNELS for name in recording.channels]]
        assert recording.gravity == sample[0].gravity
        length = np.median(np.linalg.norm(acc, axis=1))
        assert 7 < length < 15 if recording.gravity == "kept" else length < 7
        assert not gyro.size or np.percentile(np.abs(gyro), 99) < 35


def test_labels_are_within_the_classes(sample):
    dataset, root, recordings = sample
    labels = np.unique(np.concatenate([recording.labels for recording in recordings]))
    classes = dataset.class_names(root)
    assert len(set(classes)) == len(classes)
    assert labels.min() >= UNLABELLED
    assert labels.max() < len(classes)
    assert labels.max() >= 1


def test_reading_twice_gives_the_same(sample):
    dataset, root, recordings = sample
    for first, second in zip(recordings, dataset.read(root), strict=True):
        np.testing.assert_array_equal(first.signal, second.signal)
        assert first.where == second.where


def test_one_session_is_worn_by_one_subject_and_no_split_shares_it(sample):
    dataset, root, recordings = sample
    rate = recordings[0].rate_hz
    windows, _ = cut_windows(
        resample_all(recordings, rate), dataset.class_names(root), seconds=1.0, keep_unlabelled=True, min_valid=0.0
    )
    split = subject_split(windows, test_fraction=0.5, seed=0)
    check_apart(windows, split.train, split.test)


@pytest.mark.parametrize("name", NEEDS_ROOT)
def test_a_missing_folder_names_the_download_page(name, tmp_path):
    dataset = open_dataset(name)
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError) as error:
            dataset.read(root)
        assert dataset.url in str(error.value)
        assert str(root) in str(error.value)
    with pytest.raises(DataError, match="no such folder"):
        dataset.read(None)


@pytest.mark.parametrize("name", DATASETS.names())
def test_licence_and_url_are_told(name):
    reader = DATASETS.get(name)
    assert reader.name == name
    assert reader.licence
    assert reader.url


def test_unknown_data_set_and_option_are_refused():
    with pytest.raises(UnknownNameError, match=f"IMU data set: name must be one of {', '.join(DATASETS.names())}"):
        open_dataset("my_own")
    with pytest.raises(ConfigError, match="data set sisfall: key must be one of falls, labels, source, got 'label'"):
        open_dataset("sisfall", {"label": "groups"})


def test_sp_sw_har_csv_and_streams_hold_the_same_recordings(shared_root):
    root = shared_root / "data/imu/sp_sw_har"
    raw = open_dataset("sp_sw_har", {"placement": "both", "source": "raw"}).read(root)
    streams = {one.where: one for one in open_dataset("sp_sw_har", {"placement": "both"}).read(root)}
    assert len(raw) == 30
    assert len(streams) == 446
    for one in raw:
        other = streams[one.where]
        np.testing.assert_allclose(one.signal, other.signal, rtol=1e-6)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.rate_hz == pytest.approx({"phone": 102.45, "watch": 104.27}[one.placement], rel=2e-3)


def test_sisfall_raw_counts_become_the_published_streams(shared_root):
    from scipy.signal import decimate

    root = shared_root / "data/imu/sisfall"
    raw = open_dataset("sisfall", {"source": "raw", "labels": "activities"}).read(root)
    streams = {one.where: one for one in open_dataset("sisfall", {"labels": "activities"}).read(root)}
    assert len(streams) == 2707
    compared = 0
    for one in raw:
        other = streams[one.where]
        assert one.labels[0] == other.labels[0]
        expected = decimate(one.signal.astype(np.float64), 4, ftype="fir", axis=0)[50:-50]
        error = np.abs(expected - other.signal[50 : 50 + len(expected)])
        assert np.median(error[:, :3]) < 0.02
        assert np.median(error[:, 3:]) < 0.005
        compared += 1
    assert compared >= 20


def test_sisfall_trials_called_after_another_subject_stay_with_their_own(shared_root):
    path = shared_root / "data/imu/sisfall/adl_streams_50hz.npz"
    with np.load(path) as stored:
        named = stored["subject_names"][stored["subject"] - 1]
    recordings = open_dataset("sisfall").read(path.parent)
    moved = [
        (str(old), one.subject, one.session) for old, one in zip(named, recordings, strict=True) if old != one.subject
    ]
    assert moved == [("SE15", "SA15", f"D17_R0{trial}") for trial in range(1, 6)]


def test_sisfall_groups_are_those_of_the_codes(shared_root):
    root = shared_root / "data/imu/sisfall"
    dataset = open_dataset("sisfall")
    groups = {"D01": "walking", "D04": "jogging", "D06": "stairs", "D07": "chair", "D11": "chair", "D12": "lying"}
    groups |= {"D15": "bending", "D16": "bending", "D17": "car", "D14": "lying", "D05": "stairs", "D18": None}
    seen = set()
    for one in dataset.read(root):
        code = one.session[:3]
        if code in groups:
            expected = -1 if groups[code] is None else dataset.class_names().index(groups[code])
            assert one.labels[0] == expected
            seen.add(code)
    assert seen == set(groups)


def test_sisfall_falls_are_read_unlabelled_when_asked(shared_root):
    root = shared_root / "data/imu/sisfall"
    falls = [one for one in open_dataset("sisfall", {"falls": True}).read(root) if one.session.startswith("F")]
    assert len(falls) >= 10
    assert all((one.labels == -1).all() for one in falls)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3,4,5,6,7,8,9;\r\n1,2,x,4,5,6,7,8,9;\r\n", "row 2: must hold 9 whole numbers, got '1,2,x,4,5,6,7,8,9'"),
        ("1,2,3,4,5,6,7,8,9;\r\n1,2,3,4;\r\n", "row 2: must hold 9 whole numbers, got '1,2,3,4'"),
        ("", "must not be empty, got 0 bytes"),
        ("\xe9", "must be ASCII text"),
    ],
)
def test_broken_sisfall_files_are_refused_by_row(tmp_path, text, message):
    dataset = open_dataset("sisfall")
    dataset.write_sample(tmp_path)
    path = tmp_path / "SisFall_dataset/SA01/D07_SA01_R01.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as error:
        dataset.read(tmp_path)
    assert path.name in str(error.value)


def test_broken_npz_files_are_refused(tmp_path):
    path = tmp_path / "phone_streams.npz"
    path.write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(DataError, match="must be a whole npz file"):
        open_dataset("sp_sw_har").read(tmp_path)
    np.savez(path, acc=np.zeros((4, 3)))
    with pytest.raises(DataError, match="must hold the arrays gyro"):
        open_dataset("sp_sw_har").read(tmp_path)


def test_an_unknown_sp_sw_har_label_is_refused_by_row(tmp_path):
    dataset = open_dataset("sp_sw_har")
    dataset.write_sample(tmp_path)
    path = tmp_path / "DATA/s01/s01_01_sp.csv"
    path.write_text(path.read_text().replace("SEATED", "DANCING", 1))
    with pytest.raises(DataError, match="s01_01_sp.csv, row 2: label must be one of SEATED, .* got 'DANCING'"):
        dataset.read(tmp_path)
