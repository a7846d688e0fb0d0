"""What a failed write means to whoever asked for it: which folder, why, and what to do, instead of a traceback."""

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from shared_peft.errors import SagaPeftError, WriteError

_FULL = "Make room there, or choose a folder on another disk"
_CLOSED = "Allow writing there, or choose a folder that may be written to"
_TRIED = 1 << 20  # ours: more than the small files of a bundle
_CURES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "Raise the largest file allowed (ulimit -f), or choose a folder on another disk",
    errno.EROFS: _CLOSED,
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what a full disk or a closed folder makes of a block that writes into an error that says what to do.

    Args:
        path: the file or folder being written, named in the error.

    Raises:
        WriteError: the block could not write. Whatever else it raises passes.
    """
    try:
        yield
    except WriteError as error:
        raise WriteError(path, error.must, error.got, error.fix) from error
    except SagaPeftError:
        raise
    except Exception as error:
        number = _reason(error, path)
        if number is None:
            raise
        fix = _CURES.get(number, "Choose another folder")
        raise WriteError(path, "must be writable", os.strerror(number), fix) from error


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; if the block fails, those that were not there before go again, if empty.

    Raises:
        WriteError: the folder cannot be made.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for each in missing:
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


def advice(error: OSError) -> str:
    """Return what to do about an error of the system that names no file, one sentence; "" where nothing can be said."""
    if error.filename is not None or error.errno not in _CURES:
        return ""
    return f"{_CURES[error.errno]}. Files for a moment lie in {tempfile.gettempdir()}; TMPDIR chooses another folder."


def _reason(error: BaseException | None, path: Path) -> int | None:
    """Return the system's number for why ``path`` could not be written; None if the error is about something else.

    Libraries that write by themselves hide it: torch in the errors before its own, safetensors in its text, and
    onnxruntime altogether; where nothing tells, a file of `_TRIED` bytes does.
    """
    first = error
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            named = error.filename is not None
            ours = _concerns(Path(os.fsdecode(error.filename)), path) if named else error.errno in _CURES
            return error.errno if ours else None
        if isinstance(error, SafetensorError) and (told := re.search(r"\(os error (\d+)\)", str(error))):
            return int(told[1])
        error = error.__cause__ or error.__context__
    return None if isinstance(first, (ValueError, TypeError, LookupError)) else _tried(path.parent)


def _tried(folder: Path) -> int | None:
    """Return the system's number for why a small file cannot be written to a folder, or None if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"\0" * _TRIED)
    except OSError as error:
        return error.errno
    return None


def _concerns(named: Path, path: Path) -> bool:
    """Tell whether an error that names a file is about ``path``: it, a folder above it, or what becomes it."""
    if path.is_relative_to(named):
        return True
    beside = named.relative_to(path.parent).parts if named.is_relative_to(path.parent) else ("",)
    return beside[0] == path.name or beside[0].startswith(f".{path.name}.")
