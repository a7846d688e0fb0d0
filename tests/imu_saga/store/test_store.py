"""Window stores: what is written is read back, from any rows, after any kill, within a bound; damage is refused."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imu_saga.commands import COMMANDS
from imu_saga.evaluation.footprint import read_footprint
from imu_saga.pretrain import EQUAL_WEIGHTS, PretrainConfig, mask_batches, pretrain
from imu_saga.source import DataOptions, load_windows
from imu_saga.store.convert import convert
from imu_saga.store.files import StoreFiles
from imu_saga.store.format import StoreCard, read_card
from imu_saga.store.split import options_of, split_store
from imu_saga.store.store import WindowStore
from imu_saga.store.writer import store_writer
from imu_saga.window_source import WindowSource
from imu_saga.windows import WindowSet
from shared_peft.command import run_commands
from shared_peft.errors import ConfigError, DataError, RunError
from tests.imu_saga.planted import people

POPULATION = 'population={"subjects": 4, "bout_s": 14, "sessions": 1, "activities": ["sit", "walk", "run"]}'
OPTIONS = DataOptions(seconds=2.0, overlap=0.5, data_options=(POPULATION,))
COLUMNS = ("labels", "subjects", "sessions", "placements", "start_s", "valid")


def card_for(windows: WindowSet, dtype="float32") -> StoreCard:
    w = windows
    return StoreCard(w.x.shape[1], w.channels, w.rate_hz, w.gravity, w.classes, dtype)


def written(folder: Path, windows: WindowSet, *, dtype="float32", shard_windows=50) -> WindowStore:
    with store_writer(folder, card_for(windows, dtype), shard_windows=shard_windows) as writer:
        for part in np.array_split(np.arange(len(windows)), 7):
            writer.append(windows.subset(part))
        writer.finish()
    return WindowStore.open(folder, verify=True)


def spotted(windows: WindowSet) -> WindowSet:
    """The windows with labels, times and masks that differ from window to window."""
    rng = np.random.default_rng(5)
    valid = rng.random(windows.valid.shape) < 0.7
    return dataclasses.replace(
        windows, valid=valid, start_s=rng.random(len(windows)), labels=rng.integers(-1, 3, len(windows))
    )


@pytest.fixture(scope="module")
def windows() -> WindowSet:
    return spotted(people(subjects=5, samples=41))  # 41: the last byte of a mask is not full


@pytest.fixture(scope="module")
def store(windows, tmp_path_factory) -> WindowStore:
    return written(tmp_path_factory.mktemp("store") / "s", windows)


def assert_same(found: WindowSet, expected: WindowSet) -> None:
    np.testing.assert_array_equal(found.x, expected.x)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
        assert getattr(found, name).dtype.kind == getattr(expected, name).dtype.kind
    for name in ("classes", "channels", "rate_hz", "seconds", "gravity"):
        assert getattr(found, name) == getattr(expected, name)


def test_windows_come_back_as_they_were(store, windows):
    assert [shard.windows for shard in store.card.shards] == [50, 50, 50, 30]
    assert_same(store.window_set(np.arange(len(windows))), windows)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_rows_of_any_view_are_those_of_the_windows(store, windows, data):
    rows = np.asarray(data.draw(st.lists(st.integers(0, len(windows) - 1), min_size=1, max_size=30)))
    again = np.asarray(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=30)), dtype=np.int64)
    x, valid = store.subset(rows).batch(again)
    np.testing.assert_array_equal(x, windows.x[rows][again])
    np.testing.assert_array_equal(valid, windows.valid[rows][again])
    assert (x.dtype, valid.dtype) == (np.float32, np.bool_)
    assert_same(store.subset(rows).window_set(again), windows.subset(rows).subset(again))


def test_a_view_leaves_people_out_without_reading_or_copying_windows(store, windows, monkeypatch):
    def refuse(*_):
        raise AssertionError("x was read")

    monkeypatch.setattr(StoreFiles, "take", refuse)
    kept = ~np.isin(store.subjects, ["p1", "p3"])
    view = store.subset(kept)
    assert view.files is store.files
    assert view.x.shape == (int(kept.sum()), 41, 6)
    np.testing.assert_array_equal(view.subjects, windows.subjects[kept])
    np.testing.assert_array_equal(view.labels, windows.labels[kept])
    with pytest.raises(DataError, match=r"rows: must be in \[0, 108\), got 0 to 108"):
        view.subset(np.array([0, 108]))


def test_pretraining_takes_windows_from_memory_or_disk_alike(store, windows):
    sources: list[WindowSource] = [store, windows]
    config = PretrainConfig(steps=3, batch_size=16, options={"width": 16, "depth": 1, "heads": 2})
    for mixing in ("draw", "sum"):
        batches = [mask_batches(s, EQUAL_WEIGHTS, dataclasses.replace(config, mixing=mixing))(7) for s in sources]
        assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))
    (one, _), (other, _) = (pretrain(source, config, progress=None) for source in sources)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(-8, 4.8))
def test_float16_errs_by_half_its_last_bit_at_most(tmp_path_factory, seed, decade):
    rng = np.random.default_rng(seed)
    base = people(subjects=1, each=1)
    x = (rng.uniform(-1, 1, base.x.shape) * 10**decade).astype(np.float32)
    stored = written(tmp_path_factory.mktemp("h") / "s", dataclasses.replace(base, x=x), dtype="float16")
    error = np.abs(stored.batch(np.arange(len(x)))[0].astype(np.float64) - x)
    assert (error <= np.maximum(np.abs(x) * 2.0**-11, 2.0**-25)).all()


def test_gravity_keeps_eight_bits_behind_the_point_and_what_float16_cannot_hold_is_refused(tmp_path):
    base = people(subjects=1, each=1)
    still = dataclasses.replace(base, x=np.full_like(base.x, 9.80665))
    found = written(tmp_path / "still", still, dtype="float16").batch(np.arange(3))[0]
    assert 0 < np.abs(found.astype(np.float64) - 9.80665).max() <= 2.0**-8
    large = base.x.copy()
    large[1, 2, 3] = 65505.0
    with pytest.raises(DataError, match=r"p0_1, gyro_x: must be at most 65504 to fit float16, got 65505.*float32"):
        written(tmp_path / "large", dataclasses.replace(base, x=large), dtype="float16")
    kept = written(tmp_path / "kept", dataclasses.replace(base, x=large)).batch(np.arange(3))[0]
    np.testing.assert_array_equal(kept, large)


def test_convert_writes_the_windows_that_are_loaded(tmp_path):
    loaded, expected = load_windows(OPTIONS, unlabelled=True)
    card, report = convert(OPTIONS, tmp_path / "s", dtype="float32", shard_windows=40)
    assert report == expected
    assert card == read_card(tmp_path / "s")
    assert_same(WindowStore.open(tmp_path / "s").window_set(np.arange(len(loaded))), loaded)
    stored = json.loads((tmp_path / "s" / "store.json").read_text())
    assert stored["units"] == ["m/s^2"] * 3 + ["rad/s"] * 3
    assert (stored["seconds"], stored["windows"], stored["format_version"]) == (2.0, len(loaded), 1)
    acc, _ = convert(OPTIONS, tmp_path / "acc", channels=("acc_z", "acc_x"), unlabelled=False)
    labelled = load_windows(OPTIONS)[0]
    found = WindowStore.open(tmp_path / "acc").window_set(np.arange(acc.windows))
    np.testing.assert_allclose(found.x, labelled.x[..., [2, 0]], rtol=2**-11)
    np.testing.assert_array_equal(found.labels, labelled.labels)


def test_several_data_sets_become_one_store_with_everyones_own_name(tmp_path):
    from imu_saga.datasets import open_dataset

    open_dataset("sisfall").write_sample(tmp_path / "a")
    options = DataOptions(data=(f"sisfall={tmp_path / 'a'}", "synthetic="), seconds=2.0, data_options=(
        f"synthetic.{POPULATION}",))  # fmt: skip
    card, _ = convert(options, tmp_path / "s", dtype="float32")
    expected, _ = load_windows(options, unlabelled=True)
    assert_same(WindowStore.open(tmp_path / "s").window_set(np.arange(card.windows)), expected)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


KILLED = """
import os, signal, sys
from pathlib import Path
import imu_saga.store.writer as writer
from imu_saga.store.convert import convert
from tests.imu_saga.store.test_store import OPTIONS
saved, calls = writer.sha256_of, []
def dying(path):
    calls.append(path)
    if len(calls) == 3:  # the third shard lies written beside its place, not yet renamed
        os.kill(os.getpid(), signal.SIGKILL)
    return saved(path)
writer.sha256_of = dying
convert(OPTIONS, Path(sys.argv[1]), shard_windows=40)
"""


def test_a_killed_conversion_goes_on_and_ends_in_the_same_files(tmp_path):
    card, _ = convert(OPTIONS, tmp_path / "whole", shard_windows=40)
    assert len(card.shards) > 3
    killed = tmp_path / "killed"
    done = subprocess.run([sys.executable, "-c", KILLED, str(killed)], cwd=Path(__file__).parents[3], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(read_card(killed).shards) == 2
    with pytest.raises(DataError, match=r"must be a finished store, got 80 windows so far.*--resume"):
        WindowStore.open(killed)
    times = {shard.file: (killed / shard.file).stat().st_mtime_ns for shard in read_card(killed).shards}
    convert(OPTIONS, killed, shard_windows=40, resume=True)
    assert {name: (killed / name).stat().st_mtime_ns for name in times} == times, "finished shards stay"
    whole = files_of(tmp_path / "whole")
    found = {name: data for name, data in files_of(killed).items() if not name.endswith(".part")}
    assert found == whole
    convert(OPTIONS, killed, shard_windows=40, resume=True)
    assert files_of(killed)["store.json"] == whole["store.json"]


def test_a_store_is_neither_overwritten_nor_mixed(tmp_path):
    folder = tmp_path / "s"
    convert(OPTIONS, folder, shard_windows=40)
    with pytest.raises(DataError, match=r"must be a new folder, got a store. Choose another --out.*--resume"):
        convert(OPTIONS, folder)
    with pytest.raises(DataError, match=r"must keep its options, got changes in dtype, source"):
        convert(dataclasses.replace(OPTIONS, overlap=0.0), folder, dtype="float32", resume=True)
    others = dataclasses.replace(OPTIONS, data_options=(POPULATION.replace("4", "3", 1),))
    stored = json.loads((folder / "store.json").read_text())
    stored["source"]["data_options"] = list(others.data_options)
    (folder / "store.json").write_text(json.dumps(stored))
    with pytest.raises(DataError, match=r"must give at least \d+ windows, got \d+"):
        convert(others, folder, resume=True)
    with pytest.raises(ConfigError, match="--split-seed: must not be given to convert"):
        convert(dataclasses.replace(OPTIONS, split_seed=3), tmp_path / "t")
    with store_writer(tmp_path / "held", card_for(people(subjects=1))), pytest.raises(RunError, match="one run at a"):
        store_writer(tmp_path / "held", card_for(people(subjects=1)), resume=True).__enter__()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="must be a new folder, got other files"):
        convert(OPTIONS, tmp_path / "full")


def rewritten(folder: Path, change) -> None:
    """Change a shard's header in place; the tensors stay as they are."""
    path = folder / "shard-00000.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode().ljust(length)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def edited(folder: Path, change) -> None:
    path = folder / "store.json"
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


def cut_file(folder: Path) -> None:
    path = folder / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def first_bytes(data: bytes):
    def change(folder: Path) -> None:
        path = folder / "shard-00000.safetensors"
        path.write_bytes(data + path.read_bytes()[len(data) :])

    return change


def link_away(folder: Path) -> None:
    path = folder / "shard-00001.safetensors"
    away = folder.parent / "away.safetensors"
    path.rename(away)
    path.symlink_to(away)


def swap(header: dict) -> None:
    header["x"], header["start_s"] = (
        {**header["x"], "data_offsets": [0, header["x"]["data_offsets"][1] - header["x"]["data_offsets"][0]]},
        header["start_s"],
    )


DAMAGE = {
    "a shard is missing": (
        lambda f: (f / "shard-00001.safetensors").unlink(),
        "00001.*shard of the store, got no such",
    ),
    "a shard is cut": (cut_file, "00001.*fill the file without gap or overlap"),
    "a shard is empty": (lambda f: (f / "shard-00001.safetensors").write_bytes(b""), "safetensors with a header"),
    "a header is endless": (first_bytes(b"\xff" * 8), "header of at most 65536 bytes"),
    "a header is no JSON": (first_bytes((40).to_bytes(8, "little") + b"}" * 40), "must be JSON"),
    "a header is a list": (first_bytes((8).to_bytes(8, "little") + b"[1,2,3] "), "an object for each tensor"),
    "a shape lies": (lambda f: rewritten(f, lambda h: h["x"].update(shape=[50, 41, 7])), r"x must be .*\(50, 41, 6\)"),
    "a type lies": (lambda f: rewritten(f, lambda h: h["x"].update(dtype="I32")), "x must be float32 .* got I32"),
    "offsets overlap": (lambda f: rewritten(f, swap), "without gap or overlap"),
    "offsets are negative": (
        lambda f: rewritten(f, lambda h: h["x"].update(data_offsets=[-8, 49192])),
        r"x must take 49200 bytes",
    ),
    "offsets are words": (lambda f: rewritten(f, lambda h: h["x"].update(data_offsets="ab")), "x must take"),
    "a tensor is gone": (lambda f: rewritten(f, lambda h: h.pop("valid")), "tensors must be labels, placements"),
    "a name leaves the folder": (
        lambda f: edited(f, lambda s: s["shards"][0].update(file="../../etc/passwd")),
        r"shards\[0\]: must be named shard-NUMBER.safetensors, got '../../etc/passwd'",
    ),
    "a link leaves the folder": (link_away, "must lie in the store's folder"),
    "a shard comes twice": (lambda f: edited(f, lambda s: s["shards"].append(s["shards"][0])), "named once each"),
    "windows lie": (lambda f: edited(f, lambda s: s["shards"][0].update(windows=10**30)), "must be .*got"),
    "no windows": (lambda f: edited(f, lambda s: s["shards"][0].update(windows=0)), "windows: must be 1 or more"),
    "a rate lies": (lambda f: edited(f, lambda s: s.update(rate_hz=float("nan"))), "rate_hz: must be a positive"),
    "samples lie": (lambda f: edited(f, lambda s: s.update(samples=-1)), "samples: must be 2 or more"),
    "a channel comes twice": (lambda f: edited(f, lambda s: s.update(channels=["acc_x"] * 6)), "different names"),
    "an unknown key": (lambda f: edited(f, lambda s: s.update(extra=1)), "key must be one of"),
    "a wrong type": (lambda f: edited(f, lambda s: s.update(dtype="int8")), "must be one of 'float16', 'float32'"),
    "another version": (lambda f: edited(f, lambda s: s.update(format_version=2)), "format_version must be 1, got 2"),
    "no JSON": (lambda f: (f / "store.json").write_text("{"), "must be JSON"),
    "no store": (lambda f: (f / "store.json").unlink(), "must be a window store with store.json"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_store_is_refused_before_anything_is_read(what, windows, tmp_path, monkeypatch):
    written(tmp_path / "s", windows)
    damage, message = DAMAGE[what]
    damage(tmp_path / "s")
    monkeypatch.setattr(StoreFiles, "take", lambda *_: pytest.fail("read"))
    with pytest.raises((DataError, ConfigError), match=message):
        WindowStore.open(tmp_path / "s")


def test_flipped_bits_are_found_when_asked_for_and_before_a_store_is_gone_on_with(windows, tmp_path):
    written(tmp_path / "s", windows)
    path = tmp_path / "s" / "shard-00002.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    WindowStore.open(tmp_path / "s")
    with pytest.raises(DataError, match="00002.safetensors: SHA-256 must be"):
        WindowStore.open(tmp_path / "s", verify=True)
    with pytest.raises(DataError, match="00002.safetensors: SHA-256 must be"):
        store_writer(tmp_path / "s", card_for(windows), resume=True).__enter__()


def test_indices_without_a_name_are_refused_where_they_are_read(windows, tmp_path):
    written(tmp_path / "s", windows)
    edited(tmp_path / "s", lambda s: s.update(subjects=s["subjects"][:-1], classes=["slow"]))
    store = WindowStore.open(tmp_path / "s")
    with pytest.raises(DataError, match=r"subjects: must be in \[0, 4\), got values from 0 to 4"):
        _ = store.subjects
    with pytest.raises(DataError, match=r"labels: must be in \[-1, 1\), got values from -1 to 2"):
        _ = store.labels


def test_windows_that_differ_from_the_stores_are_refused(windows, tmp_path):
    with store_writer(tmp_path / "s", card_for(windows)) as writer:
        for change, name in (
            ({"rate_hz": 50.0}, "rate_hz: must be 20.0 as in the store, got 50.0"),
            ({"x": windows.x[:, :9], "valid": windows.valid[:, :9]}, "samples: must be 41"),
            ({"gravity": "removed"}, "gravity: must be kept"),
            ({"channels": windows.channels[::-1]}, r"channels: must be .*Select common --channels"),
        ):
            with pytest.raises(DataError, match=name):
                writer.append(dataclasses.replace(windows, **change))
        with pytest.raises(DataError, match="must give at least 1 windows, got 0"):
            writer.finish()


@pytest.mark.parametrize("protocol", ["subject", "leave_placement_out", "leave_one_subject_out"])
def test_a_store_is_split_by_whole_sessions_as_its_windows_are(protocol, tmp_path):
    from imu_saga.source import load_split

    both = POPULATION.replace('"subjects": 4', '"subjects": 6, "placements": ["waist", "wrist"]')
    options = dataclasses.replace(OPTIONS, data_options=(both,))
    convert(options, tmp_path / "s", dtype="float32")
    store = WindowStore.open(tmp_path / "s")
    chosen = dataclasses.replace(DataOptions(), protocol=protocol, split_seed=3)
    split = split_store(store, chosen)
    train, test = store.subset(split.train), store.subset(split.test)
    expected = load_split(dataclasses.replace(options, protocol=protocol, split_seed=3), unlabelled=True)
    assert options_of(store, chosen) == dataclasses.replace(options, protocol=protocol, split_seed=3)
    assert split.held_out == expected.split.held_out
    assert len(train) == len(expected.split.train) > 0
    np.testing.assert_array_equal(train.start_s, expected.windows.start_s[expected.split.train])
    np.testing.assert_array_equal(train.sessions, expected.windows.sessions[expected.split.train])
    assert set(test.sessions) == set(expected.windows.sessions[expected.split.test])


def call(*arguments: object) -> int:
    return run_commands("imu_saga", COMMANDS, [str(argument) for argument in arguments])


def test_convert_and_pretrain_by_command(tmp_path, capsys):
    data = ["--data", "synthetic", "--seconds", "2", "--data-options", POPULATION]
    assert call("convert", *data, "--out", tmp_path / "s") == 0
    assert "windows of 4 people" in capsys.readouterr().out
    assert call("convert", *data, "--out", tmp_path / "s") == 2
    assert "must be a new folder" in capsys.readouterr().err
    sizes = ["--encoder-options", "width=16", "depth=1", "heads=2", "--steps", 2, "--batch-size", 8]
    assert call("pretrain", "--store", tmp_path / "s", *sizes, "--out", tmp_path / "pre") == 0
    capsys.readouterr()
    config = json.loads((tmp_path / "pre" / "config.json").read_text())["config"]
    assert config["source"]["seconds"] == 2.0
    assert config["source"]["data_options"] == [POPULATION]
    footprint = read_footprint(tmp_path / "pre").sides
    assert len(footprint["pretrain"].people) == 3
    assert not footprint["pretrain"].people.keys() & footprint["test"].people.keys()
    assert call("pretrain", "--store", tmp_path / "s", *sizes, "--transductive", "--out", tmp_path / "all") == 0
    assert len(read_footprint(tmp_path / "all").sides["pretrain"].people) == 4


SAMPLING = """
import sys
from pathlib import Path
from imu_saga.store.store import WindowStore
from shared_peft.training import epoch_order
store = WindowStore.open(Path(sys.argv[1]))
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10
before = resident()
for index in range(len(store) // 128):
    store.batch(epoch_order(len(store), 128, index, 0).numpy())
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_an_epoch_over_a_store_takes_little_memory_and_nothing_that_grows_with_it(tmp_path):
    base = people(subjects=1, each=100, samples=120)
    block = base.subset(np.resize(np.arange(len(base)), 20_000))
    with store_writer(tmp_path / "s", card_for(block), shard_windows=10_000) as writer:
        for _ in range(2):
            writer.append(block)
        writer.finish()
    assert sum(path.stat().st_size for path in (tmp_path / "s").iterdir()) > 115e6
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", SAMPLING, str(tmp_path / "s")]
    done = subprocess.run(
        arguments, cwd=Path(__file__).parents[3], env=environment, check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 16e6
