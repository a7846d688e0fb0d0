"""Finds tensors that an ONNX file keeps in other files, by walking the file's own bytes (onnx.proto3 of ONNX 1.17).

onnxruntime would open whatever file such a tensor names. The walk needs no package and copies nothing.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from deploy.bundle_files import BundleError

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # fields of TensorProto
_CHILDREN: dict[str, dict[int, str]] = {  # messages that lead to tensors, by field number
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types


def refuse_external_data(path: Path) -> None:
    """Raise BundleError where an .onnx file keeps a tensor in another file, or is no ONNX file.

    Args:
        path: the file.
    """
    if not path.stat().st_size:
        raise BundleError(path.name, "must be an ONNX file that onnxruntime loads", "an empty file", "Export it again")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            found = _holds_external(data)
        except (IndexError, ValueError) as error:
            raise BundleError(
                path.name, "must be an ONNX file that onnxruntime loads", error, "Export it again"
            ) from error
    if found:
        fix = "Export it again, or save it with onnx.save_model(..., save_as_external_data=False)"
        raise BundleError(path.name, "must hold all of its tensors", "tensors in other files", fix)


def _holds_external(data: mmap.mmap) -> bool:
    open_messages = [("model", 0, len(data))]
    while open_messages:
        kind, start, end = open_messages.pop()
        for field, at, stop in _fields(data, start, end):
            if kind == "tensor" and field in (_EXTERNAL_DATA, _DATA_LOCATION):
                if field == _EXTERNAL_DATA or stop == at and _varint(data, at)[0]:
                    return True
            elif field in _CHILDREN[kind]:
                open_messages.append((_CHILDREN[kind][field], at, stop))
    return False


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, begin and end of every field of a message; a number's end is its begin."""
    while at < end:
        tag, at = _varint(data, at)
        wire, size = tag & 7, 0
        if wire == _LENGTH:
            size, at = _varint(data, at)
            yield tag >> 3, at, at + size
        elif wire == _VARINT:
            yield tag >> 3, at, at
            _, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"a field of wire type {wire} at byte {at}")
        at += size
        if at > end:
            raise ValueError(f"a field that ends {at - end} bytes after its message")


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError(f"a number without an end at byte {at}")
