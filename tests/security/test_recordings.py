"""Hostile recordings, pictures and tables: npz, parquet, Matlab, idx, label files; drawn from a seed, and by hand."""

import gzip
import io
import shutil
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imu_saga.candidates import read_candidates
from imu_saga.datasets import open_dataset
from imu_saga.files.matlab_file import read_matrix
from tests.security.damages import bytes_changed, no_file
from tests.security.guard import CANARY, outcome
from tests.security.pickles import call
from vision.datasets.arrays import load_arrays
from vision.datasets.decode import read_image
from vision.datasets.idx import load_idx
from vision.datasets.parquet import load_parquet
from vision.datasets.table import load_table

DRAWS = 20


@dataclass(frozen=True)
class Kind:
    """A kind of file: its place in a folder, how a sound one is made there, and what reading it means."""

    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8))


def make_images(folder: Path, **more: np.ndarray) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez_compressed(folder / "images.npz", images=pixels, labels=np.arange(20) % 2, **more)


def make_idx(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    for name, values in (("images-idx3", pixels), ("labels-idx1", (np.arange(20) % 2).astype(np.uint8))):
        head = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
        (folder / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes()))


def make_shard(folder: Path) -> None:
    import pandas as pd

    stream = io.BytesIO()
    picture().save(stream, "PNG")
    rows = [{"image": {"bytes": stream.getvalue(), "path": "x"}, "label": row % 2} for row in range(12)]
    pd.DataFrame(rows).to_parquet(folder / "train.parquet", index=False)


def make_labels(folder: Path) -> None:
    picture().save(folder / "a.png")
    picture(1).save(folder / "b.png")
    lines = [f"{name}.png,{label},{side}" for side in ("train", "test") for name, label in (("a", "cat"), ("b", "dog"))]
    (folder / "labels.csv").write_text("path,label,split\n" + "\n".join(lines) + "\n")


def look(data) -> None:
    for side in (data.train, data.test):
        side.read(0)


def matrix(folder: Path) -> None:
    open_dataset("utd_mhad", {}).write_sample(folder)
    found = sorted(folder.rglob("*.mat"))
    found[0].rename(folder / "a.mat")


def recordings(name: str, folder: Path) -> None:
    for recording in open_dataset(name, {}).read(folder):
        assert np.isfinite(recording.signal).all()


def sample(name: str, file: str) -> Kind:
    """A kind that is a data set's own sample, of which one file is hostile."""

    def make(folder: Path) -> None:
        open_dataset(name, {}).write_sample(folder)
        found = next(path for path in sorted(folder.rglob(f"*{Path(file).suffix}")) if path.is_file())
        if found != folder / file:
            found.rename(folder / file) if found.parent == folder else None

    return Kind(file, make, lambda folder: recordings(name, folder))


KINDS: dict[str, Kind] = {
    "npz recording": sample("npz", "a.npz"),
    "parquet recording": sample("parquet", "a.parquet"),
    "matlab": Kind("a.mat", matrix, lambda folder: read_matrix(folder / "a.mat", "d_iner", 6)),
    "npz of images": Kind("images.npz", make_images, lambda folder: look(load_arrays(str(folder / "images.npz")))),
    "idx": Kind("train-images-idx3-ubyte.gz", make_idx, lambda folder: look(load_idx(str(folder)))),
    "shard": Kind("train.parquet", make_shard, lambda folder: look(load_parquet(str(folder)))),
    "labels": Kind("labels.csv", make_labels, lambda folder: look(load_table(str(folder / "labels.csv")))),
    "png": Kind("a.png", lambda folder: picture().save(folder / "a.png"), lambda folder: read_image(folder / "a.png")),
    "jpeg": Kind("a.jpg", lambda folder: picture().save(folder / "a.jpg"), lambda folder: read_image(folder / "a.jpg")),
    "gif": Kind("a.gif", lambda folder: picture().save(folder / "a.gif"), lambda folder: read_image(folder / "a.gif")),
    "tiff": Kind("a.tif", lambda folder: picture().save(folder / "a.tif"), lambda folder: read_image(folder / "a.tif")),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_recording_is_read_or_costs_an_error_of_ours(kind: str, tmp_path: Path) -> None:
    sound, found = tmp_path / "sound", Counter()
    sound.mkdir()
    KINDS[kind].make(sound)
    assert outcome(lambda: KINDS[kind].read(sound), sound) == "loaded"
    for draw in range(DRAWS):
        hostile = Path(shutil.copytree(sound, tmp_path / "room" / "hostile"))
        generator = np.random.default_rng([draw, *kind.encode()])
        (no_file if draw % 7 == 6 else bytes_changed)(hostile / KINDS[kind].file, generator)
        try:
            found[outcome(partial(KINDS[kind].read, hostile), hostile)] += 1
        except Exception as error:
            raise AssertionError(f"{kind}, draw {draw}") from error
        shutil.rmtree(hostile)
    assert found["refused"] > 1


def npy(description: str, content: bytes = b"") -> bytes:
    """Return an array file whose header is written by hand."""
    head = description.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for name, content in members.items():
            made.writestr(name.replace("UP", "../"), content)
    return stream.getvalue()


def described(kind: str, shape: str) -> bytes:
    return npy(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}", bytes(64))


def objects(folder: Path) -> bytes:
    """Return an array of objects whose pickle makes the canary."""
    return npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", call("system", folder.parent / CANARY))


SHAPES = (
    "(1099511627776,)",
    "(2**70,)",
    "(-1,)",
    "(4294967296, 4294967296, 4)",
    "'x'",
    "(1.5,)",
    "([],)",
    "()",
    "(0, 3)",
)
TYPES = ("|O", "<f16", "<U1000000000", "<M8[ns]", "V99999999", "os.system", "[('a', '|O')]", "<c16", "|S0", "<i3")
ARRAYS: dict[str, Callable[[Path], bytes]] = {
    "objects": objects,
    "a pickle for an array": lambda folder: call("eval", folder.parent / CANARY),
    "code for a header": lambda folder: npy("__import__('os').system('touch canary')"),
    "a deep header": lambda folder: npy("(" * 110),
    **{f"shape {shape}": lambda folder, shape=shape: described("|u1", shape) for shape in SHAPES},
    **{f"type {kind}": lambda folder, kind=kind: described(kind, "(2,)") for kind in TYPES},
}
NPZ_READERS = {
    "images": lambda path: load_arrays(str(path)),
    "recording": lambda path: open_dataset("npz", {"label": "labels"}).read(path),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", NPZ_READERS)
@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_asks_for_code_or_memory_is_refused(name: str, reader: str, tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.npz"
    path.parent.mkdir()
    content = ARRAYS[name](path.parent)
    path.write_bytes(zipped(**{f"{key}.npy": content for key in ("images", "labels", "time", "acc", "UPescaped")}))
    assert outcome(lambda: NPZ_READERS[reader](path), path.parent) == "refused"


LABELS = ("../a.png", "/etc/passwd", "..", "a.png/../../a.png", "link.png", "x" * 5000, "a.png\0", "~/a.png", "folder")


@pytest.mark.parametrize("name", LABELS)
def test_a_label_file_reads_no_picture_outside_its_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    make_labels(folder)
    (folder / "folder").mkdir()
    (tmp_path / "secret.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "labels.csv").write_text(f"path,label,split\n{name},cat,train\na.png,cat,test\n")
    assert outcome(lambda: look(load_table(str(folder / "labels.csv"))), folder) == "refused"


def png(width: int, height: int) -> bytes:
    """Return a picture that says it is very large, with a few bytes of pixels."""
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (100_000, 100_000), (1, 2**31 - 1), (20_000, 5_000), (0, 5)])
def test_a_picture_that_says_it_is_very_large_is_refused(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.png"
    path.parent.mkdir()
    path.write_bytes(png(*size))
    assert outcome(lambda: read_image(path), path.parent) == "refused"


TEXT = "session,start_s,end_s,candidates\n{}\n"
DIARIES = (
    "s,0,1e999,sit",
    "s,nan,1,sit",
    "s,0,1," + "sit|" * 100_000,
    "s" * 200_000 + ",0,1,sit",
    "s,0",
    "s,1,0,sit",
    '"',
)


@pytest.mark.parametrize("line", DIARIES, ids=lambda line: line[:12])
def test_a_hostile_diary_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "in" / "diary.csv"
    path.parent.mkdir()
    path.write_text(TEXT.format(line))
    assert outcome(lambda: read_candidates(path, ("sit", "walk")), path.parent) == "refused"


def test_a_parquet_file_of_one_value_fifty_million_times_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "in" / "a.parquet"
    path.parent.mkdir()
    rows = 50_000_000
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array(["x" * 500]))
    table = pa.table({"time": pa.array(np.zeros(rows, np.int8)), "text": values, "number": values.indices})
    pq.write_table(table, path, use_dictionary=["text"], compression="zstd")
    assert path.stat().st_size < 4 << 20
    dataset = open_dataset("parquet", {})
    assert outcome(lambda: dataset.read_columns(path, ["time"], ["text"]), path.parent) == "refused"
    assert outcome(lambda: dataset.read_columns(path, ["time", "number"]), path.parent) == "refused"
    small = tmp_path / "in" / "b.parquet"
    few = pa.table({"time": pa.array(np.zeros(20_000, np.int8)), "text": values.slice(0, 20_000)})
    pq.write_table(few, small, use_dictionary=["text"], compression="zstd")
    assert outcome(lambda: dataset.read_columns(small, ["time"], ["text"]), small.parent) == "loaded"


def test_one_long_name_does_not_make_room_for_itself_in_every_row(tmp_path: Path) -> None:
    path = tmp_path / "in" / "a.csv"
    path.parent.mkdir()
    path.write_text("time,label\n" + "0,a\n" * 100_000 + f"0,{'b' * 1000}\n")
    dataset = open_dataset("csv", {})
    assert outcome(lambda: dataset.read_columns(path, ["time"], ["label"]), path.parent) == "refused"
    path.write_text("time,label\n" + "0,a\n" * 100_000 + f"0,{'b' * 100}\n")
    assert outcome(lambda: dataset.read_columns(path, ["time"], ["label"]), path.parent) == "loaded"
