"""Recordings converted to a store: whole after any kill, never mixed with another."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from imu_saga.commands import COMMANDS
from imu_saga.evaluation.footprint import read_footprint
from imu_saga.source import DataOptions, load_windows
from imu_saga.store.convert import convert
from imu_saga.store.format import read_card
from imu_saga.store.store import WindowStore
from imu_saga.store.writer import store_writer
from shared_peft.command import run_commands
from shared_peft.errors import ConfigError, DataError, RunError
from tests.imu_saga.planted import people
from tests.imu_saga.store.stored import OPTIONS, POPULATION, assert_same, card_for


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
from tests.imu_saga.store.stored import OPTIONS
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
