"""One table of numbers from a Matlab 5 file ("MAT-File Format", MathWorks, chapter 1), every length checked.

``scipy.io.loadmat`` trusts a file's type codes: one flipped bit can end the whole process (seen with scipy 1.17).
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imu_saga.files.number_rows import LARGEST
from imu_saga.files.tables import check_file
from shared_peft.errors import DataError

MAX_BYTES = 64 << 20  # ours, compressed or not
HEADER_BYTES = 128
BYTE_ORDER = {b"IM": "<", b"MI": ">"}
NUMBER_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
INT32, UINT32, MATRIX, COMPRESSED = 5, 6, 14, 15
FLOAT_CLASSES = (6, 7)  # mxDOUBLE_CLASS, mxSINGLE_CLASS
COMPLEX_FLAG = 0x800


def read_matrix(path: Path, name: str, columns: int) -> np.ndarray:
    """Read one two-dimensional array; other variables of the file are passed over.

    Args:
        path: a Matlab file of version 5, 6 or 7, of at most 64 MiB.
        name: the variable.
        columns: its number of columns.

    Returns:
        (rows, columns) float64, finite.

    Raises:
        DataError: the file is missing, damaged or of another kind, or the variable is missing or no such array.
    """
    check_file(path)
    if path.stat().st_size > MAX_BYTES:
        came = f"{path.stat().st_size >> 20} MiB"
        raise DataError(path, f"must be at most {MAX_BYTES >> 20} MiB", came, "Use the official file, unchanged")
    try:
        found = _variables(path.read_bytes())
        values = found.get(name)
        if values is None:
            raise ValueError(f"only {', '.join(found)}" if found else "no numbers")
        if values.ndim != 2 or values.shape[1] != columns or not len(values):
            raise ValueError(f"shape {values.shape}")
        if not (np.abs(values) < LARGEST).all():
            raise ValueError(f"{values[~(np.abs(values) < LARGEST)][0]} among them")
    except (ValueError, struct.error, zlib.error) as error:
        must = f"must be a whole Matlab 5 file with {name}, (samples, {columns}) finite numbers"
        raise DataError(path, must, str(error)[:100], "Copy or download the official file again") from error
    return values


def _variables(data: bytes) -> dict[str, np.ndarray]:
    """Return the file's real floating-point arrays by name."""
    order = BYTE_ORDER.get(data[HEADER_BYTES - 2 : HEADER_BYTES])
    if order is None or not data.startswith(b"MATLAB"):
        raise ValueError("another kind of file")
    return dict(_arrays(data[HEADER_BYTES:], order))


def _arrays(data: bytes, order: str) -> Iterator[tuple[str, np.ndarray]]:
    for kind, content in _elements(data, order):
        inside = _elements(_unpacked(content), order) if kind == COMPRESSED else ((kind, content),)
        for inner_kind, inner in inside:
            if inner_kind == MATRIX:
                yield from _array(inner, order)


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Iterate over (type, content); up to four bytes of content stand in the tag itself."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            at += 8
        else:
            at = start + size + (0 if kind == COMPRESSED else -size % 8)
        if start + size > len(data) or start + size > at:
            raise ValueError(f"an element of {size} bytes where {len(data) - start} are left")
        yield kind, data[start : start + size]


def _unpacked(content: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    data = unpacking.decompress(content, MAX_BYTES)
    if not unpacking.eof:
        raise ValueError("compressed data without an end, or too large")
    return data


def _array(content: bytes, order: str) -> Iterator[tuple[str, np.ndarray]]:
    """Give (name, values) if the element is a real array of floats; other classes are passed over."""
    parts = _elements(content, order)
    kind, flags = next(parts, (0, b""))
    if kind != UINT32 or len(flags) != 8:
        raise ValueError("an array without flags")
    word = struct.unpack_from(f"{order}I", flags)[0]
    if word & 0xFF not in FLOAT_CLASSES or word & COMPLEX_FLAG:
        return
    (shape_kind, shape), (_, name), (number_kind, numbers) = (next(parts, (0, b"")) for _ in range(3))
    if shape_kind != INT32 or number_kind not in NUMBER_TYPES:
        raise ValueError("an array without a shape or numbers")
    sizes = np.frombuffer(shape, f"{order}i4").tolist()
    values = np.frombuffer(numbers, order + NUMBER_TYPES[number_kind]).astype(np.float64)
    yield name.decode("ascii", "backslashreplace"), values.reshape(sizes, order="F")
