"""The windowed store on disk (format ours): store.json, and safetensors shards that are checked before they are read.

A shard holds, for its n windows of L samples and C channels: ``x`` (n, L, C) F16 or F32 in SI units; ``valid``
(n, ceil(L / 8)) U8, one bit a sample, the first sample in the highest bit; ``labels``, ``subjects``, ``sessions`` and
``placements`` (n,) I32, places in the lists of store.json (-1: no label); ``start_s`` (n,) F64 [s].
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from imu_saga.recording import Gravity
from shared_peft.config import from_json, loads_json, read_json
from shared_peft.errors import DataError

STORE, VERSION = "store.json", 1
DERIVED = ("units", "seconds", "windows")  # in store.json for readers without this package
StoreType = Literal["float16", "float32"]
INDICES = ("labels", "subjects", "sessions", "placements")
MAX_HEADER = 1 << 16  # [bytes] ours; seven tensors need 600
_SHARD_NAME = re.compile(r"shard-\d{5,9}\.safetensors")
_TYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "I32": "int32", "U8": "uint8"}
_AGAIN = "Copy the store again, or convert again with --resume"


@dataclass(frozen=True)
class Shard:
    """One finished file of a store: its name, its number of windows, and the SHA-256 of its bytes."""

    file: str
    windows: int
    sha256: str


@dataclass(frozen=True)
class StoreCard:
    """What store.json says.

    Args:
        samples: samples in a window.
        channels: channel names.
        rate_hz: samples per second [Hz].
        gravity: whether the accelerometer still measures gravity.
        classes: class names the labels index.
        dtype: how x is stored.
        source: the data options it was made with.
        subjects, sessions, placements: the names that indices stand for, in order of first appearance.
        shards: finished shards, in order.
        complete: whether every recording is in it.
        format_version: of this format.
    """

    samples: int
    channels: tuple[str, ...]
    rate_hz: float
    gravity: Gravity
    classes: tuple[str, ...]
    dtype: StoreType
    source: dict[str, Any] = field(default_factory=dict)
    subjects: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    placements: tuple[str, ...] = ()
    shards: tuple[Shard, ...] = ()
    complete: bool = False
    format_version: int = VERSION

    @property
    def seconds(self) -> float:
        """Duration of a window [s]."""
        return self.samples / self.rate_hz

    @property
    def windows(self) -> int:
        """Number of windows in the finished shards."""
        return sum(shard.windows for shard in self.shards)

    def layout(self, windows: int) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Return type and shape of every tensor of a shard of ``windows`` windows, by name."""
        integers = {name: (np.dtype(np.int32), (windows,)) for name in INDICES}
        return {
            "x": (np.dtype(self.dtype), (windows, self.samples, len(self.channels))),
            "valid": (np.dtype(np.uint8), (windows, -(-self.samples // 8))),
            "start_s": (np.dtype(np.float64), (windows,)),
            **integers,
        }


def read_card(folder: Path) -> StoreCard:
    """Read and check store.json; no shard is opened.

    Raises:
        DataError: no store there, another version, or values that cannot be a store's.
        ConfigError: no JSON, an unknown key or a value of another type.
    """
    path = folder / STORE
    if not path.is_file():
        raise DataError(folder, f"must be a window store with {STORE}", "no such file", "Make one with convert")
    values = read_json(path)
    version = values.get("format_version") if isinstance(values, Mapping) else None
    if version != VERSION or isinstance(version, bool):
        raise DataError(path, f"format_version must be {VERSION}", version, "Use the version that wrote it")
    card = from_json(StoreCard, {key: value for key, value in values.items() if key not in DERIVED}, str(path))
    _check_card(card, path)
    return card


def _check_card(card: StoreCard, path: Path) -> None:
    wrong = [
        ("samples", "must be 2 or more", card.samples, card.samples >= 2),
        ("rate_hz", "must be a positive number", card.rate_hz, math.isfinite(card.rate_hz) and card.rate_hz > 0),
        ("channels", "must be different names", card.channels, 0 < len(set(card.channels)) == len(card.channels)),
        ("shards", "must be files named once each", "a repeated name", _all_differ([s.file for s in card.shards])),
    ]
    wrong += [
        (f"shards[{at}]", "must be named shard-NUMBER.safetensors", shard.file, bool(_SHARD_NAME.fullmatch(shard.file)))
        for at, shard in enumerate(card.shards)
    ]
    wrong += [
        (f"shards[{at}].windows", "must be 1 or more", shard.windows, shard.windows >= 1)
        for at, shard in enumerate(card.shards)
    ]
    for name, must, got, holds in wrong:
        if not holds:
            raise DataError(f"{path}.{name}", must, repr(got)[:80], _AGAIN)


def _all_differ(names: list[str]) -> bool:
    return len(set(names)) == len(names)


def tensor_offsets(folder: Path, card: StoreCard, shard: Shard) -> dict[str, int]:
    """Check a shard's file without reading its tensors: place, size, and the type, shape and extent of every tensor.

    Args:
        folder: the store's folder.
        card: the store's card.
        shard: one of its shards.

    Returns:
        Where each tensor begins in the file [bytes], by name.

    Raises:
        DataError: says what does not fit.
    """
    path = folder / shard.file
    if not path.is_file():
        raise DataError(path, "must be a shard of the store", "no such file", _AGAIN)
    if path.resolve().parent != folder.resolve():
        raise DataError(path, "must lie in the store's folder", path.resolve(), "Replace the link by the file")
    header, start, end = _header(path)
    offsets, expected = {}, card.layout(shard.windows)
    if header.keys() != expected.keys():
        raise DataError(path, f"tensors must be {', '.join(sorted(expected))}", ", ".join(sorted(header))[:200], _AGAIN)
    for name, (dtype, shape) in expected.items():
        entry = header[name]
        found = (_TYPES.get(str(entry.get("dtype"))), entry.get("shape"))
        if found != (dtype.name, list(shape)):
            must = f"{name} must be {dtype} of shape {shape}"
            raise DataError(path, must, f"{entry.get('dtype')} of shape {entry.get('shape')}"[:200], _AGAIN)
        offsets[name] = start + _begin(path, name, entry.get("data_offsets"), dtype.itemsize * math.prod(shape))
    ends = sorted((at, at + dtype.itemsize * math.prod(shape)) for (dtype, shape), at in _with(expected, offsets))
    if ends[-1][1] != end or any(one[1] != other[0] for one, other in zip(ends, ends[1:], strict=False)):
        raise DataError(path, "tensors must fill the file without gap or overlap", f"{end} bytes", _AGAIN)
    return offsets


def _with(expected: dict[str, Any], offsets: dict[str, int]) -> list[tuple[Any, int]]:
    return [(expected[name], offsets[name]) for name in expected]


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    """Return a safetensors file's header (tensor entries by name), where its data begins, and the file's size."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, MAX_HEADER):
            must = f"must be safetensors with a header of at most {MAX_HEADER} bytes"
            raise DataError(path, must, f"a file of {size} bytes, header of {length}", _AGAIN)
        header = loads_json(stream.read(length), str(path))
    entries = {key: value for key, value in header.items() if key != "__metadata__"} if isinstance(header, dict) else {}
    if not entries or not all(isinstance(entry, dict) for entry in entries.values()):
        raise DataError(path, "must be safetensors with an object for each tensor", repr(header)[:80], _AGAIN)
    return entries, 8 + length, size


def _begin(path: Path, name: str, given: Any, size: int) -> int:
    """Return where a tensor of ``size`` bytes begins, counted from the end of the header."""
    whole = isinstance(given, list) and len(given) == 2 and all(type(value) is int for value in given)
    if not whole or given[0] < 0 or given[1] - given[0] != size:
        raise DataError(path, f"{name} must take {size} bytes", f"data_offsets {given!r}"[:80], _AGAIN)
    return given[0]
