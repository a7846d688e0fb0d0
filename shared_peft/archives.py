"""How much a packed file may hold: a small file must not fill the memory (limits ours)."""

import zipfile
from pathlib import Path

from shared_peft.errors import DataError

ALWAYS, MOST = 256 << 20, 4 << 30  # [bytes]
RATIO = 50  # recordings and pictures pack to a twentieth at best; columns of one value to a thousandth


def largest_content(path: Path) -> int:
    """Return how many bytes a packed file may unpack to: 256 MiB, or 50 times its size, at most 4 GiB."""
    return min(MOST, max(ALWAYS, RATIO * path.stat().st_size))


def check_content(path: Path, size: int) -> None:
    """Raise DataError where a packed file holds more than `largest_content` bytes.

    Args:
        path: the file.
        size: what it says, or was seen, to hold [bytes].
    """
    limit = largest_content(path)
    if size > limit:
        must = f"a file of this size must unpack to at most {limit >> 20} MiB"
        raise DataError(path, must, f"{size >> 20} MiB", "Split it, or save it without compression")


def check_unpacked(path: Path) -> None:
    """Raise DataError where a zip file's entries say they hold more than `largest_content` bytes.

    Raises:
        zipfile.BadZipFile: it is no zip file.
    """
    with zipfile.ZipFile(path) as archive:
        check_content(path, sum(entry.file_size for entry in archive.infolist()))
