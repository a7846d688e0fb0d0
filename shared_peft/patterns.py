"""A time limit for regular expressions that come with a file (ours).

Python's matching can take time that doubles with every letter of a name, and cannot be stopped from within. So the
patterns of a file are first tried on the model's names in a process of their own, which can be: matching takes the
same steps every time, so what ends there in time ends here, too.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shared_peft.errors import ConfigError

LIMIT_S = 5.0
_TRIAL = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for name in names:
    for pattern in patterns:
        try:
            re.compile(pattern).fullmatch(name)
        except (re.error, OverflowError, RecursionError):
            pass  # said where it is used
"""
_HARMLESS = re.compile(r"[\w.\\|^$-]*")  # no group, class or repeat: nothing to go back to
_LONGEST_HARMLESS = 1 << 16  # characters of all patterns together


def or_suffix(pattern: str) -> str:
    """Return the expression for names that a pattern means in full or by their end, after a dot."""
    return rf"(.*\.)?({pattern})"


def check_patterns(values: Mapping[str, Any], names: Iterable[str], where: object) -> None:
    """Raise ConfigError where matching a configuration's patterns with all names takes longer than 5 seconds.

    Args:
        values: a configuration as a file gives it, types unchecked: fields called ``*_modules`` may be a regular
            expression, and the keys of fields called ``*_pattern`` are.
        names: what they will be matched with.
        where: the file, for the error.
    """
    found = list(_patterns(values))
    if all(_HARMLESS.fullmatch(given) for given, _ in found) and sum(len(p) for p, _ in found) <= _LONGEST_HARMLESS:
        return
    text = json.dumps([[used for _, used in found], list(names)])
    try:
        command = [sys.executable, "-I", "-S", "-c", _TRIAL]
        subprocess.run(command, input=text, text=True, capture_output=True, timeout=LIMIT_S, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        must = f"its regular expressions must match the model's names within {LIMIT_S:g} s"
        shown = ", ".join(repr(given)[:80] for given, _ in found[:3])
        raise ConfigError(where, must, shown, "Write them without repeats inside repeats, or as a list") from error


def _patterns(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each pattern as it is given and as it is used."""
    for key, value in values.items():
        if key.endswith("_modules") and isinstance(value, str):
            yield value, value
        if key.endswith("_pattern") and isinstance(value, Mapping):
            yield from ((str(pattern), or_suffix(str(pattern))) for pattern in value)
