"""Files and folders that appear whole or not at all: write beside the target, then rename onto it."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared_peft.lock import held
from shared_peft.writing import made_folder, writing

PART = ".part"  # ending of what is not whole yet


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the target's folder; rename it onto ``path`` if the block succeeds.

    Args:
        path: the file to write; its folder is created.

    Yields:
        The temporary path to write to. It is removed if the block raises.

    Raises:
        WriteError: the disk is full, or the folder is closed to writing.
    """
    with made_folder(path.parent), writing(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _publish(temporary, path, 0o666)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def appearing_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; rename it onto ``path`` if the block succeeds, remove it otherwise.

    One process makes it at a time; what a killed one left is removed.

    Args:
        path: the folder to make; nothing there yet, or an empty folder.

    Yields:
        The temporary folder to write into.

    Raises:
        RunError: another process is making it.
        WriteError: the disk is full, or the folder around it is closed to writing.
    """
    temporary, lock = path.parent / f".{path.name}{PART}", path.parent / f".{path.name}.lock"
    with made_folder(path.parent), writing(path), held(lock, path):
        try:
            if temporary.exists():
                shutil.rmtree(temporary)
            temporary.mkdir(mode=0o700)
            yield temporary
            _publish(temporary, path, 0o777)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            lock.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Tell whether a file or folder is what a kill left of one that was being written."""
    return path.name.startswith(".") and path.suffix == PART


def sweep(folder: Path) -> None:
    """Remove files that a kill left half-written below a folder; nobody else may be writing there."""
    for file in folder.rglob(f".*{PART}"):
        if file.is_file() and not any(is_leftover(above) for above in file.parents):
            file.unlink(missing_ok=True)


def _publish(temporary: Path, path: Path, mode: int) -> None:
    """Rename onto ``path`` with the rights a newly made file or folder would have."""
    mask = os.umask(0)
    os.umask(mask)
    temporary.chmod(mode & ~mask)
    temporary.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
