"""A damaged store is refused before anything is read."""

import dataclasses
import json
from pathlib import Path

import pytest

from imu_saga.store.files import StoreFiles
from imu_saga.store.store import WindowStore
from imu_saga.store.writer import store_writer
from shared_peft.errors import ConfigError, DataError
from tests.imu_saga.store.stored import card_for, written


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
