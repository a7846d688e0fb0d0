"""What every hostile file must leave alone: this process's memory, the folders around it, whatever it asks to run."""

import contextlib
import hashlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from shared_peft.errors import SagaPeftError

LARGEST = 1 << 30  # [bytes] more than before
CANARY = "canary"  # what every piece of hostile code tries to make, in the folder above the hostile one
Outcome = Literal["refused", "loaded"]


def outcome(load: Callable[[], object], hostile: Path) -> Outcome:
    """Load something hostile: it loads, or costs an error of ours; nothing outside it is touched, 1 GiB is enough.

    Args:
        load: reads what lies at ``hostile``.
        hostile: a file or folder; the folder it lies in is watched.
    """
    around = hostile.parent
    before = listing(around)
    found: Outcome = "loaded"
    with at_most(LARGEST):
        try:
            load()
        except SagaPeftError:
            found = "refused"
    assert not (around / CANARY).exists()
    assert listing(around) == before
    return found


@contextlib.contextmanager
def at_most(size: int) -> Iterator[None]:
    """Fail where this process holds so many more bytes at any moment; at four times as many it gets none."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    held = _peak()
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 4 * size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert _peak() - held < size


def _peak() -> int:
    """Return the largest memory this process held [bytes]."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def listing(folder: Path) -> dict[str, object]:
    """Return what lies in a folder: names, where links lead, and what files hold."""
    return {
        path.relative_to(folder).as_posix(): path.readlink() if path.is_symlink() else _content(path)
        for path in sorted(folder.rglob("*"))
    }


def _content(path: Path) -> str:
    if not path.is_file():
        return "folder"
    with path.open("rb") as stream:
        return hashlib.sha256(stream.read(1 << 22)).hexdigest() + f" {path.stat().st_size}"
