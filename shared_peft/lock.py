"""A file that one process holds: a second one is refused, a killed one leaves no lock behind."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from shared_peft.errors import RunError
from shared_peft.writing import writing


@contextlib.contextmanager
def held(file: Path, where: Path) -> Iterator[None]:
    """Hold a lock file, made if absent, for this process.

    Args:
        file: the file, in an existing folder.
        where: the folder it stands for, named in the error.

    Raises:
        RunError: another process holds it.
        WriteError: no file can be made there.
    """
    with contextlib.ExitStack() as opened:
        with writing(file):
            handle = opened.enter_context(file.open("a"))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            current = os.path.samestat(os.fstat(handle.fileno()), file.stat())
        except (BlockingIOError, FileNotFoundError):
            current = False
        if not current:  # held by another process, or taken away by one that has just ended
            fix = "Wait for it to end, or choose another --out"
            raise RunError(where, "must be used by one run at a time", "another running process", fix)
        yield
