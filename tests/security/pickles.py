"""Torch files that ask for code, memory or other files: whatever a pickle inside them could be made to call."""

import functools
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from tests.security.guard import CANARY

CALLS: dict[str, tuple[str, str, tuple[object, ...]]] = {
    "system": ("os", "system", ("touch {canary}",)),
    "posix": ("posix", "system", ("touch {canary}",)),
    "popen": ("subprocess", "Popen", (["touch", "{canary}"],)),
    "eval": ("builtins", "eval", ("open('{canary}', 'w')",)),
    "exec": ("builtins", "exec", ("open('{canary}', 'w')",)),
    "open": ("builtins", "open", ("{canary}", "w")),
    "touch": ("pathlib", "Path.touch", ("{canary}",)),
    "getattr": ("builtins", "getattr", ("", "format")),
    "import": ("builtins", "__import__", ("antigravity",)),
    "runpy": ("runpy", "run_path", ("{canary}",)),
    "torch.load": ("torch", "load", ("{canary}",)),
    "torch storage": ("torch.storage", "_load_from_bytes", (b"cos\nsystem\n(S'touch {canary}'\ntR.",)),
    "torch hub": ("torch.hub", "load", ("{canary}", "x")),
    "torch library": ("torch.ops", "load_library", ("{canary}",)),
    "torch jit": ("torch.jit", "load", ("{canary}",)),
    "torch package": ("torch.package", "PackageImporter", ("{canary}",)),
    "torch module": ("torch.nn.modules.linear", "Linear", (10, 10)),
    "torch dynamo": ("torch._dynamo.guards", "getitem", ("{canary}",)),
    "torch distributed": ("torch.distributed.run", "main", (["{canary}"],)),
    "numpy": ("numpy.testing._private.utils", "runstring", ("open('{canary}', 'w')", {})),
    "codecs": ("_codecs", "encode", ("x" * 10, "latin1")),
    "bytes of memory": ("builtins", "bytearray", (1 << 40,)),
    "parameter": ("torch._utils", "_rebuild_parameter", (1, 2, 3)),
    "own config": ("shared_peft.training.run", "RunFolder", ("{canary}",)),
    "pickle": ("pickle", "loads", (b"cos\nsystem\n(S'touch {canary}'\ntR.",)),
}


def call(name: str, canary: Path, protocol: int = 2) -> bytes:
    """Return a pickle that calls something, written by hand so that nothing has to be importable here."""
    module, function, arguments = CALLS[name]
    filled = pickle.dumps(tuple(_filled(value, canary) for value in arguments), protocol)[2:-1]  # no PROTO, no STOP
    return b"\x80\x02" + f"c{module}\n{function}\n".encode() + filled + b"R."


def _filled(value: object, canary: Path) -> object:
    if isinstance(value, str):
        return value.replace("{canary}", str(canary))
    if isinstance(value, bytes):
        return value.replace(b"{canary}", str(canary).encode())
    return [_filled(item, canary) for item in value] if isinstance(value, list) else value


def archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip file as torch.save writes it, with these entries."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as made:
        for name, content in entries.items():
            made.writestr(f"archive/{name}", content)
    return stream.getvalue()


def as_zip(content: bytes, folder: Path) -> bytes:
    """Put a pickle into a torch zip file."""
    return archive({"data.pkl": content, "byteorder": b"little", "version": b"3\n"})


def as_bare(content: bytes, folder: Path) -> bytes:
    """Leave a pickle as it is."""
    return content


def as_legacy(content: bytes, folder: Path) -> bytes:
    """Put a pickle where torch 1.5 and older expect the object, behind magic number, protocol and system."""
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    return magic + pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2) + content


def as_tar(content: bytes, folder: Path) -> bytes:
    """Put a pickle into the tar layout of torch 0.1, whose reader once ran code in spite of weights_only."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        for name in ("storages", "tensors", "pickle"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("../escaped")
        link.type, link.linkname = tarfile.SYMTYPE, str(folder / CANARY)
        made.addfile(link)
    return stream.getvalue()


WRAPPERS: dict[str, Callable[[bytes, Path], bytes]] = {
    "zip": as_zip,
    "bare": as_bare,
    "legacy": as_legacy,
    "tar": as_tar,
}


@functools.cache
def _packed() -> bytes:
    """Return a torch file of a megabyte whose one tensor unpacks to a gibibyte and a half."""
    stream = io.BytesIO()
    torch.save({"w": torch.zeros(4)}, stream)
    with zipfile.ZipFile(io.BytesIO(stream.getvalue())) as given:
        entries = {name.partition("/")[2]: given.read(name) for name in given.namelist()}
    entries = {
        n: c.replace(b"K\x04", b"J" + struct.pack("<i", 3 << 27)) if n == "data.pkl" else c for n, c in entries.items()
    }
    data = next(name for name in entries if name.startswith("data/"))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for name, content in entries.items():
            if name == data:
                with made.open(f"archive/{name}", "w", force_zip64=True) as entry:
                    for _ in range(96):
                        entry.write(bytes(1 << 24))
            else:
                made.writestr(f"archive/{name}", content)
    return stream.getvalue()


def packed_bomb(folder: Path) -> bytes:
    """Return a torch file that unpacks to a thousand times its size."""
    return _packed()


def declared_giant(folder: Path) -> bytes:
    """Return a torch file whose pickle says its tensor has 2^45 values, over the four bytes that are there."""
    stream = io.BytesIO()
    torch.save({"w": torch.zeros(4)}, stream)
    return stream.getvalue().replace(b"K\x04", b"K\xff")


def stretched(folder: Path) -> bytes:
    """Return a torch file with one value that stands for 2^40, all at one place."""
    stream = io.BytesIO()
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, stream)
    return stream.getvalue()


def nested_names(folder: Path) -> bytes:
    """Return a torch file whose one name is a tuple of tuples of tuples, 2^22 in all, that share their places."""
    name: tuple[object, ...] = ("x",)
    for _ in range(22):
        name = (name, name)
    return as_zip(pickle.dumps({name: 1}, 2), folder)


def deep(folder: Path) -> bytes:
    """Return a pickle of 200,000 lists in each other."""
    return as_zip(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", folder)


def same_part_twice(folder: Path) -> bytes:
    """Return a torch zip file that names its data a hundred times over."""
    stream = io.BytesIO()
    torch.save({"w": torch.zeros(1000)}, stream)
    out = io.BytesIO(stream.getvalue())
    with zipfile.ZipFile(out, "a") as made:
        first = next(entry for entry in made.infolist() if "/data/" in entry.filename)
        for number in range(100):
            again = zipfile.ZipInfo(f"archive/data/{number + 1}")
            again.header_offset, again.file_size, again.compress_size = (
                first.header_offset,
                first.file_size,
                first.file_size,
            )
            again.CRC = first.CRC
            made.filelist.append(again)
            made.NameToInfo[again.filename] = again
        made._didModify = True
    return out.getvalue()


FILES: dict[str, Callable[[Path], bytes]] = {
    made.__name__: made for made in (packed_bomb, declared_giant, stretched, nested_names, deep, same_part_twice)
}
