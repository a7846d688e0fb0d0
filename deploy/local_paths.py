"""No path of the machine that exported may travel in a bundle."""

import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shared_peft.errors import ExportError

_ABSOLUTE = re.compile(r"^(?:file:)?(?:[A-Za-z]:)?[\\/~]|^\.{1,2}[\\/]")
_ANYWHERE = re.compile(
    rb"(?<![\w.:/-])/(?:home|root|Users|tmp|var|opt|usr|mnt|media|srv|private)/[\w.-]{2}|[A-Za-z]:\\{1,2}Users\\"
)
_LEAST_LENGTH = 5


def without_paths(value: Any) -> Any:
    """Return JSON values with every absolute or relative file path cut down to its last name.

    Example:
        >>> without_paths({"checkpoint": "/home/me/weights/resnet20.th", "method": "flora"})
        {'checkpoint': 'resnet20.th', 'method': 'flora'}
    """
    if isinstance(value, dict):
        return {str(key): without_paths(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(item) for item in value]
    if isinstance(value, Path):
        return value.name
    if isinstance(value, str) and _ABSOLUTE.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value


def refuse_local_paths(files: Iterable[Path], secrets: Iterable[Path] = ()) -> None:
    """Check the bytes of files for paths of this machine.

    Args:
        files: files to read, text or binary.
        secrets: further paths that must not occur, such as the run folder.

    Raises:
        ExportError: a path occurs; the message shows it.
    """
    known = {str(path) for path in (Path.cwd(), Path.home(), Path(sys.prefix), Path(tempfile.gettempdir()), *secrets)}
    known |= {str(Path(path).resolve()) for path in known}
    needles = [path.encode() for path in sorted(known) if len(path) >= _LEAST_LENGTH and Path(path).is_absolute()]
    for file in files:
        content = file.read_bytes()
        found = next((needle for needle in needles if needle in content), None)
        if found is None and (match := _ANYWHERE.search(content)):
            found = content[match.start() : match.start() + 80].split(b"\0")[0]
        if found is not None:
            must = "must hold no path of the machine that exported it"
            got = repr(found.decode(errors="replace"))
            raise ExportError(file.name, must, got, "Take the path out of the run's details, scores or class names")
